"""Task loops: each iteration has instances of its own, and what a person does to one reaches no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.next.conftest import Airflow, Run

pytestmark = pytest.mark.next

EACH = {"loop_of_one": 1, "loop_on_worker": 1, "loop_of_batches": 2, "loop_of_mapped": 2}
"""How many instances an iteration starts."""


@pytest.fixture(scope="module")
def dying(airflow: Airflow) -> dict[str, Run]:
    """A run of each loop in which the first try of the second iteration dies; all are under way at once."""
    return {dag_id: airflow.run(dag_id, dies_in=1) for dag_id in EACH}


@pytest.mark.parametrize("dag_id", EACH)
def test_a_retry_adopts_nothing_of_the_iteration_before(dag_id: str, dying: dict[str, Run]) -> None:
    run, each = dying[dag_id], EACH[dag_id]
    run.until("the first iteration waits", lambda: len(run.still_open) == each or None)
    run.approve()
    run.until("the second iteration has started its own", lambda: len(run.instances) == 2 * each or None)
    second = [one for one in run.tasks("review.approve") if one["try_number"] == 2]
    assert second
    assert len(run.still_open) == each
    assert run.tasks("publish")[0]["state"] is None
    run.approve()
    run.until_state("success", "publish")
    assert len(run.instances) == 2 * each


@pytest.fixture(scope="module")
def acted_on(airflow: Airflow) -> dict[str, Run]:
    """Runs whose second iteration a person ends, by what is done."""
    runs = {
        "mark failed": airflow.run("loop_of_one"),
        "mark failed, on a worker": airflow.run("loop_on_worker"),
        "mark failed, mapped": airflow.run("loop_of_mapped"),
        "mark failed, a batch": airflow.run("loop_of_batches"),
        "clear": airflow.run("loop_of_one"),
        "clear the iteration before": airflow.run("loop_of_one"),
    }
    for run in runs.values():
        run.until(
            "the first iteration waits",
            lambda run=run: (all(o["outcomes"] for o in run.still_open) and run.still_open) or None,
        )
        run.until("x", lambda run=run: len(run.still_open) == EACH[run.dag_id] or None)
        run.approve()
    return runs


@pytest.mark.parametrize(
    "act", ["mark failed", "mark failed, on a worker", "mark failed, mapped", "mark failed, a batch"]
)
def test_marking_an_iteration_terminates_its_instances(act: str, acted_on: dict[str, Run]) -> None:
    run = acted_on[act]
    each = EACH[run.dag_id]
    run.until(
        "2nd", lambda: (len(run.instances) == 2 * each and all(o["outcomes"] for o in run.still_open)) or None
    )
    if run.dag_id != "loop_on_worker":
        run.until(
            "taken",
            lambda: (
                all(
                    (t["trigger"] or {}).get("triggerer_id")
                    for t in run.tasks("review.approve")
                    if t["state"] != "success"
                )
                or None
            ),
        )
    import time

    time.sleep(2)
    for t in run.tasks("review.approve"):
        if t["state"] in ("deferred", "running"):
            print(t)
            run.mark(t, "failed")
    run.until("closed", lambda: not run.still_open or None)
    print([i["state"] for i in run.instances])
    print(run.log())
    assert 0


@pytest.mark.parametrize("act", ["clear", "clear the iteration before"])
def test_clear(act: str, acted_on: dict[str, Run]) -> None:
    run = acted_on[act]
    run.until("2nd", lambda: (len(run.instances) == 2 and all(o["outcomes"] for o in run.still_open)) or None)
    run.until(
        "taken",
        lambda: (
            all(
                (t["trigger"] or {}).get("triggerer_id")
                for t in run.tasks("review.approve")
                if t["state"] != "success"
            )
            or None
        ),
    )
    import time

    time.sleep(2)
    tasks = {t["region_index"]: t for t in run.tasks("review.approve")}
    print(tasks)
    run.clear(tasks[1 if act == "clear" else 0], include_downstream=True)
    for _ in range(8):
        time.sleep(1)
        print(
            [
                (t["task_id"], t["state"], t["try_number"], t.get("region_index"), t.get("region_id"))
                for t in run.tasks("review.approve")
            ],
            [(i["state"], i["business_key"]) for i in run.instances],
        )
    print(run.log())
    assert 0
