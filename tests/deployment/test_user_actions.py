"""User actions in Airflow on a deferred task: they reach its instance and no other."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.deployment.conftest import Airflow, Wait

pytestmark = pytest.mark.deployment

TERMINATED_WITHIN = 10.0
# The first time that a trigger asks for the state of its task, Airflow loads an API into the triggerer.
FIRST_TERMINATED_WITHIN = 60.0

ACTIONS: dict[str, Callable[[Wait], None]] = {
    "mark failed": lambda wait: wait.mark("failed"),
    "mark success": lambda wait: wait.mark("success"),
    "clear": lambda wait: wait.clear(),
    "fail the run": lambda wait: wait.fail_run(),
}


def seconds_to_termination(wait: Wait, act: Callable[[Wait], None]) -> float:
    """Act on a run, and return the seconds until its only instance was terminated."""
    acted = time.time()
    act(wait)
    control = wait.airflow.control
    instance_id = wait.instances[0]["id"]
    wait.until("the instance is closed", lambda: control.instance(instance_id)["closed"] or None)
    instance = control.instance(instance_id)
    assert instance["state"] == "Terminated"
    seconds: float = instance["ended"] - acted
    return seconds


def test_first_termination_of_a_triggerer_may_take_longer(
    airflow: Airflow, bystanders: list[Wait], measured: Callable[[str, float], None]
) -> None:
    airflow.triggerer.stop()
    airflow.settle()
    wait = airflow.run("wait_for_person")
    wait.until_deferred()
    seconds = seconds_to_termination(wait, ACTIONS["mark failed"])
    measured("from 'mark failed' to the end of the instance, the first time", seconds)
    assert seconds < FIRST_TERMINATED_WITHIN
    assert airflow.actions() == [("terminate", wait.instance["id"])]
    for bystander in bystanders:
        bystander.assert_waits()


@pytest.mark.together
@pytest.mark.parametrize("action", ACTIONS)
def test_user_action_terminates_the_instance(
    airflow: Airflow, bystanders: list[Wait], measured: Callable[[str, float], None], action: str
) -> None:
    wait = airflow.run("wait_for_person")
    triggerer = wait.until_deferred()
    wait.assert_waits()
    instance_id = wait.instance["id"]
    seconds = seconds_to_termination(wait, ACTIONS[action])
    measured(f"from '{action}' to the end of the instance", seconds)
    assert seconds < TERMINATED_WITHIN
    wait.until_logged(triggerer, "completed")
    assert airflow.actions() == [("terminate", instance_id)]
    for bystander in bystanders:
        bystander.assert_waits()
    if action != "clear":
        wait.until_state("success" if action == "mark success" else "failed")
        return
    # The task runs again, with a new instance.
    wait.until_deferred(tries=2)
    first, second = wait.instances
    assert (first["id"], first["closed"], second["closed"]) == (instance_id, True, False)
    wait.approve()
    wait.until_state("success")
    assert wait.returned["id"] == second["id"]
    assert airflow.actions() == [("terminate", instance_id)]


@pytest.mark.together
def test_user_action_leaves_the_instance_without_terminate_on_kill(
    airflow: Airflow, bystanders: list[Wait]
) -> None:
    wait = airflow.run("wait_and_leave")
    triggerer = wait.until_deferred()
    wait.mark("failed")
    wait.until_state("failed")
    wait.until_logged(triggerer, "completed")
    assert wait.logged(triggerer, "killed")
    assert wait.task["trigger"] is None
    airflow.assert_no_action()
    assert wait.instance["outcomes"] == ["approve", "reject"]
    for bystander in bystanders:
        bystander.assert_waits()
    wait.approve()


@pytest.mark.together
@pytest.mark.parametrize("action", ["mark failed", "mark success"])
def test_user_action_terminates_the_instance_of_a_task_on_a_worker(
    airflow: Airflow, measured: Callable[[str, float], None], action: str
) -> None:
    wait = airflow.run("wait_on_worker")
    wait.until(
        "its instance waits for a person", lambda: (wait.instances and wait.instance["outcomes"]) or None
    )
    wait.until_state("running")
    seconds = seconds_to_termination(wait, ACTIONS[action])
    measured(f"from '{action}' to the end of the instance, on a worker", seconds)
    assert airflow.actions() == [("terminate", wait.instance["id"])]
    wait.until_state("success" if action == "mark success" else "failed")
