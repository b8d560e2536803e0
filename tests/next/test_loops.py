"""Task loops: each iteration has its own instances, and actions on one iteration do not affect others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.next.conftest import Run

pytestmark = pytest.mark.next

EACH = {"loop_of_one": 1, "loop_on_worker": 1, "loop_of_batches": 2, "loop_of_mapped": 2}
"""The number of instances that an iteration starts."""


@pytest.mark.parametrize("dag_id", EACH)
def test_a_retried_iteration_adopts_nothing_of_the_previous_one(dag_id: str, runs: dict[str, Run]) -> None:
    run, each = runs[dag_id], EACH[dag_id]
    run.until_waiting(0, started=each)
    run.approve()
    run.until_waiting(1, started=2 * each)
    assert {task["try_number"] for task in run.iteration(1)} == {2}
    assert len(run.still_open) == each
    assert run.task("publish")["state"] is None
    # A person ends the iteration: its own instances are terminated, and nothing is published.
    if dag_id != "loop_of_one":
        for task in run.iteration(1):
            run.mark(task, "failed")
        run.until("its instances are closed", lambda: not run.still_open or None)
        ends = ["Completed OK"] * each + ["Terminated"] * each
        assert [instance["state"] for instance in run.instances] == ends
        run.until_state("upstream_failed", "publish")
        return
    shown = {key: run.xcom(run.iteration(1)[0], key) for key in ("instance_id", "business_key")}
    own = run.still_open[0]
    assert shown == {"instance_id": own["id"], "business_key": own["business_key"]}
    assert own["business_key"].startswith("loop_of_one.review.approve.loop1.")
    run.approve()
    run.until_state("success", "publish")
    returned = [run.xcom(run.iteration(n)[0], "return_value")["id"] for n in (0, 1)]
    assert returned == [instance["id"] for instance in run.instances]


def test_clearing_an_iteration_terminates_what_a_later_one_has_started(runs: dict[str, Run]) -> None:
    """Airflow replaces the later iterations, in another region, once the cleared one is finished."""
    run = runs["cleared"]
    run.until_waiting(0, started=1)
    run.approve()
    run.until_waiting(1, started=2)
    run.clear(run.iteration(0)[0], include_downstream=True)
    run.until_waiting(0, started=3)
    run.until("the instances of the later one are closed", lambda: len(run.still_open) == 1 or None)
    first, second, again = run.instances
    assert (first["state"], second["state"], again["closed"]) == ("Completed OK", "Terminated", False)
    run.approve()
    run.until_waiting(1, started=4)
    assert run.iteration(1)[0]["region_id"] != run.iteration(0)[0]["region_id"]
    assert run.iteration(1)[0]["try_number"] == 1
    run.approve()
    run.until_state("success", "publish")
    keys = [instance["business_key"] for instance in run.instances]
    assert len(set(keys)) == 4
