"""Triggerers start, stop and freeze: waits continue, and their instances are not touched."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.deployment.batch_run import LAUNCHES, run_batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local_stack import Whom
    from tests.deployment.conftest import Airflow, Wait

pytestmark = pytest.mark.deployment

# The first process of a triggerer talks to the database; the other one runs the triggers.
ENDINGS: list[tuple[signal.Signals, Whom]] = [
    (signal.SIGTERM, "all"),
    (signal.SIGTERM, "first"),
    (signal.SIGKILL, "all"),
    (signal.SIGKILL, "first"),
]


def test_waits_survive_one_triggerer_after_the_other(airflow: Airflow) -> None:
    wait, batch = airflow.run("wait_for_person"), run_batch(airflow, "batch_deferred")
    waits = (wait, batch)
    holders = [each.until_deferred() for each in waits]
    assert airflow.working_tasks() == []
    for number, whom in ENDINGS:
        airflow.until_polled(wait)
        airflow.triggerer.signal(number, whom)
        airflow.expect_end(airflow.triggerer)
        airflow.start_triggerer()
        next_holders = [
            each.until_deferred(by_other_than=before) for each, before in zip(waits, holders, strict=True)
        ]
        for each, before in zip(waits, holders, strict=True):
            assert each.logged(before, "killed") is None, (number, whom)
        assert airflow.actions() == [], (number, whom)
        wait.assert_waits()
        holders = next_holders
    wait.assert_approval_succeeds()
    batch.assert_succeeds()
    assert airflow.actions() == []
    assert len(batch.instances) == LAUNCHES


def freeze_until_taken_over(airflow: Airflow, waits: Sequence[Wait], whom: Whom) -> tuple[int, int]:
    """Return the ids of the frozen triggerer and of the one that has taken over the triggers."""
    (first,) = {wait.until_deferred() for wait in waits}
    for wait in waits:
        wait.airflow.until_polled(wait)
    airflow.freeze(airflow.triggerer, whom)
    airflow.start_triggerer()
    (second,) = {wait.until_deferred(by_other_than=first) for wait in waits}
    assert not any(wait.logged(first, "completed") for wait in waits)
    return first, second


def assert_on_kill_was_called(wait: Wait, triggerer: int) -> None:
    """Check that Airflow has called the trigger's ``on_kill``.

    It sends a cancellation again every second. If its log takes longer than that, the second one skips the call. So nothing is
    concluded on a machine that has far more to do than it can.
    """
    assert wait.logged(triggerer, "killed"), wait.log_of(triggerer).read_text()


def assert_left_alone(wait: Wait, triggerers: tuple[int, int]) -> None:
    """Check that a triggerer that has lost a trigger, and treats that like a user action, has not touched its instance."""
    assert_on_kill_was_called(wait, triggerers[0])
    wait.assert_waits()
    # On a busy machine Airflow may have given it back meanwhile.
    assert wait.task["trigger"]["triggerer_id"] in triggerers


def test_triggerer_whose_first_process_was_frozen_terminates_nothing(airflow: Airflow) -> None:
    frozen = airflow.triggerer
    wait = airflow.run("wait_for_person")
    triggerers = freeze_until_taken_over(airflow, [wait], "first")
    frozen.signal(signal.SIGCONT)
    wait.until_logged(triggerers[0], "completed")
    airflow.assert_no_action()
    assert_left_alone(wait, triggerers)
    wait.assert_approval_succeeds()
    assert airflow.actions() == []


@pytest.mark.parametrize("polls", [True, False], ids=["polls before it is cancelled", "is cancelled at once"])
def test_frozen_triggerer_that_returns_terminates_nothing(airflow: Airflow, polls: bool) -> None:
    """One of its waits has ended meanwhile. Two others, on another Astro Zero, continue."""
    frozen, others = airflow.triggerer, airflow.with_emulator()
    over, wait = airflow.run("wait_for_status"), others.run("wait_for_person")
    batch = run_batch(others, "batch_deferred")
    waits = (over, wait, batch)
    triggerers = first, second = freeze_until_taken_over(airflow, waits, "all")
    instance_id = over.instance["id"]
    airflow.control.move(instance_id, bp_status="Checked")
    over.until_state("success")
    assert over.logged(second, "fired")
    if polls:
        # Its poll may be the only one, and comes as soon as it thaws.
        before = airflow.newest_request()
        frozen.signal(signal.SIGCONT, "others")
        airflow.until_polled(over, since=before)
    else:
        # Only the length of its absence distinguishes this from a user who marks the task as successful.
        airflow.control.fault("query", "delay", times=1000, seconds=5)
    frozen.signal(signal.SIGCONT)
    for each in waits:
        each.until_logged(first, "completed")
    airflow.control.clear_faults()
    assert bool(over.logged(first, "fired")) == polls
    if polls:
        assert not over.logged(first, "killed")
    else:
        assert_on_kill_was_called(over, first)
    airflow.assert_no_action()
    assert others.actions() == []
    assert_left_alone(wait, triggerers)
    assert not airflow.control.instance(instance_id)["closed"]
    assert over.returned["id"] == instance_id
    airflow.control.act(instance_id, "approve")
    wait.assert_approval_succeeds()
    batch.assert_succeeds()
    assert airflow.actions() == others.actions() == []
