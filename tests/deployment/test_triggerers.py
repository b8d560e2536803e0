"""Triggerers start, stop and freeze: waits continue, and their instances are not touched."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from local_stack import Whom

if TYPE_CHECKING:
    from tests.deployment.conftest import Airflow, Wait

pytestmark = pytest.mark.deployment


# The first process of a triggerer talks to the database; the other one runs the triggers.
@pytest.mark.parametrize("whom", ["all", "first"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_wait_survives_its_triggerer(airflow: Airflow, number: signal.Signals, whom: Whom) -> None:
    wait = airflow.run("wait_for_person")
    first = wait.until_deferred()
    airflow.until_polled(wait)
    airflow.triggerer.signal(number, whom)
    airflow.expect_end(airflow.triggerer)
    airflow.start_triggerer()
    wait.until_deferred(by_other_than=first)
    assert wait.logged(first, "killed") is None
    assert airflow.actions() == []
    wait.assert_waits()
    wait.assert_approval_succeeds()
    assert airflow.actions() == []


def freeze_until_taken_over(airflow: Airflow, wait: Wait, whom: Whom) -> tuple[int, int]:
    """Return the ids of the frozen triggerer and of the one that has taken over the trigger."""
    first = wait.until_deferred()
    airflow.until_polled(wait)
    airflow.freeze(airflow.triggerer, whom)
    airflow.start_triggerer()
    second = wait.until_deferred(by_other_than=first)
    assert wait.logged(first, "completed") is None
    return first, second


@pytest.mark.parametrize("whom", ["all", "first"])
def test_frozen_triggerer_that_returns_terminates_nothing(airflow: Airflow, whom: Whom) -> None:
    frozen = airflow.triggerer
    wait = airflow.run("wait_for_person")
    first, second = freeze_until_taken_over(airflow, wait, whom)
    frozen.signal(signal.SIGCONT)
    # It learns that the trigger is no longer its own, and treats that like a user action.
    wait.until_logged(first, "completed")
    assert wait.logged(first, "killed")
    airflow.assert_no_action()
    wait.assert_waits()
    # On a busy machine Airflow may have given it back meanwhile.
    assert wait.task["trigger"]["triggerer_id"] in {first, second}
    wait.assert_approval_succeeds()
    assert airflow.actions() == []


@pytest.mark.parametrize("polls", [True, False], ids=["polls before it is cancelled", "is cancelled at once"])
def test_frozen_triggerer_that_returns_after_the_wait_terminates_nothing(
    airflow: Airflow, polls: bool
) -> None:
    frozen = airflow.triggerer
    wait = airflow.run("wait_for_status")
    first, second = freeze_until_taken_over(airflow, wait, "all")
    instance_id = wait.instance["id"]
    airflow.control.move(instance_id, bp_status="Checked")
    wait.until_state("success")
    assert wait.logged(second, "fired")
    if polls:
        # Its poll may be the only one, and comes as soon as it thaws.
        before = airflow.newest_request()
        frozen.signal(signal.SIGCONT, "others")
        airflow.until_polled(wait, since=before)
    else:
        # Only the length of its absence distinguishes this from a user who marks the task as successful.
        airflow.control.fault("query", "delay", times=1000, seconds=5)
    frozen.signal(signal.SIGCONT)
    wait.until_logged(first, "completed")
    airflow.control.clear_faults()
    assert bool(wait.logged(first, "fired")) == polls
    assert bool(wait.logged(first, "killed")) == (not polls)
    airflow.assert_no_action()
    assert not airflow.control.instance(instance_id)["closed"]
    assert wait.returned["id"] == instance_id
    airflow.control.act(instance_id, "approve")
