"""Which open instances are orphans: one test for each row of the table, and the keys by which their tasks are found."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.states import STATES, is_terminal
from airflow_provider_astrobpm.starting import orphans
from airflow_provider_astrobpm.starting.business_keys import BatchKey, Region, TaskIdentity
from airflow_provider_astrobpm.starting.orphans import Awaited, OrphanVerdict, StartingTask

NOW = 1_000_000.0
TASK = TaskIdentity("orders", "scheduled__2026-11-24T00:00:00+00:00", "approve")
LONG_AGO = NOW - orphans.SETTLE_SECONDS


def instance(**fields: Any) -> BpmInstance:
    shown = {"id": "i1", "name": "Approval", "state": "Running", "business_key": TASK.key(1)}
    return BpmInstance(**{**shown, **fields})


def task(**fields: Any) -> StartingTask:
    known = {
        "state": "failed", "run_has_ended": True, "changed_at": LONG_AGO, "recorded_ids": frozenset({"i1"})
    }  # fmt: skip
    return StartingTask(TASK, **{**known, **fields})


ROWS: list[tuple[str, OrphanVerdict, dict[str, Any]]] = [
    ("failed", OrphanVerdict.ORPHAN, {}),
    ("flag ended", OrphanVerdict.NOT_OPEN, {"instance": instance(is_closed=True)}),
    ("unknown state", OrphanVerdict.NOT_OPEN, {"instance": instance(state="Frozen")}),
    ("no task", OrphanVerdict.OTHER_KEY, {"tasks": ()}),
    ("two tasks", OrphanVerdict.OTHER_KEY, {"tasks": (task(), task())}),
    ("author's key", OrphanVerdict.OTHER_KEY, {"instance": instance(business_key="order-4711")}),
    ("no key", OrphanVerdict.OTHER_KEY, {"instance": instance(business_key=None)}),
    ("key cut off", OrphanVerdict.OTHER_KEY, {"instance": instance(business_key=TASK.key(1)[:-3])}),
    ("succeeded", OrphanVerdict.SUCCEEDED, {"tasks": (task(state="success"),)}),
    ("run goes on", OrphanVerdict.RUN_CONTINUES, {"tasks": (task(run_has_ended=False),)}),
    ("not recorded", OrphanVerdict.NOT_RECORDED, {"tasks": (task(recorded_ids=frozenset()),)}),
    ("other recorded", OrphanVerdict.NOT_RECORDED, {"tasks": (task(recorded_ids=frozenset({"i2"})),)}),
    ("just ended", OrphanVerdict.JUST_ENDED, {"tasks": (task(changed_at=LONG_AGO + 1),)}),
    ("clock ahead", OrphanVerdict.JUST_ENDED, {"tasks": (task(changed_at=NOW + 99),)}),
    ("unknown end", OrphanVerdict.JUST_ENDED, {"tasks": (task(changed_at=None),)}),
    ("awaited by id", OrphanVerdict.AWAITED, {"awaited": Awaited(ids=frozenset({"i1"}))}),
    ("awaited by key", OrphanVerdict.AWAITED, {"awaited": Awaited(keys=frozenset({TASK.key(1)}))}),
    ("key changed", OrphanVerdict.AWAITED, {"awaited": Awaited(keys=frozenset({TASK.key(1).upper()}))}),
    ("perhaps awaited", OrphanVerdict.PERHAPS_AWAITED, {"awaited": Awaited(is_complete=False)}),
    ("others awaited", OrphanVerdict.ORPHAN, {"awaited": Awaited(frozenset({"i2"}), frozenset({"order-1"}))}),
]  # fmt: skip


def judged(given: dict[str, Any]) -> OrphanVerdict:
    return orphans.judge_instance(
        given.get("instance", instance()), given.get("tasks", (task(),)), given.get("awaited", Awaited()), NOW
    )


@pytest.mark.parametrize(("verdict", "given"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_row_of_the_table(verdict: OrphanVerdict, given: dict[str, Any]) -> None:
    assert judged(given) is verdict


def test_every_verdict_has_a_row() -> None:
    assert {verdict for _, verdict, _ in ROWS} | {OrphanVerdict.TASK_CONTINUES} == set(OrphanVerdict)


@pytest.mark.parametrize("state", ["failed", "upstream_failed", "skipped", "removed"])
def test_a_task_that_ended_without_success_leaves_an_orphan(state: str) -> None:
    assert judged({"tasks": (task(state=state),)}) is OrphanVerdict.ORPHAN


@pytest.mark.parametrize(
    "state",
    [
        None, "scheduled", "queued", "running", "restarting", "up_for_retry", "up_for_reschedule", "deferred",
        "awaiting_input", "a state of a later Airflow",
    ],
)  # fmt: skip
def test_a_task_that_may_continue_leaves_no_orphan(state: str | None) -> None:
    assert judged({"tasks": (task(state=state),)}) is OrphanVerdict.TASK_CONTINUES


@pytest.mark.parametrize("state", STATES)
def test_only_an_open_instance_is_an_orphan(state: str) -> None:
    expected = OrphanVerdict.NOT_OPEN if is_terminal(state) else OrphanVerdict.ORPHAN
    assert judged({"instance": instance(state=state)}) is expected


IDENTITIES = [
    TASK,
    TaskIdentity("orders", "manual__1", "approve", 3),
    TaskIdentity("orders", "manual__1", "approve", -1, Region("7e57" * 8, 2)),
    TaskIdentity("a.b c", "run with blanks", "group.täsk"),
    TaskIdentity("d" * 60, "r" * 60, "t" * 60),
    TaskIdentity("orders-abcdefghijklmnop-1", "x-abcdefghijklmnop-2", "y"),
]


@pytest.mark.parametrize("identity", IDENTITIES)
def test_a_task_is_found_by_each_of_its_keys(identity: TaskIdentity) -> None:
    keys = [
        identity.key(1), identity.key(12, 3), identity.key(-2), identity.key(1).upper(),
        identity.batch_key(BatchKey(1, 815, "k3xq")), identity.batch_key(BatchKey(2, 1, "aaaa", 4)),
    ]  # fmt: skip
    for key in keys:
        beginning = orphans.key_beginning(key)
        assert beginning is not None
        assert orphans.beginnings_of([*IDENTITIES])[beginning] == identity
        assert orphans.may_be_of(beginning, identity.dag_id, identity.task_id)
        assert not orphans.may_be_of(beginning, "invoices", "approve")


@pytest.mark.parametrize(
    "key", [None, "", "order-4711", "002N000000Sy2NphoRbU", TASK.prefix, f"{TASK.key(1)}x", "a-b-1"]
)
def test_any_other_key_has_no_beginning(key: str | None) -> None:
    assert orphans.key_beginning(key) is None


def test_search_counts_what_it_leaves_alone() -> None:
    other = TaskIdentity("orders", "manual__2", "approve")
    shown = [
        instance(),
        instance(id="i2", business_key=TASK.key(2)),
        instance(id="i3", business_key=other.key(1)),
        instance(id="i4", business_key="order-4711"),
    ]
    found = orphans.find_orphans(shown, {TASK.prefix.lower(): [task()]}, Awaited(), NOW)
    assert [one.instance.id for one in found.orphans] == ["i1"]
    assert found.note == (
        "2 other open instances with such a key left alone: 1 not recorded as started by this Airflow, 1 started by no task "
        "that this Airflow knows."
    )
    assert orphans.find_orphans([instance()], {TASK.prefix.lower(): [task()]}, Awaited(), NOW).note is None
