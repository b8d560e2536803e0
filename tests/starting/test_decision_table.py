"""One table of decisions for one start and for a batch: each row is decided alike for both."""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple

import msgspec
import pytest

from airflow_provider_astrobpm.batches.batch_decision import BatchDecider
from airflow_provider_astrobpm.batches.batch_input import Launch
from airflow_provider_astrobpm.batches.batch_record import BatchRecord, BatchRequest
from airflow_provider_astrobpm.client import operations, states
from airflow_provider_astrobpm.client.errors import AmbiguousStartError
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.key_search import KeyMatches
from airflow_provider_astrobpm.starting import decision, try_request
from airflow_provider_astrobpm.starting.business_keys import BatchKey, TaskIdentity
from airflow_provider_astrobpm.starting.decision import StartRecord, StartRequest
from airflow_provider_astrobpm.starting.decision_table import AdoptInstance, RefuseStart
from airflow_provider_astrobpm.starting.try_record import TryRecord
from airflow_provider_astrobpm.starting.try_request import LookupMethod, TryRequest

TASK = TaskIdentity("dag", "run", "task")
NAME = "Approval"
LAUNCH = Launch(1, NAME)
AT = 1767916800.0  # 2026-01-09 00:00:00 UTC
LATELY, LONG_AGO, ODD = "2026-01-09 00:00:05", "2026-01-01 00:00:00", "1970-01-01 08:00:00"
Subject = Literal["one", "batch"]
SUBJECTS: tuple[Subject, ...] = ("one", "batch")
Record = dict[str, Any] | None


def fields_of(fields: dict[str, Any] | None) -> dict[str, Any]:
    """Return the fields of a request; by default of the second try of the third generation."""
    return {
        "identity": TASK,
        "generation": 3,
        "try_number": 4,
        "accepts": lambda one: one.state == states.COMPLETED,
        **(fields or {}),
    }


def request_of(subject: Subject, fields: dict[str, Any] | None) -> TryRequest[Any]:
    if subject == "batch":
        return BatchRequest(**fields_of(fields))
    return StartRequest(
        start=lambda key: operations.start(NAME, business_key=key), bpm_name=NAME, **fields_of(fields)
    )


def record_of(subject: Subject, record: Record) -> TryRecord | None:
    kind: Any = BatchRecord if subject == "batch" else StartRecord
    return None if record is None else kind(**record)


def key_of(subject: Subject, generation: int, again: int = 1) -> str:
    if subject == "batch":
        return TASK.batch_key(BatchKey(generation, 1, LAUNCH.digest, again))
    return TASK.key(generation, again)


NOTHING = {"generation": 3}
SENT = {"generation": 3, "posted_at": AT}
BEGUN = {"generation": 3, "intent_of": 3}
BEGUN_LATE = {**BEGUN, "older_unknown": True}
OLD_NOTHING = {"generation": 1}
OLD_SENT = {"generation": 1, "posted_at": AT}
FIRST = {"try_number": 1, "generation": 1}
CLEARED = {"try_number": 3}
UNSURE = {"generation_is_certain": False}


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize(
    ("record", "fields", "way", "delay"),
    [
        (None, FIRST, LookupMethod.NONE, 0),
        (None, {}, LookupMethod.KEY, 60),
        (None, CLEARED, LookupMethod.KEY, 60),
        (None, {**CLEARED, **UNSURE}, LookupMethod.KEY, 60),
        (BEGUN, {}, LookupMethod.NONE, 0),
        (BEGUN_LATE, {}, LookupMethod.KEY, 60),
        (BEGUN, {"try_number": 5, "generation": 5}, LookupMethod.NONE, 0),
        (BEGUN, UNSURE, LookupMethod.NONE, 0),
        (NOTHING, {}, LookupMethod.NONE, 0),
        (SENT, {}, LookupMethod.KEY, 60),
        ({"generation": 1, "posted_at": AT}, FIRST, LookupMethod.KEY, 60),
        ({"generation": 3, "told": True}, {}, LookupMethod.KEY, 0),
        ({"generation": 1, "told": True}, {}, LookupMethod.NONE, 0),
        ({"generation": 1, "told": True}, CLEARED, LookupMethod.NONE, 0),
        (OLD_NOTHING, CLEARED, LookupMethod.NONE, 0),
        (OLD_SENT, CLEARED, LookupMethod.KEY, 60),
    ],
    ids=[
        "the very first try",
        "no record",
        "no record after a clear",
        "no record, and an uncertain generation",
        "an earlier try has sent none",
        "and older generations left no record",
        "an earlier generation has sent none",
        "none was sent, whatever the generation",
        "nothing was recorded",
        "an earlier try has begun to send",
        "the same try, in another process",
        "a person was asked, and has not cleared",
        "a person was asked in an older generation",
        "a person was asked, and has cleared",
        "an older generation has sent none",
        "an older generation has begun to send",
    ],
)
def test_searches_only_for_what_may_exist(
    record: Record, fields: dict[str, Any], way: LookupMethod, delay: float, subject: Subject
) -> None:
    request, known = request_of(subject, fields), record_of(subject, record)
    assert try_request.choose_lookup(request, known) is way
    assert try_request.lookup_delay(request, known, now=AT + 10) == delay


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        (
            StartRecord,
            (
                '{"generation":3,"max_tries":2,"intent_of":3,"since":1.0,"launch":2,"posted_at":2.0,"instance_id":"7",'
                '"strangers":["5"],"deadline":9.0,"left_open":true}'
            ),
        ),
        (
            BatchRecord,
            (
                '{"generation":3,"max_tries":2,"intent_of":3,"since":1.0,"begun_at":2.0,"answered_at":3.0,"unproven":true,'
                '"own_keys":"abcd","own":"efgh","strangers":["5"],"met":"3","deadline":9.0,"unfinished":true,"goes_on_from":1}'
            ),
        ),
    ],
)
def test_reads_and_writes_the_records_of_older_versions(kind: type[TryRecord], stored: str) -> None:
    record = msgspec.json.decode(stored, type=kind)
    assert (record.posted_at, record.strangers, record.deadline) == (2.0, ("5",), 9.0)
    assert json.loads(msgspec.json.encode(record)) == json.loads(stored)


class Row(NamedTuple):
    """What a try knows and finds, and what it does.

    :param found: the instances, in words: generation, number of the start, state, start time and name.
    :param does: the id of the instance to adopt, the number of the start, or words of the reason for which it refuses.
    :param terminates: the ids of the instances to terminate.
    """

    found: list[tuple[Any, ...]]
    does: str | int
    terminates: tuple[str, ...] = ()
    record: Record = SENT
    fields: dict[str, Any] | None = None
    hides: bool = False
    """Whether the lists show no business keys of other instances."""


OPEN, GOOD, BAD = "Running", "Completed OK", "Broken"
TOLD = {**OLD_SENT, "told": True}
ROWS: dict[str, Row] = {
    "nothing": Row([], 1),
    "an open instance": Row([(3, 1, OPEN)], "0"),
    "a succeeded instance": Row([(3, 1, GOOD)], "0"),
    "a failed instance": Row([(3, 1, BAD)], 2),
    "two failed instances": Row([(3, 1, BAD), (3, 2, BAD)], 3),
    "a failed instance, then an open one": Row([(3, 1, BAD), (3, 2, OPEN)], "1"),
    "a failed instance, then a succeeded one": Row([(3, 1, BAD), (3, 2, GOOD)], "1"),
    "an open instance beside a succeeded one": Row([(3, 1, GOOD), (3, 2, OPEN)], "1"),
    "two open instances": Row([(3, 1, OPEN), (3, 2, OPEN)], "several instances may be"),
    "an instance of another BPM": Row(
        [(3, 1, OPEN, LATELY, "Called")], "which is not an instance of|but is not an instance of"
    ),
    "an instance, and the BPM that it calls": Row(
        [(3, 1, OPEN), (3, 1, OPEN, LATELY, "Called")], "0", record=SENT
    ),
    "an open instance of an older generation": Row([(1, 1, OPEN)], 1, ("0",), OLD_SENT, CLEARED),
    "a succeeded instance of an older generation": Row([(1, 1, GOOD)], 1, (), OLD_SENT, CLEARED),
    "an older one, where kills do not terminate": Row(
        [(1, 1, OPEN)], "0", (), OLD_SENT, {**CLEARED, "keeps_open": True}
    ),
    "an older one that has ended, where kills do not terminate": Row(
        [(1, 1, GOOD)], 1, (), OLD_SENT, {**CLEARED, "keeps_open": True}
    ),
    "two older ones, where kills do not terminate": Row(
        [(1, 1, OPEN), (1, 2, OPEN)],
        "several instances may be",
        (),
        OLD_SENT,
        {**CLEARED, "keeps_open": True},
    ),
    "an open instance of an uncertain generation": Row([(1, 1, OPEN)], "0", (), SENT, UNSURE),
    "a succeeded instance of an uncertain generation": Row(
        [(1, 1, GOOD)], "'retries' was changed", (), SENT, UNSURE
    ),
    "a succeeded instance, if the generation is uncertain": Row(
        [(3, 1, GOOD)], "'retries' was changed", (), SENT, UNSURE
    ),
    "an instance of a deleted run": Row([(3, 1, OPEN, LONG_AGO)], 1),
    "a generation that is yet to come": Row([(9, 1, OPEN)], 1),
    "an instance without a credible start time": Row([(3, 1, OPEN, ODD)], "does not show whether this run"),
    "a failed instance without a credible start time": Row([(3, 1, BAD, ODD)], 2),
    "an open instance beside a succeeded one without a credible start time": Row(
        [(3, 1, GOOD, ODD), (3, 2, OPEN)], "does not show whether this run"
    ),
    "an older open instance without a credible start time": Row(
        [(1, 1, OPEN, ODD)], "does not show whether this run", (), OLD_SENT, {**CLEARED, "since": AT}
    ),
    "such an instance, after a person was asked": Row(
        [(1, 1, OPEN, ODD)], 1, (), TOLD, {**CLEARED, "since": AT}
    ),
    "lists without keys": Row([], "the lists show no business keys here", hides=True),
    "lists without keys, after a person was asked": Row([], 1, (), TOLD, CLEARED, hides=True),
    "lists without keys, after a person was asked and has not cleared": Row(
        [], "the lists show no business keys here", (), {**SENT, "told": True}, hides=True
    ),
}


def decide(subject: Subject, row: Row) -> tuple[str | int, tuple[str, ...]]:
    """Decide a row. Return what is done and terminated, in the words of the table."""
    request: Any = request_of(subject, row.fields)
    record: Any = record_of(subject, row.record)
    matches: KeyMatches = request.new_matches(None, lambda: AT + 60)
    instances = [
        BpmInstance(
            id=str(number),
            name=name,
            state=state,
            is_closed=states.is_terminal(state),
            business_key=key_of(subject, generation, again),
            start_time=stamp,
        )
        for number, (generation, again, state, stamp, name) in enumerate(
            (*each, LATELY, NAME)[:5] if len(each) == 3 else (*each, NAME)[:5] for each in row.found
        )
    ]
    other = BpmInstance(
        id="x", name=NAME, state=OPEN, business_key=None if row.hides else "other", start_time=LATELY
    )
    matches.add_list([*instances, other])
    if subject == "batch":
        try:
            decider = BatchDecider(request, record, matches)
            made = decider.decide(LAUNCH)
        except AmbiguousStartError as error:
            return str(error), ()
        done = made.instance.id if isinstance(made, AdoptInstance) else made.key
        terminated = decider.superseded()
    else:
        found = decision.classify(request, record, matches)
        decided = found if isinstance(found, RefuseStart) else decision.decide(request, record, found)
        if isinstance(decided, RefuseStart):
            return str(decided.error), ()
        adopts = isinstance(decided, AdoptInstance)
        done = decided.instance.id if isinstance(decided, AdoptInstance) else decided.key
        terminated = [] if adopts else list(decided.terminate)  # type: ignore[union-attr]
    starts = {key_of(subject, request.generation, again): again for again in range(1, 5)}
    return starts.get(done, done), tuple(one.id for one in terminated)


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("name", ROWS)
def test_decides_one_start_and_a_batch_by_the_same_table(name: str, subject: Subject) -> None:
    row = ROWS[name]
    done, terminated = decide(subject, row)
    if isinstance(row.does, str) and not row.does.isdigit():
        assert any(words in str(done) for words in row.does.split("|"))
    else:
        assert done == row.does
    assert terminated == row.terminates
