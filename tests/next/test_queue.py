"""A watcher's trigger runs only in a triggerer of its queue."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.next.conftest import Airflow

pytestmark = pytest.mark.next


def watcher_trigger(airflow: Airflow) -> tuple[Any, ...] | None:
    """Return the queue of the watcher's trigger, and the triggerer that runs it."""
    assert airflow.deployment.database is not None
    with closing(sqlite3.connect(airflow.deployment.database)) as database:
        row: tuple[Any, ...] | None = database.execute(
            "SELECT queue, triggerer_id FROM trigger WHERE classpath LIKE '%AstroZeroBpmEventTrigger'"
        ).fetchone()
    return row


def test_only_a_triggerer_of_the_queue_watches(airflow: Airflow) -> None:
    waits = "SELECT count(*) FROM job WHERE job_type = 'TriggererJob' AND latest_heartbeat IS NOT NULL"
    assert airflow.deployment.database is not None
    airflow.until("the watcher is registered", lambda: watcher_trigger(airflow))
    with closing(sqlite3.connect(airflow.deployment.database)) as database:
        assert database.execute(waits).fetchone() == (1,)
    supplier = airflow.control.start("SupplierOnboarding")
    airflow.control.move(supplier["id"], state="Completed OK")
    assert watcher_trigger(airflow) == ("people", None), "the triggerer of tasks leaves it alone"
    triggerer = airflow.deployment.start_triggerer("--queues", "people")
    path = "/api/v2/dags/watched/dagRuns"

    def ended() -> dict[str, Any] | None:
        runs = [run for run in airflow.call("GET", path)["dag_runs"] if run["state"] == "success"]
        return runs[0] if runs else None

    run = airflow.until("a run for the event", ended, 180)
    (event,) = airflow.call("GET", f"{path}/{run['dag_run_id']}/upstreamAssetEvents")["asset_events"]
    assert event["extra"]["payload"]["id"] == supplier["id"]
    triggerer.stop()
    airflow.expect_end(triggerer)
