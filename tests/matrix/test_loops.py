"""Task loops: each iteration has its own instances, and actions on one iteration do not affect others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.matrix.runs import Begin, begins

if TYPE_CHECKING:
    from tests.matrix.runs import Run

pytestmark = [pytest.mark.matrix, pytest.mark.since("3.4")]

EACH = {"loop_on_worker": 1, "loop_of_batches": 2, "loop_of_mapped": 2}
"""The number of instances that an iteration starts."""


@begins(**{dag_id: Begin(dag_id, {"dies_in": 1}) for dag_id in EACH})
def test_retried_iteration_adopts_nothing_of_the_previous_one(runs: dict[str, Run]) -> None:
    for dag_id, run in runs.items():
        each = EACH[dag_id]
        run.until_iteration(0, started=each)
        run.decide()
        run.until_iteration(1, started=2 * each)
        assert {task["try_number"] for task in run.iteration(1)} == {2}
        assert len(run.still_open) == each
        assert run.one("publish")["state"] is None
        # A person ends the iteration: its own instances are terminated, and nothing is published.
        for task in run.iteration(1):
            run.mark_one(task, "failed")
        run.until("its instances are closed", lambda run=run: not run.still_open or None)  # type: ignore[misc]
        ends = ["Completed OK"] * each + ["Terminated"] * each
        assert [instance["state"] for instance in run.instances] == ends
        run.until_task("upstream_failed", task_id="publish")


@begins(run=Begin("loop_of_one"))
def test_clearing_an_iteration_terminates_what_a_later_one_has_started(runs: dict[str, Run]) -> None:
    """Airflow replaces the later iterations, in another region, once the cleared one is finished."""
    run = runs["run"]
    run.until_iteration(0, started=1)
    run.decide()
    run.until_iteration(1, started=2)
    run.clear_one(run.iteration(0)[0], include_downstream=True)
    run.until_iteration(0, started=3)
    run.until("the instances of the later one are closed", lambda: len(run.still_open) == 1 or None)
    first, second, again = run.instances
    assert (first["state"], second["state"], again["closed"]) == ("Completed OK", "Terminated", False)
    run.decide()
    run.until_iteration(1, started=4)
    assert run.iteration(1)[0]["region_id"] != run.iteration(0)[0]["region_id"]
    assert run.iteration(1)[0]["try_number"] == 1
    run.decide()
    run.until_task("success", task_id="publish")
    keys = [instance["business_key"] for instance in run.instances]
    assert len(set(keys)) == 4
