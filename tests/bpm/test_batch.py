"""What a launch of a batch may be, and what becomes of it: by tables, and by random batches."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.bpm.adoption import Record
from airflow_provider_astrobpm.bpm.batch import (
    FIELDS,
    BatchOrder,
    GoOn,
    Launch,
    Ledger,
    Start,
    launches_of,
    numbered,
)
from airflow_provider_astrobpm.bpm.errors import AmbiguousStartError, BatchChangedError
from airflow_provider_astrobpm.bpm.identity import BatchKey, TaskIdentity
from airflow_provider_astrobpm.bpm.instance import BpmInstance
from airflow_provider_astrobpm.bpm.search import Carriers

TASK = TaskIdentity("dag", "run", "task")
NAME = "Approval"
FIRST, SECOND = Launch(1, NAME, variables={"n": 1}), Launch(2, NAME, variables={"n": 2})
KEYED = Launch(1, NAME, business_key="mine")
Make = Callable[..., BpmInstance]


def checked(items: object, **arguments: Any) -> list[Launch]:
    return list(launches_of(numbered(items), **arguments))


class TestLaunches:
    def test_what_a_batch_says_holds_for_those_that_say_nothing(self) -> None:
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
        ("given", "said"),
        [
            ([{}, "x"], "launch 2: it must be a mapping with some of bpm_name, .*, not str"),
            ([None], "launch 1: it must be a mapping"),
            (
                [{}, {}, {"varaibles": {}}],
                "launch 3: it has no field 'varaibles'; what may be given is bpm_name",
            ),
            ([{"bpm_name": " "}], "launch 1: bpm_name must be a text that is not blank"),
            ([{"variables": []}], "launch 1: variables must be a mapping"),
            ([{"variables": {"a": object()}}], "launch 1: variable 'a' cannot be sent as JSON"),
            ([{"title": 5}], "launch 1: title must be a text"),
            (
                [{"business_key": "k"}, {}, {"business_key": "k"}],
                "launch 3: its business_key 'k' is that of launch 1 too",
            ),
            ({"bpm_name": NAME}, "launches must be a list of mappings, not dict"),
            ("[]", "launches must be a list of mappings, not str"),
            (None, "launches must be a list of mappings, not NoneType"),
        ],
    )
    def test_what_cannot_be_started(self, given: object, said: str) -> None:
        with pytest.raises(ValueError, match=said):
            checked(given, bpm_name=NAME)

    def test_each_needs_a_name(self) -> None:
        with pytest.raises(ValueError, match="launch 2: it needs a bpm_name, because the batch has none"):
            checked([{"bpm_name": NAME}, {"title": "T"}])

    def test_they_are_checked_one_by_one(self) -> None:
        launches = launches_of(numbered([{}, "x"]), bpm_name=NAME)
        assert next(launches) == Launch(1, NAME)
        with pytest.raises(ValueError, match="launch 2"):
            next(launches)

    def test_its_digest_is_its_own_and_never_changes(self) -> None:
        """An instance that a version has started must be found by later ones."""
        assert Launch(1, NAME, variables={"a": 1, "b": 2}).digest == "whlm"
        assert Launch(9, NAME, variables={"b": 2, "a": 1}).digest == "whlm", (
            "wherever it stands, however it is ordered"
        )
        values: tuple[Any, ...] = ("B", "1", {}, "k", "t")
        other = [
            Launch(1, **{"bpm_name": NAME, field: value}) for field, value in zip(FIELDS, values, strict=True)
        ]
        assert len({one.digest for one in (FIRST, SECOND, *other)}) == 7

    @given(st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.booleans())))
    def test_its_digest_survives_the_way_through_json(self, variables: dict[str, Any]) -> None:
        again = json.loads(json.dumps(variables))
        assert Launch(1, NAME, variables=variables).digest == Launch(1, NAME, variables=again).digest


def order(**fields: Any) -> BatchOrder:
    accepts = fields.pop("accepts", lambda one: one.state == "Completed OK")
    return BatchOrder(identity=TASK, generation=fields.pop("generation", 2), accepts=accepts, **fields)


def key_of(launch: Launch, generation: int = 2, again: int = 1) -> str:
    return TASK.batch_key(BatchKey(generation, launch.number, launch.digest, again))


def carriers_of(asked: BatchOrder, instances: Iterable[BpmInstance]) -> Carriers:
    found = Carriers(asked.wants)
    found.take(list(instances))
    return found


@pytest.fixture
def ledger(make: Make) -> Callable[..., Ledger]:
    def open_it(*instances: tuple[str, str], record: Record | None = None, **fields: Any) -> Ledger:
        """Open one on instances, each given by its state and its business key; their ids are 0, 1 and so on."""
        asked = order(**fields)
        made = [make(str(n), state=state, business_key=key) for n, (state, key) in enumerate(instances)]
        return Ledger(asked, record, carriers_of(asked, made))

    return open_it


OPEN, GOOD, BAD = "Running", "Completed OK", "Terminated"


class TestLedger:
    def test_the_first_try_starts_everything(self) -> None:
        empty = Ledger(order(generation=1))
        assert empty.decide(FIRST) == Start(FIRST, key_of(FIRST, 1))
        assert empty.decide(KEYED) == Start(KEYED, "mine")
        assert empty.superseded() == []
        empty.check_all_seen()

    @pytest.mark.parametrize(
        ("states", "end"),
        [
            ([OPEN], "0"),
            ([GOOD], "0"),
            ([BAD, OPEN], "1"),
            ([BAD, GOOD], "1"),
            ([GOOD, OPEN], "1"),
            ([BAD], 2),
            ([BAD, BAD], 3),
            ([], 1),
        ],
    )
    def test_what_this_generation_has_started(self, states: list[str], end: Any, ledger: Any) -> None:
        found = ledger(*((state, key_of(FIRST, again=n)) for n, state in enumerate(states, 1)))
        decision = found.decide(FIRST)
        if isinstance(end, str):
            assert isinstance(decision, GoOn)
            assert decision.instance.id == end
        else:
            assert decision == Start(FIRST, key_of(FIRST, again=end))
        assert found.decide(SECOND) == Start(SECOND, key_of(SECOND))
        assert found.superseded() == []

    def test_several_open_ones_of_a_launch_are_not_chosen_from(self, ledger: Any) -> None:
        with pytest.raises(AmbiguousStartError, match="which one is that of launch 1 cannot be told"):
            ledger((OPEN, key_of(FIRST)), (OPEN, key_of(FIRST, again=2))).decide(FIRST)

    def test_another_launch_in_its_place_is_a_changed_batch(self, ledger: Any) -> None:
        found = ledger((GOOD, key_of(Launch(1, NAME))))
        with pytest.raises(
            BatchChangedError, match="launch 1 is not the one that started instance '0'.*clear the task"
        ):
            found.decide(FIRST)

    def test_a_launch_that_is_missing_is_a_changed_batch(self, ledger: Any) -> None:
        found = ledger((GOOD, key_of(FIRST)), (BAD, key_of(SECOND)))
        found.decide(FIRST)
        with pytest.raises(BatchChangedError, match="launch 2"):
            found.check_all_seen()
        found.decide(SECOND)
        found.check_all_seen()

    def test_one_of_another_name_with_its_key_is_strange(self, ledger: Any, make: Make) -> None:
        asked = order()
        strange = make("7", name="Sub", business_key=key_of(FIRST))
        with pytest.raises(AmbiguousStartError, match="launch 1, but is none of 'Approval'"):
            Ledger(asked, None, carriers_of(asked, [strange])).decide(FIRST)

    @pytest.mark.parametrize(
        ("left_open", "keeps_open", "adopts"),
        [(False, False, False), (True, False, True), (False, True, True)],
    )
    def test_what_an_older_generation_left_open(
        self, left_open: bool, keeps_open: bool, adopts: bool, ledger: Any
    ) -> None:
        record = Record(generation=1, posted_at=1.0, left_open=left_open)
        found = ledger(
            (OPEN, key_of(FIRST, 1)),
            (GOOD, key_of(SECOND, 1)),
            (OPEN, key_of(Launch(3, "Gone"), 1)),
            record=record,
            keeps_open=keeps_open,
        )
        first, second = found.decide(FIRST), found.decide(SECOND)
        assert isinstance(first, GoOn) == adopts
        assert second == Start(SECOND, key_of(SECOND)), "a clear asks again for what has ended"
        assert [one.id for one in found.superseded()] == (["2"] if adopts else ["0", "2"])
        found.check_all_seen()

    def test_where_the_lists_may_hide_something_nothing_is_started(self, make: Make) -> None:
        asked = order()
        hidden = carriers_of(asked, [make("1"), make("2", business_key=None)])
        for record in (
            None,
            Record(generation=2, posted_at=1.0, told=True),
            Record(generation=1, posted_at=1.0),
        ):
            with pytest.raises(
                AmbiguousStartError, match="started launch 1 cannot be told: the lists show no business"
            ):
                Ledger(asked, record, hidden).decide(FIRST)
        answered = Ledger(asked, Record(generation=1, posted_at=1.0, told=True), hidden)
        assert answered.decide(FIRST) == Start(FIRST, key_of(FIRST))


class TestAuthorsKeys:
    """Others may use them too, so only what was not there before the first start is the batch's own."""

    def decide(self, make: Make, record: Record | None, *found: BpmInstance) -> tuple[Ledger, Start | GoOn]:
        asked = order(own_keys=frozenset({"mine"}))
        ledger = Ledger(asked, record, carriers_of(asked, found))
        return ledger, ledger.decide(KEYED)

    @pytest.mark.parametrize(
        ("strangers", "goes_on"), [((), True), (("7",), True), (("8",), False), (("7", "8"), False)]
    )
    def test_a_retry_knows_its_own_by_who_was_there_before(
        self, strangers: tuple[str, ...], goes_on: bool, make: Make
    ) -> None:
        record = Record(generation=2, posted_at=1.0, strangers=strangers)
        ledger, decision = self.decide(make, record, make("8", business_key="mine"))
        assert isinstance(decision, GoOn) == goes_on
        assert ledger.strangers == (() if goes_on else ("8",))

    def test_a_retry_that_does_not_know_who_was_there_refuses(self, make: Make) -> None:
        with pytest.raises(AmbiguousStartError, match="others may use their keys: instance '8'"):
            self.decide(make, Record(generation=2, posted_at=1.0), make("8", business_key="mine"))

    def test_the_first_try_starts_beside_strangers(self, make: Make) -> None:
        ledger, decision = self.decide(make, None, make("8", business_key="mine"))
        assert decision == Start(KEYED, "mine")
        assert ledger.strangers == ("8",)
        assert ledger.superseded() == []

    def test_a_clear_supersedes_what_the_older_generation_started(self, make: Make) -> None:
        record = Record(generation=1, posted_at=1.0, strangers=("7",))
        found = [
            make("7", business_key="mine"),
            make("8", business_key="mine"),
            make("9", GOOD, business_key="mine"),
        ]
        ledger, decision = self.decide(make, record, *found)
        assert decision == Start(KEYED, "mine")
        assert [one.id for one in ledger.superseded()] == ["8"]
        assert ledger.strangers == ("7", "8", "9")

    def test_one_of_another_bpm_is_none_of_it(self, make: Make) -> None:
        record = Record(generation=2, posted_at=1.0, strangers=())
        _, decision = self.decide(make, record, make("8", name="Other", business_key="mine"))
        assert decision == Start(KEYED, "mine")


@given(
    histories=st.lists(st.lists(st.sampled_from([OPEN, GOOD, BAD]), max_size=3), min_size=1, max_size=30),
    noise=st.lists(st.sampled_from(["", "other", TASK.key(2)]), max_size=5),
)
def test_whatever_is_there_a_launch_has_at_most_one_open_instance_after_it(
    histories: list[list[str]], noise: list[str]
) -> None:
    """No launch is started beside an open instance or a good end of its own, and none is forgotten."""
    launches = [Launch(n, NAME, variables={"n": n}) for n in range(1, len(histories) + 1)]
    instances = [
        BpmInstance(
            id=f"{launch.number}.{n}", name=NAME, state=state, is_closed=state != OPEN, business_key=key
        )
        for launch, states in zip(launches, histories, strict=True)
        for n, state in enumerate(states, 1)
        for key in [key_of(launch, again=n)]
    ]
    instances += [
        BpmInstance(id=f"x{n}", name=NAME, state=OPEN, business_key=key) for n, key in enumerate(noise)
    ]
    asked = order()
    ledger = Ledger(asked, Record(generation=2, posted_at=1.0), carriers_of(asked, instances))
    for launch, states in zip(launches, histories, strict=True):
        if states.count(OPEN) > 1:
            with pytest.raises(AmbiguousStartError):
                ledger.decide(launch)
        elif OPEN in states or GOOD in states:
            decision = ledger.decide(launch)
            assert isinstance(decision, GoOn)
            assert decision.instance.business_key is not None
            assert TASK.read_batch(decision.instance.business_key) is not None
            assert decision.instance.state == (OPEN if OPEN in states else GOOD)
        else:
            decision = ledger.decide(launch)
            assert decision == Start(launch, key_of(launch, again=len(states) + 1))
    ledger.check_all_seen()
    assert ledger.superseded() == []
