"""JSON forms of values that are not in the table of docs/variables.md: paths, names, and values that the run supplies."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, IntFlag
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from airflow.sdk import ObjectStoragePath
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.client.variables import check_unrendered, json_ready

NAN = float("nan")
MOMENT = datetime(2018, 12, 12, 20, 0, tzinfo=timezone.utc)
AHEAD = timezone(timedelta(hours=8))


class Text(str):
    __slots__ = ()


class Kind(str, Enum):
    DAY = "day"


class Number(IntEnum):
    ONE = 1


class Flag(IntFlag):
    A = 1
    B = 2


class Nested(Enum):
    DAYS = (date(2018, 1, 2),)


class Lazy(Mapping[str, Any]):
    def __getitem__(self, name: str) -> Any:
        return {"a": Decimal(1)}[name]

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


class Output:
    """Like the output of an upstream task while a DAG is parsed."""

    def resolve(self) -> object:
        raise NotImplementedError


def cycle() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (Text("a"), "a"),
        (Kind.DAY, "day"),
        (Number.ONE, 1),
        (Flag.A | Flag.B, 3),
        (Nested.DAYS, ["2018-01-02"]),
        (Lazy(), {"a": "1"}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (deque([1]), [1]),
        (frozenset([10, 9]), [9, 10]),
        ({1, "a"}, ["a", 1]),
        (Decimal("1E+3"), "1000"),
        (Decimal("-0.00"), "-0.00"),
        (datetime(1, 2, 3), "0001-02-03 00:00:00"),  # noqa: DTZ001 - it has no zone
        (date(1, 2, 3), "0001-02-03"),
        (ObjectStoragePath("file:///data/in.csv"), "file:///data/in.csv"),
        (np.array(5), 5),
        (np.array([np.datetime64("2018-12-12T01:02:03.999", "ns")]), ["2018-12-12 01:02:03"]),
        (np.array(["a", None, date(2018, 1, 2)], dtype=object), ["a", None, "2018-01-02"]),
        (np.datetime64("2018-12-12"), "2018-12-12"),
        (np.datetime64("2018-12-12T09"), "2018-12-12 09:00:00"),
        (np.float64(0.1), 0.1),
        (np.str_("a"), "a"),
        ({2: "a", None: "b"}, {"2": "a", "null": "b"}),
        ({1.5: "a", date(2018, 1, 2): "b", Kind.DAY: "c"}, {"1.5": "a", "2018-01-02": "b", "day": "c"}),
        ({np.int64(3): "a", True: "b"}, {"3": "a", "true": "b"}),
    ],
)
def test_json_form_of_values(value: object, sent: object) -> None:
    made = json_ready({"a": value})["a"]
    assert made == sent
    assert json.dumps(made) == json.dumps(sent), "and it is plain JSON"


@pytest.mark.parametrize("zone", [ZoneInfo("Asia/Shanghai"), AHEAD])
def test_datetime_is_converted_to_the_time_zone_of_the_connection(zone: Any) -> None:
    assert json_ready({"a": MOMENT}, lambda: zone) == {"a": "2018-12-13 04:00:00"}
    assert json_ready({"a": MOMENT.astimezone(ZoneInfo("America/New_York"))}, lambda: zone) == {
        "a": "2018-12-13 04:00:00"
    }


def test_time_zone_is_requested_only_if_needed() -> None:
    asked: list[None] = []
    zone = lambda: asked.append(None) or AHEAD  # type: ignore[func-returns-value]  # noqa: E731
    json_ready({"a": [date(2018, 1, 2), datetime(2018, 1, 2)]}, zone)  # noqa: DTZ001 - it has no zone
    assert not asked
    json_ready({"a": MOMENT}, zone)
    assert asked


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"a": {"b": [0, 1, 2, NAN]}}, "variables['a']['b'][3] cannot be sent: it is nan,"),
        ({"a": {1: NAN}}, "variables['a'][1] cannot be sent"),
        ({"a": {NAN}}, "variables['a']{…} cannot be sent: it is nan"),
        (
            {"a": cycle()},
            "variables['a'][0][0][0][0][0][0][0][0][0]… cannot be sent: it is more than 100 levels",
        ),
        ({"a": {1: "b", "1": "c"}}, "it is a mapping in which 1 and '1' become the same key in JSON, '1'"),
        ({"a": {True: "b", "true": "c"}}, "True and 'true' become the same key"),
        ({"a": {(1, 2): 3}}, "it is a mapping with the key (1, 2). Write a text as the key"),
        ({"a": {NAN: 3}}, "it is a mapping with a key that is nan"),
        ({"a": {object(): 3}}, "it is a mapping with a key that is of type object"),
        (
            {"a": "b\0"},
            "variables['a'] cannot be sent: it is a text with a NUL character or a lone surrogate",
        ),
        (
            {"a": {"\udc00": 1}},
            "variables['a'] cannot be sent: it is a mapping with a key that is a text with",
        ),
        ({"a": 10**2000}, "it is a number of more than 1,200 digits"),
        (
            {"a": MOMENT},
            "the datetime 2018-12-12T20:00:00+00:00, and the time zone of Astro Zero's timestamps is",
        ),
        (
            {"a": np.ma.array([1, 2], mask=[False, True])},
            "variables['a'][1] cannot be sent: it is a missing value",
        ),
        ({"a": np.complex64(1)}, "it is a numpy.complex64"),
        (
            {"a": np.datetime64("2018-12")},
            "it is a datetime64 without a day, 2018-12. Write a date, or a text",
        ),
        ({"a": np.datetime64("10000-01-01")}, "a datetime64 out of range, 10000-01-01. Write a text"),
        ({"a": np.datetime64("-0001-01-01T09")}, "a datetime64 out of range, -001-01-01T09. Write a text"),
        ({"a": int}, "it is of type type"),
        ({1: "a"}, "each name in variables must be a text"),
        ({"": 1}, "each name in variables must be a text that is not blank"),
        (["a"], "variables must be a mapping of names to JSON values, not list"),
        (
            "{'a': 1}",
            "not a text. A template renders to a text: write one template for each value, such as variables={'amount'",
        ),
    ],
)
def test_refused_values(variables: object, words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are checked below
        json_ready(variables)
    assert words in str(caught.value)


def test_datetime_out_of_range_in_the_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="which is out of range in UTC.08:00"):
        json_ready({"a": datetime.max.replace(tzinfo=timezone.utc)}, lambda: AHEAD)


def test_errors_show_no_values() -> None:
    for variables in (
        {"a": b"s3cret"},
        {"a": "s3cret\0"},
        "{'password': 's3cret'}",
        {"a": (c for c in "s3cret")},
    ):
        with pytest.raises(ValueError, match="^variables") as caught:
            json_ready(variables)
        assert "s3cret" not in str(caught.value)


class TestCheckUnrendered:
    @pytest.mark.parametrize(
        "variables",
        [
            "{{ a }}",
            None,
            Output(),
            {"a": "{{ b }}"},
            {"a": MOMENT},
            {"a": Output()},
            {"a": [Lazy(), range(3)]},
        ],
    )
    def test_values_of_the_run_are_accepted(self, variables: object) -> None:
        check_unrendered(variables)

    @pytest.mark.parametrize("bad", [NAN, b"a", timedelta(1), "a\0", {1: 2, "1": 3}, object()])
    def test_unsendable_values_are_refused(self, bad: object) -> None:
        with pytest.raises(ValueError, match=r"^variables\['a'\]\[1\] cannot be sent"):
            check_unrendered({"a": [0, bad]})

    @pytest.mark.parametrize("variables", [["a"], 5, "a=1"])
    def test_non_mappings_are_refused(self, variables: object) -> None:
        with pytest.raises(ValueError, match="^variables must be a mapping of names to JSON values"):
            check_unrendered(variables)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner),
)  # fmt: skip


@given(JSON)
def test_plain_json_is_unchanged(value: Any) -> None:
    assert json_ready({"a": value}) == {"a": value}
    assert json.dumps(json_ready({"a": value})) == json.dumps({"a": value})
