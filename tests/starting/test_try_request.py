"""What a try is, which record it writes, and what it concludes from the records of earlier tries."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_astrobpm.client import states
from airflow_provider_astrobpm.client.key_form import KeyForm
from airflow_provider_astrobpm.client.timestamps import Placement
from airflow_provider_astrobpm.starting.business_keys import TaskIdentity
from airflow_provider_astrobpm.starting.decision import StartRecord
from airflow_provider_astrobpm.starting.try_record import TryRecord
from airflow_provider_astrobpm.starting.try_request import TaskTry
from tests.starting.test_decision import AT, instance, matches_of, start_request

TASK = TaskIdentity("dag", "run", "task")
DAY = 86_400
LATELY, LONG_AGO, ODD = "2026-01-09 00:00:05", "2026-01-01 00:00:00", "1970-01-01 08:00:00"
BEFORE, SINCE, UNKNOWN = Placement


def test_a_try_is_made_from_airflows_numbers_and_the_record() -> None:
    record = TryRecord(generation=1, max_tries=3, since=50.0)
    numbers: dict[str, Any] = {"try_number": 3, "max_tries": 5, "now": 100.0, "due": 20.0}
    assert TaskTry.of(TASK, record, retries=3, **numbers) == TaskTry(
        identity=TASK, generation=3, try_number=3, since=50.0, max_tries=5
    )
    assert TaskTry.of(TASK, record, retries=6, was_rescheduled=True, **numbers) == TaskTry(
        identity=TASK,
        generation=3,
        try_number=3,
        since=50.0,
        max_tries=5,
        generation_is_certain=False,
        was_rescheduled=True,
    )


@pytest.mark.parametrize(
    ("generation", "try_number", "was_rescheduled", "is_first", "begins"),
    [
        (1, 1, False, True, True),
        (1, 1, True, False, False),
        (1, 2, False, False, False),
        (3, 3, False, False, True),
        (3, 3, True, False, False),
        (3, 4, False, False, False),
    ],
)
def test_a_rescheduled_try_is_no_first_one(
    generation: int, try_number: int, was_rescheduled: bool, is_first: bool, begins: bool
) -> None:
    """Airflow runs it again with the same number, and a process of it may have sent a start."""
    found = TaskTry(
        identity=TASK, generation=generation, try_number=try_number, was_rescheduled=was_rescheduled
    )
    assert (found.is_first, found.begins_generation) == (is_first, begins)
    began = TaskTry.of(
        TASK, None, try_number=1, max_tries=0, retries=0, now=100.0, due=20.0, was_rescheduled=was_rescheduled
    )
    assert began.since == (20.0 if was_rescheduled else 100.0)


@pytest.mark.parametrize(
    ("record", "fields", "intent"),
    [
        (
            None,
            {"try_number": 1, "generation": 1},
            TryRecord(generation=1, max_tries=5, intent_of=1, since=7.0),
        ),
        (None, {}, TryRecord(generation=3, max_tries=5, older_unknown=True, since=7.0)),
        (
            None,
            {"generation_is_certain": False},
            TryRecord(generation=3, max_tries=5, older_unknown=True, since=7.0, is_unclear=True),
        ),
        (
            TryRecord(generation=3, max_tries=4, since=1.0, posted_at=2.0),
            {},
            TryRecord(generation=3, max_tries=5, since=1.0, posted_at=2.0, intent_of=3),
        ),
        (
            TryRecord(generation=3, max_tries=4, older_unknown=True),
            {},
            TryRecord(generation=3, max_tries=5, older_unknown=True),
        ),
        (
            TryRecord(generation=3, max_tries=4, older_unknown=True, intent_of=3),
            {},
            TryRecord(generation=3, max_tries=5, older_unknown=True, intent_of=3),
        ),
        (
            TryRecord(generation=1, max_tries=4, told=True),
            {},
            TryRecord(generation=1, max_tries=4, told=True, intent_of=3),
        ),
    ],
    ids=[
        "the very first try",
        "no record of earlier tries",
        "and an uncertain generation",
        "a record of this generation",
        "that was lost and rewritten",
        "after this generation had begun",
        "a record of an older generation",
    ],
)
def test_what_a_try_writes_before_it_does_anything(
    record: TryRecord | None, fields: dict[str, Any], intent: TryRecord
) -> None:
    this = TaskTry(
        **{"identity": TASK, "generation": 3, "try_number": 4, "max_tries": 5, "since": 7.0, **fields}
    )
    assert this.intent(record, TryRecord) == intent


@pytest.mark.parametrize(
    ("record", "fields", "may_have"),
    [
        (None, {"try_number": 3}, False),
        (None, {"try_number": 3, "was_rescheduled": True}, True),
        (None, {"try_number": 3, "generation_is_certain": False}, True),
        (None, {}, True),
        (StartRecord(generation=3), {}, False),
        (StartRecord(generation=3, older_unknown=True), {}, True),
        (StartRecord(generation=3, older_unknown=True, intent_of=3), {}, False),
        (StartRecord(generation=3, posted_at=AT), {}, True),
        (StartRecord(generation=3, posted_at=AT), {"try_number": 3}, True),
        (StartRecord(generation=3, instance_id="own"), {"try_number": 3}, True),
        (StartRecord(generation=3, told=True), {"try_number": 3}, True),
        (StartRecord(generation=1, posted_at=AT), {"try_number": 3}, False),
        (StartRecord(generation=1, posted_at=AT), {}, False),
        (StartRecord(generation=1, posted_at=AT, older_unknown=True), {}, True),
    ],
)
def test_whether_this_generation_may_have_sent_a_start(
    record: StartRecord | None, fields: dict[str, Any], may_have: bool
) -> None:
    assert start_request(**fields).may_have_sent(record) is may_have


@pytest.mark.parametrize(
    ("record", "is_answered"),
    [
        (None, False),
        (StartRecord(generation=1), False),
        (StartRecord(generation=1, told=True), True),
        (StartRecord(generation=3, told=True), False),
    ],
)
def test_only_a_clear_answers_the_question_to_a_person(record: StartRecord | None, is_answered: bool) -> None:
    assert start_request().is_answered(record) is is_answered


def test_the_record_of_a_question_belongs_to_this_generation() -> None:
    older = StartRecord(generation=1, max_tries=3, posted_at=1.0, strangers=("5",), deadline=9.0)
    asked = start_request(max_tries=7, generation_is_certain=False)
    assert asked.record_person_asked(older, StartRecord) == StartRecord(
        generation=3, max_tries=7, posted_at=1.0, intent_of=3, is_unclear=True, told=True
    )
    own = StartRecord(generation=3, max_tries=3, posted_at=1.0, strangers=("5",), deadline=9.0)
    assert asked.record_person_asked(own, StartRecord) == StartRecord(
        generation=3, max_tries=7, posted_at=1.0, intent_of=3, strangers=("5",), deadline=9.0, told=True
    )


@pytest.mark.parametrize(
    ("left_open", "launch", "instance_id"), [(False, 1, None), (True, 0, "old")], ids=["ended", "left open"]
)
def test_a_question_keeps_only_an_instance_that_was_left_open(
    left_open: bool, launch: int, instance_id: str | None
) -> None:
    record = StartRecord(generation=1, launch=4, instance_id="old", left_open=left_open, posted_at=1.0)
    told = start_request().record_person_asked(record, StartRecord)
    assert (told.launch, told.instance_id, told.left_open) == (launch, instance_id, left_open)


@pytest.mark.parametrize(
    ("generation", "record", "start_time", "placed"),
    [
        (5, None, LATELY, BEFORE),  # a generation that is yet to come
        (4, None, LATELY, SINCE),
        (3, None, LATELY, SINCE),
        (3, None, LONG_AGO, BEFORE),
        (3, None, ODD, SINCE),  # nothing more precise is known
        (3, StartRecord(generation=3), ODD, SINCE),
        (3, StartRecord(generation=3, posted_at=AT), ODD, UNKNOWN),
        (3, StartRecord(generation=3, posted_at=AT, told=True), ODD, UNKNOWN),
        (1, StartRecord(generation=1, posted_at=AT), ODD, UNKNOWN),
        (1, StartRecord(generation=1, posted_at=AT, told=True), ODD, BEFORE),
        # The record's own start is later than the task's first try.
        (3, StartRecord(generation=3, posted_at=AT + 5 * DAY), LATELY, BEFORE),
        (1, StartRecord(generation=3, posted_at=AT + 5 * DAY), LATELY, SINCE),
        (3, StartRecord(generation=1, posted_at=AT + 5 * DAY), LATELY, SINCE),
    ],
)
def test_whether_this_run_may_have_started_an_instance(
    generation: int, record: StartRecord | None, start_time: str, placed: Placement
) -> None:
    asked = start_request(since=AT)
    found = matches_of(asked, instance("any", instance_id="recent"))
    one = instance(TASK.key(generation), start_time=start_time)
    assert asked.place(record, found, one, generation) is placed


def test_without_any_moment_every_instance_counts() -> None:
    asked = start_request()
    assert asked.place(None, matches_of(asked), instance(start_time=LONG_AGO), 3) is SINCE


@pytest.mark.parametrize(
    ("state", "is_relevant"),
    [(states.COMPLETED, True), ("Running", True), ("Broken", False), ("Terminated", False)],
)
def test_open_and_succeeded_instances_matter(state: str, is_relevant: bool) -> None:
    assert start_request().is_relevant(instance(state=state)) is is_relevant


@pytest.mark.parametrize(
    ("timeout", "recorded", "deadline"),
    [(None, None, None), (None, 5.0, 5.0), (60.0, None, 160.0), (60.0, 5.0, 5.0), (60.0, 0.0, 0.0)],
)
def test_a_recorded_deadline_counts(
    timeout: float | None, recorded: float | None, deadline: float | None
) -> None:
    assert start_request(timeout=timeout).deadline(100.0, recorded) == deadline


@pytest.mark.parametrize(
    ("example", "form"),
    [(None, None), (("Key", "KEY"), KeyForm("", "upper")), (("Key", "unlike"), None)],
)
def test_a_record_remembers_how_the_endpoint_changes_keys(
    example: tuple[str, str] | None, form: KeyForm | None
) -> None:
    assert TryRecord(generation=1, key_example=example).key_form == form


@pytest.mark.parametrize(
    ("record", "has_begun", "mentions_start", "settled_at"),
    [
        (TryRecord(generation=3), False, False, None),
        (TryRecord(generation=3, posted_at=0.0), True, True, None),
        (TryRecord(generation=1, posted_at=2.0), False, True, None),
        (TryRecord(generation=3, posted_at=2.0, instance_id="own"), True, True, 2.0),
    ],
)
def test_what_a_record_says_about_starts(
    record: TryRecord, has_begun: bool, mentions_start: bool, settled_at: float | None
) -> None:
    assert record.has_begun(3) is has_begun
    assert record.mentions_start is mentions_start
    assert record.settled_at == settled_at
