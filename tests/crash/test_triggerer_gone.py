"""No triggerer runs for a while: approvals and clears of that time take effect when one is back.

Runs alone, because a dying triggerer would disturb every other story.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.crash.conftest import Run, World

pytestmark = pytest.mark.crash


def test_approvals_and_clears_without_a_triggerer(world: World) -> None:
    runs = [world.run("plain_deferred", control=world.emulator()) for _ in range(3)]
    for run in runs:
        run.until_waiting()
    undisturbed, approved, cleared = runs
    airflow = world.airflow
    airflow.triggerer.signal(signal.SIGKILL)
    airflow.expect_end(airflow.triggerer)
    approved.approve()
    (first,) = cleared.instances
    cleared.clear()
    # The next try of the task does on a worker what no triggerer could do.
    cleared.until("the next try is deferred", lambda: is_deferred(cleared, tries=2) or None)
    assert cleared.terminations() == [first["id"]], cleared.story()
    assert cleared.control.instance(first["id"])["state"] == "Terminated", cleared.story()
    assert len(cleared.still_open) == 1, cleared.story()
    airflow.start_triggerer()
    approved.assert_succeeds()
    for run, instances in ((undisturbed, 1), (cleared, 2)):
        looked_after(run)
        assert run.task["state"] == "deferred", run.story()
        run.approve()
        run.assert_succeeds(instances)
    assert undisturbed.terminations() == approved.terminations() == []
    assert cleared.terminations() == [first["id"]], cleared.story()


def is_deferred(run: Run, *, tries: int) -> bool:
    return (run.task["state"], run.task["try_number"]) == ("deferred", tries)


def looked_after(run: Run) -> None:
    """Wait until the new triggerer has polled the instance."""
    before = run.control.counts()["query"]
    run.until("a triggerer polls", lambda: run.control.counts()["query"] > before or None)
