"""A batch on a real Airflow: one trigger waits for all, a user action ends all, and the end of a triggerer ends nothing."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.deployment.conftest import Wait

if TYPE_CHECKING:
    from tests.deployment.conftest import Airflow

pytestmark = pytest.mark.deployment

LAUNCHES = 200
TERMINATED_WITHIN = 30.0


@dataclass(frozen=True)
class Batch(Wait):
    """One run whose task waits for a batch."""

    @property
    def instances(self) -> list[dict[str, Any]]:
        return [one for one in self.airflow.control.instances() if one["title"] == self.run_id]

    @property
    def states(self) -> Counter[str]:
        return Counter(one["state"] for one in self.instances)

    def approve_all(self) -> None:
        for one in self.instances:
            if one["outcomes"]:
                self.airflow.control.act(one["id"], "approve")

    def until_terminated(self, *, at_least: int = LAUNCHES) -> float:
        """Wait until none of the started instances is open, and return how long that took."""
        began = time.time()
        control = self.airflow.control
        before = [one["id"] for one in self.instances]
        assert len(before) >= at_least
        self.until(
            "all instances are closed",
            lambda: all(control.instance(one)["closed"] for one in before) or None,
        )
        assert {control.instance(one)["state"] for one in before} == {"Terminated"}
        return time.time() - began

    def assert_succeeds(self) -> None:
        self.approve_all()
        self.until_state("success")
        result = self.returned
        assert (result["total"], result["succeeded"]) == (LAUNCHES, LAUNCHES)
        newest = {one["id"] for one in self.instances[-LAUNCHES:]}
        assert {row["instance_id"] for row in result["launches"]} == newest


@pytest.fixture
def run(airflow: Airflow) -> Callable[[str], Batch]:
    def begin(dag_id: str) -> Batch:
        wait = airflow.run(dag_id)
        return Batch(airflow, dag_id, wait.run_id)

    return begin


def test_one_trigger_waits_for_all_and_survives_its_triggerer(
    airflow: Airflow, run: Callable[[str], Batch]
) -> None:
    batch = run("batch_deferred")
    first = batch.until_deferred()
    airflow.until_polled(batch)
    assert airflow.working_tasks() == []
    airflow.triggerer.signal(signal.SIGKILL, "all")
    airflow.expect_end(airflow.triggerer)
    airflow.start_triggerer()
    batch.until_deferred(by_other_than=first)
    assert airflow.actions() == []
    batch.assert_succeeds()
    assert airflow.actions() == []
    assert len(batch.instances) == LAUNCHES


def test_frozen_triggerer_that_returns_terminates_nothing(
    airflow: Airflow, run: Callable[[str], Batch]
) -> None:
    frozen = airflow.triggerer
    batch = run("batch_deferred")
    first = batch.until_deferred()
    airflow.until_polled(batch)
    airflow.freeze(frozen, "all")
    airflow.start_triggerer()
    batch.until_deferred(by_other_than=first)
    frozen.signal(signal.SIGCONT)
    batch.until_logged(first, "completed")
    airflow.assert_no_action()
    batch.assert_succeeds()


@pytest.mark.parametrize("act", ["mark failed", "clear", "fail the run"])
def test_batch_is_terminated_when_a_user_ends_the_deferred_task(
    act: str, airflow: Airflow, run: Callable[[str], Batch], measured: Callable[[str, float], None]
) -> None:
    batch = run("batch_deferred")
    batch.until_deferred()
    airflow.until_polled(batch)
    began = time.time()
    {"mark failed": lambda: batch.mark("failed"), "clear": batch.clear, "fail the run": batch.fail_run}[act]()
    seconds = time.time() - began + batch.until_terminated()
    measured(f"from '{act}' to the end of a batch of {LAUNCHES}", seconds)
    assert seconds < TERMINATED_WITHIN
    if act != "clear":
        batch.until_state("failed")
        assert len(batch.instances) == LAUNCHES
        return
    batch.until_deferred(tries=2)
    assert batch.states == {"Terminated": LAUNCHES, "Waiting for user interaction": LAUNCHES}
    batch.assert_succeeds()


@pytest.mark.parametrize("started", [LAUNCHES // 4, LAUNCHES])
def test_started_instances_are_terminated_when_a_user_ends_the_task_on_a_worker(
    started: int,
    airflow: Airflow,
    run: Callable[[str], Batch],
    measured: Callable[[str, float], None],
) -> None:
    batch = run("batch_on_worker")
    batch.until("so many are started", lambda: len(batch.instances) >= started or None)
    if (
        started == LAUNCHES
    ):  # while a task pushes XComs, a kill may find Airflow busy, and then terminates nothing
        batch.until("it waits for all of them", lambda: "may wait forever" in _log(batch) or None)
    began = time.time()
    batch.mark("failed")
    batch.until("it starts no more", lambda: "was ended by a user" in _log(batch) or None)
    seconds = time.time() - began + batch.until_terminated(at_least=started)
    number = len(batch.instances)
    measured(f"from 'mark failed' to the end of the {number} that a worker has started", seconds)
    assert (number < LAUNCHES) is (started < LAUNCHES)
    assert seconds < TERMINATED_WITHIN
    if started < LAUNCHES:
        return
    # A clear asks for a new batch.
    batch.clear()
    batch.until("all are started again", lambda: len(batch.instances) == 2 * LAUNCHES or None)
    batch.assert_succeeds()


def _log(batch: Batch) -> str:
    return "".join(path.read_text() for path in batch.log_folder.glob("*.log"))
