"""A batch on a real Airflow: a user action ends all of its instances. ``test_triggerers`` has what else may end a trigger."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.deployment.batch_run import LAUNCHES, Batch, run_batch

if TYPE_CHECKING:
    from tests.deployment.conftest import Airflow

pytestmark = [pytest.mark.deployment, pytest.mark.together]

TERMINATED_WITHIN = 30.0


@pytest.mark.parametrize("act", ["mark failed", "clear", "fail the run"])
def test_batch_is_terminated_when_a_user_ends_the_deferred_task(
    act: str, airflow: Airflow, measured: Callable[[str, float], None]
) -> None:
    batch = run_batch(airflow, "batch_deferred")
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
    measured: Callable[[str, float], None],
) -> None:
    batch = run_batch(airflow, "batch_on_worker")
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
