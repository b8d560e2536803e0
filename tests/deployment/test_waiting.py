"""Many waits at once: none of them holds a worker, and each ends soon after its instance."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.deployment.conftest import Airflow

pytestmark = pytest.mark.deployment

POLL_INTERVAL = 2.0  # of the DAG


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
