"""Many waits at once: no wait holds a worker, and each ends soon after its instance."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.deployment.conftest import Airflow

pytestmark = pytest.mark.deployment

POLL_INTERVAL = 2.0  # of the DAG


@pytest.mark.together
def test_execution_timeout_counts_while_a_task_is_deferred(airflow: Airflow) -> None:
    """Airflow itself starts the time again on each resumption, and does not count in between."""
    wait = airflow.run("wait_with_execution_timeout")
    triggerer = wait.until_deferred()
    wait.until_state("failed")
    assert wait.logged(triggerer, "fired")
    assert wait.instance["state"] == "Terminated"
    assert airflow.actions() == [("terminate", wait.instance["id"])]
    log = (wait.log_folder / "attempt=1.log").read_text()
    assert "UTC ('execution_timeout'); last seen: instance" in log


@pytest.mark.together
def test_mapped_gate_stops_only_its_own_item(airflow: Airflow) -> None:
    run = airflow.run("publish_each")
    path = f"/api/v2/dags/{run.dag_id}/dagRuns/{run.run_id}"

    def states(task_id: str) -> dict[int, str | None]:
        found = airflow.call("GET", f"{path}/taskInstances?task_id=item.{task_id}")["task_instances"]
        return {each["map_index"]: each["state"] for each in found if each["task_id"] == f"item.{task_id}"}

    def all_deferred() -> bool | None:
        # As in until_deferred: each worker must have reported its end to the scheduler.
        reports = airflow.scheduler.output().count(done)
        return (reports == 3 and states("approval") == dict.fromkeys(range(3), "deferred")) or None

    done = (
        f"Received executor event with state success for task instance TaskInstanceKey(dag_id='{run.dag_id}', "
        f"task_id='item.approval', run_id='{run.run_id}', try_number=1,"
    )
    run.until("all are deferred", all_deferred)
    for one in airflow.control.instances(name="PublishApproval"):
        if one["business_key"].startswith("publish_each."):
            rejected = one["variables"]["dataset"] == "stock"
            airflow.control.act(one["id"], "reject" if rejected else "approve")
    run.until("the run has ended", lambda: airflow.call("GET", path)["state"] == "failed" or None)
    assert states("approval") == {0: "success", 1: "failed", 2: "success"}
    assert states("publish") == {0: "success", 1: "upstream_failed", 2: "success"}


def test_waits_hold_no_worker_and_end_soon(airflow: Airflow, measured: Callable[[str, float], None]) -> None:
    waits = [airflow.run("wait_for_person") for _ in range(10)]
    triggerers = [wait.until_deferred() for wait in waits]
    assert airflow.working_tasks() == []
    pool = airflow.call("GET", "/api/v2/pools/default_pool")
    assert pool["deferred_slots"] >= 10
    assert (pool["occupied_slots"], pool["running_slots"], pool["queued_slots"]) == (0, 0, 0)

    noticed: list[float] = []
    done: list[float] = []
    ended = []
    for wait, triggerer in zip(waits, triggerers, strict=True):
        ended.append(wait.approve()["ended"])
        noticed.append(wait.until_logged(triggerer, "fired") - ended[-1])
    for wait, end in zip(waits, ended, strict=True):
        wait.until_state("success")
        done.append(wait.ended - end)
        assert wait.returned["id"] == wait.instance["id"]
    for what, seconds in (("its trigger's event", noticed), ("the success of its task", done)):
        measured(f"from the end of an instance to {what}, on average", sum(seconds) / len(seconds))
        measured(f"from the end of an instance to {what}, at most", max(seconds))
    assert max(noticed) <= POLL_INTERVAL + 2
    assert airflow.actions() == []
