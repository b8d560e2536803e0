"""Tests of the input of a batch: valid launches, and inputs that change."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.batches import batch_input
from airflow_provider_astrobpm.batches.batch_input import (
    LAUNCH_FIELDS,
    AuthorFields,
    InputPosition,
    Launch,
    parse_launches,
    validate_all,
    with_positions,
)

NAME = "Approval"
FIRST, SECOND = Launch(1, NAME, variables={"n": 1}), Launch(2, NAME, variables={"n": 2})


def checked(items: object, **arguments: Any) -> list[Launch]:
    return list(parse_launches(with_positions(items), **arguments))


class TestParseLaunches:
    def test_applies_the_defaults_of_the_batch(self) -> None:
        given: list[dict[str, Any]] = [
            {},
            {"variables": {"a": [1]}, "title": "T", "business_key": "k"},
            {"bpm_name": "Other"},
            {"version": "2"},
            {"version": None},
        ]
        assert checked(given, bpm_name=NAME, version="1.0") == [
            Launch(1, NAME, "1.0"),
            Launch(2, NAME, "1.0", {"a": [1]}, "k", "T"),
            Launch(3, "Other"),
            Launch(4, NAME, "2"),
            Launch(5, NAME, "1.0"),
        ]

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ([{}, "x"], "launch 2: it must be a mapping with some of bpm_name, .*, not str"),
            ([None], "launch 1: it must be a mapping"),
            (
                [{}, {}, {"varaibles": {}}],
                "launch 3: it has no field 'varaibles'; the fields are bpm_name",
            ),
            ([{"bpm_name": " "}], "launch 1: bpm_name must be a text that is not blank"),
            ([{"variables": []}], "launch 1: variables must be a mapping"),
            (
                [{"variables": {"a": object()}}],
                "launch 1: variables.'a'. cannot be sent: it is of type object",
            ),
            ([{"title": 5.5}], "launch 1: title must be a text"),
            (
                [{"business_key": "k"}, {}, {"business_key": "k"}],
                "launch 3: its business_key 'k' is also that of launch 1",
            ),
            ([{"id": "a"}, {"id": "b"}, {"id": "a"}], "launch 3: its id 'a' is also that of launch 1"),
            ([{"id": 2}, {}], "launch 2: its id 2 is also that of launch 1"),
            ([{"id": 1}, {"id": "1"}], "launch 2: its id '1' is also that of launch 1"),
            ([{"id": " "}], "launch 1: id must be a text that is not blank"),
            ([{"id": "None"}], "launch 1: id must not be 'None'"),
            ([{"id": 1.0}], "launch 1: id must be a string or an integer, not 1.0"),
            ([{"id": True}], "launch 1: id must be a string or an integer, not True"),
            ({"bpm_name": NAME}, "launches must be a list of mappings, not dict"),
            ("[]", "launches must be a list of mappings, not str"),
            (None, "launches must be a list of mappings, not NoneType"),
        ],
    )
    def test_rejects_what_cannot_be_started(self, given: object, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            checked(given, bpm_name=NAME)

    def test_rejects_a_launch_without_a_bpm_name(self) -> None:
        with pytest.raises(ValueError, match="launch 2: it needs a bpm_name, because the batch has none"):
            checked([{"bpm_name": NAME}, {"title": "T"}])

    def test_validates_one_launch_at_a_time(self) -> None:
        launches = parse_launches(with_positions([{}, "x"]), bpm_name=NAME)
        assert next(launches) == Launch(1, NAME)
        with pytest.raises(ValueError, match="launch 2"):
            next(launches)

    def test_digests_are_distinct_and_stable(self) -> None:
        """Later versions must find the instances of this one."""
        assert Launch(1, NAME, variables={"a": 1, "b": 2}).digest == "ylqt"
        assert Launch(9, NAME, variables={"b": 2, "a": 1}).digest == "ylqt", (
            "wherever it stands, however it is ordered"
        )
        values: tuple[Any, ...] = ("B", "1", {}, "k", "t", "i")
        other = [
            Launch(1, **{"bpm_name": NAME, field: value})
            for field, value in zip(LAUNCH_FIELDS, values, strict=True)
        ]
        assert len({one.digest for one in (FIRST, SECOND, *other)}) == 8

    def test_keeps_the_fields_of_the_author_for_the_result(self) -> None:
        variables = {"a": {"b": 1}}
        first, second = checked([{"id": "A17", "title": "T", "variables": variables}, {}], bpm_name=NAME)
        assert first.author_fields(with_variables=True) == AuthorFields("A17", "T", variables)
        assert first.author_fields() == AuthorFields("A17", "T")
        assert second.author_fields(with_variables=True) == AuthorFields(2, None, {})
        third, fourth = parse_launches(
            [(InputPosition("line 3", 3), {}), (InputPosition("line 9", 9), {})], bpm_name=NAME
        )
        assert (third.author_fields().id, fourth.author_fields().id) == (3, 9)

    def test_the_digest_treats_an_id_like_the_former_id_variable(self) -> None:
        """Batches of files with such a column may be in flight."""
        was = Launch(1, NAME, variables={"id": "A17", "amount": "5"})
        assert was.digest == "6ac2"
        assert Launch(1, NAME, variables={"amount": "5"}, id="A17", line=2).digest == was.digest
        assert Launch(1, NAME, variables={"amount": "5"}, id="A18").digest != was.digest
        both = [Launch(1, NAME, variables={"id": one}, id="A17").digest for one in ("x", "y")]
        assert len({*both, Launch(1, NAME, id="A17").digest}) == 3

    @given(
        st.dictionaries(
            st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip),
            st.integers() | st.text() | st.lists(st.booleans()),
        )
    )
    def test_the_digest_survives_json(self, variables: dict[str, Any]) -> None:
        again = json.loads(json.dumps(variables))
        assert Launch(1, NAME, variables=variables).digest == Launch(1, NAME, variables=again).digest


class TestValidateAll:
    @pytest.fixture(params=[100, 1], ids=["kept", "read again"], autouse=True)
    def _kept(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(batch_input, "MAX_LAUNCHES_IN_MEMORY", request.param)

    def test_summarises_a_valid_input(self) -> None:
        given = checked([{}, {"business_key": "k"}, {"business_key": "l"}], bpm_name=NAME)
        survey, again = validate_all(lambda: iter(given))
        assert (survey.total, survey.own_keys) == (3, {2: "k", 3: "l"})
        assert list(again()) == given
        assert list(again()) == given

    def test_summarises_the_names_of_variables(self) -> None:
        given = [FIRST, SECOND, Launch(3, NAME, "2", {"n": 3, "m": 3}), Launch(4, NAME, "2", {"m": 4})]
        survey, _ = validate_all(lambda: iter(given))
        assert survey.variable_names == {(NAME, None): {"n": 1}, (NAME, "2"): {"n": 3, "m": 3}}

    def test_summarises_an_empty_input(self) -> None:
        survey, again = validate_all(lambda: iter(()))
        assert survey.total == 0
        assert list(again()) == []

    @pytest.mark.parametrize(
        ("now", "number"), [([FIRST], 2), ([FIRST, SECOND, SECOND], 3), ([SECOND, FIRST], 1), ([], 1)]
    )
    def test_raises_if_the_input_has_changed_since(self, now: list[Launch], number: int) -> None:
        given = [FIRST, SECOND]
        _, again = validate_all(lambda: iter(given))
        given[:] = now
        if batch_input.MAX_LAUNCHES_IN_MEMORY > 2:
            assert list(again()) == [FIRST, SECOND]
            return
        with pytest.raises(ValueError, match=f"launch {number} has changed since the input was validated"):
            list(again())
