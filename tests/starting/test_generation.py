"""Tests of the generation of a try: the table, and random tasks whose retries change."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.starting.business_keys import TaskIdentity
from airflow_provider_astrobpm.starting.generation import Generation, generation_of
from airflow_provider_astrobpm.starting.try_record import TryRecord
from airflow_provider_astrobpm.starting.try_request import TaskTry


def recorded_intent(record: TryRecord | None, kind: type[TryRecord], **fields: Any) -> TryRecord:
    return TaskTry(identity=TaskIdentity("dag", "run", "task"), **fields).intent(record, kind)


@pytest.mark.parametrize(
    ("try_number", "max_tries", "retries", "recorded", "generation"),
    [
        (1, 3, 3, None, Generation(1)),
        (3, 3, 3, None, Generation(1)),
        (2, 4, 3, None, Generation(2)),
        (1, 3, 5, None, Generation(1)),
        (2, 3, 1, None, Generation(2, is_certain=False)),
        (2, 3, 5, None, Generation(1, is_certain=False)),
        (2, 3, 1, TryRecord(generation=1, max_tries=3), Generation(1)),
        (2, 3, 5, TryRecord(generation=1, max_tries=3), Generation(1)),
        (2, 3, 2, TryRecord(generation=1, max_tries=3), Generation(1, is_certain=False)),
        (3, 5, 3, TryRecord(generation=1, max_tries=3), Generation(3)),
        (4, 5, 3, TryRecord(generation=3, max_tries=5), Generation(3)),
        (3, 5, 1, TryRecord(generation=1, max_tries=3), Generation(3, is_certain=False)),
        (3, 5, 6, TryRecord(generation=1, max_tries=3), Generation(3, is_certain=False)),
        (2, 3, 3, TryRecord(generation=1), Generation(1)),
        (2, 4, 3, TryRecord(generation=1), Generation(2)),
        (2, 3, 1, TryRecord(generation=1), Generation(1, is_certain=False)),
        (2, 3, 5, TryRecord(generation=1), Generation(1, is_certain=False)),
    ],
    ids=[
        "first try",
        "retry",
        "cleared",
        "3 to 5, first try",
        "3 to 1, nothing recorded",
        "3 to 5, nothing recorded",
        "3 to 1",
        "3 to 5",
        "3 to 2, with a clear or without",
        "cleared, and recorded before",
        "retried after a clear",
        "cleared, 3 to 1",
        "cleared, 3 to 6",
        "an older version's record",
        "an older version's record, cleared",
        "an older version's record, 3 to 1",
        "an older version's record, 3 to 5",
    ],
)
def test_the_table(
    try_number: int, max_tries: int, retries: int, recorded: TryRecord | None, generation: Generation
) -> None:
    found = generation_of(recorded, try_number=try_number, max_tries=max_tries, retries=retries)
    assert found == generation


@given(
    at_first=st.integers(0, 6),
    tries=st.lists(
        st.tuples(st.sampled_from(["retry", "clear"]), st.integers(0, 6)), min_size=1, max_size=12
    ),
)
def test_a_certain_generation_is_correct(at_first: int, tries: list[tuple[str, int]]) -> None:
    """With a store, with Airflow's numbers, and with ``retries`` that change with each new version of the DAG."""
    record: TryRecord | None = None
    max_tries, truth = at_first, 1
    before = at_first
    for number, (why, retries) in enumerate([("first", at_first), *tries], 1):
        if why == "clear":
            max_tries, truth = number - 1 + before, number
        before = retries
        is_hidden = why == "clear" and record is not None and record.max_tries == max_tries
        found = generation_of(record, try_number=number, max_tries=max_tries, retries=retries)
        assert 1 <= found.number <= number
        computed = max_tries - retries + 1
        if is_hidden:  # the clear looks like a retry, so nothing of the previous generation is terminated
            assert found.number < number
            assert not found.is_certain or computed != truth
            return
        if why != "clear":
            # If the numbers also fit a clear, the generation is uncertain, but still the right one.
            may_be_clear = record is not None and record.generation < max_tries - retries + 1 <= number
            assert found.is_certain is not may_be_clear
            assert record is None or found.number == record.generation
        else:
            assert found.number > (record.generation if record else 0)
            if found.is_certain and retries == max_tries - truth + 1:
                assert found.number == truth
        record = TryRecord(generation=found.number, max_tries=max_tries)


def test_a_generation_stays_uncertain_until_a_start_or_an_adoption() -> None:
    numbers = {"try_number": 3, "max_tries": 3, "retries": 5}
    asked = TryRecord(generation=1, max_tries=3, is_unclear=True, told=True)
    assert generation_of(asked, **numbers) == Generation(1, is_certain=False)
    started = TryRecord(generation=1, max_tries=3)
    assert generation_of(started, **numbers) == Generation(1)


def test_a_rewritten_record_proves_nothing_about_its_own_generation() -> None:
    rewritten = recorded_intent(None, TryRecord, generation=1, max_tries=3, try_number=2)
    again = recorded_intent(rewritten, TryRecord, generation=1, max_tries=3, try_number=3)
    cleared = recorded_intent(again, TryRecord, generation=4, max_tries=6, try_number=4)
    assert [each.covers(1) for each in (rewritten, again, cleared)] == [False, False, False]
    assert cleared.covers(4)
    whole = recorded_intent(None, TryRecord, generation=1, max_tries=3, try_number=1)
    assert whole.covers(1)
    assert whole.covers(4), "a start of any generation would have been recorded"


def test_when_the_first_try_can_have_begun() -> None:
    def began_at(record: TryRecord | None, *, try_number: int, due: float | None) -> float | None:
        identity = TaskIdentity("dag", "run", "task")
        made = TaskTry.of(identity, record, try_number=try_number, max_tries=3, retries=3, now=100.0, due=due)
        return made.since

    known = TryRecord(generation=1, since=50.0)
    assert began_at(None, try_number=1, due=20.0) == 100.0
    assert began_at(known, try_number=2, due=20.0) == 50.0
    assert began_at(TryRecord(generation=1), try_number=2, due=20.0) == 20.0
    assert began_at(None, try_number=2, due=None) is None


@pytest.mark.parametrize("try_number", [1, 2])
def test_an_intent_records_that_a_try_has_begun(try_number: int) -> None:
    intent = recorded_intent(None, TryRecord, generation=try_number, max_tries=3, try_number=try_number)
    assert (intent.generation, intent.max_tries, intent.intent_of) == (try_number, 3, try_number)
    assert intent.older_unknown is (try_number > 1)
    later = recorded_intent(intent, TryRecord, generation=try_number + 1, max_tries=5, try_number=4)
    assert (later.generation, later.max_tries, later.intent_of) == (try_number, 3, try_number + 1)
