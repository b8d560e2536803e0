"""NULs and half surrogate pairs in remote texts, on PostgreSQL: they fail only the task of their instance.

PostgreSQL refuses both, and a triggerer dies when its database refuses an event. SQLite accepts them.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from local_services import install_services, start_postgres
from local_stack import DATABASE_VARIABLE, SIGNALS, Deployment, Emulator, Stack, living
from tests.ha.conftest import SETTINGS, Airflow

pytestmark = pytest.mark.ha

WAITS = 51
PATIENCE = 300.0  # seconds until all tasks must have done something
NUL, HALF = "\0", "\ud83d"
CLEANED = "\ufffd"
ALL_TEXTS = (
    "name", "version", "label", "interviewLabel", "title", "bpStage", "bpStatus", "bpStep", "curElement", "nextElem",
    "description", "businessKey", "startTime", "endTime", "createdBy.name", "taskOutcome",
)  # fmt: skip


@pytest.fixture(scope="module")
def airflow() -> Iterator[Airflow]:
    """A deployment with one triggerer, with the workers of the scheduler; after the test nothing is left."""
    with EmulatorServer() as server, Stack() as stack:
        for number in SIGNALS:
            signal.signal(number, signal.default_int_handler)  # ends the session, including this fixture
        install_services(stack)
        settings = {
            **SETTINGS,
            "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent / "odd_dags"),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "6",
            DATABASE_VARIABLE: f"postgresql+psycopg2://{start_postgres(stack)}",
        }
        emulator = Emulator(server.url, server.connection_json())
        airflow = Airflow(Deployment(stack, emulator, **settings), stack.home, server.control)
        airflow.deployment.start()
        triggerer = airflow.deployment.start_triggerer()
        airflow.until_up(dags=5)
        airflow.note_triggerer(triggerer)
        yield airflow
        for child in reversed(airflow.deployment.components):
            child.stop()
    assert living(stack.home) == []


def distort(airflow: Airflow, instance_id: str, *fields: str) -> None:
    """Put a NUL and half a surrogate pair into texts of an instance, as the API shows it."""
    status = f"Appr{NUL}oved{HALF}"
    airflow.control.distort(
        instance_id, {field: status if field == "bpStatus" else f"a{NUL}b{HALF}" for field in fields}
    )


def failed(airflow: Airflow, title: str) -> Callable[[], Any]:
    """Return a function that returns the failed task."""
    return lambda: airflow.tasks("failed").get(title)


def succeeded(airflow: Airflow, dag_id: str, count: int = 1) -> Callable[[], list[dict[str, Any]] | None]:
    """Return a function that returns the succeeded tasks of a DAG when there are enough."""

    def poll() -> list[dict[str, Any]] | None:
        found = [task for task in airflow.tasks("success").values() if task["dag_id"] == dag_id]
        return found if len(found) == count else None

    return poll


def all_wait(airflow: Airflow) -> Callable[[], bool | None]:
    """Return a function that returns whether the triggerer has the waits of all tasks."""

    def poll() -> bool | None:
        waiting = airflow.tasks("deferred").values()
        assert airflow.count("failed") == 0
        return (
            len(waiting) == WAITS + 2 and all(task["trigger"]["triggerer_id"] for task in waiting)
        ) or None

    return poll


def test_texts_that_postgresql_refuses_fail_one_task_at_most(
    airflow: Airflow, measured: Callable[[str, float], None]
) -> None:
    control = airflow.control
    (triggerer,) = airflow.triggerers.values()
    began = time.monotonic()
    for dag_id in ("many", "impatient", "batch"):
        airflow.run(dag_id, dag_id)
    airflow.until("all tasks wait", all_wait(airflow), PATIENCE)
    instances = {title: one["id"] for title, (one,) in airflow.instances().items()}
    assert len(instances) == WAITS + 3
    measured(f"until {WAITS + 2} tasks wait", time.monotonic() - began)

    # The server's message of a refusal goes into the event of the one wait that tolerates no failure.
    control.fault("query", "status", status=400, res_msg=f"no{NUL}such thing")
    airflow.until("the impatient task has failed", failed(airflow, "impatient -1"))

    # One instance with both in every text, its business status among them; and one of a batch.
    victim = "many 0"
    distort(airflow, instances[victim], *ALL_TEXTS)
    control.act(instances[victim], "approve")
    airflow.until("the victim has failed", failed(airflow, victim))
    distort(airflow, instances["batch 0"], "bpStatus", "title", "version")
    for title in ("batch 0", "batch 1"):
        control.act(instances[title], "approve")
    airflow.until("the batch has failed", failed(airflow, "batch -1"))

    # A wait on a worker returns the texts that it has polled.
    airflow.run("on_a_worker", "on_a_worker")
    on_a_worker = airflow.until("it has started", lambda: airflow.instances().get("on_a_worker -1"))[0]["id"]
    distort(airflow, on_a_worker, "version", "title", "label", "interviewLabel", "taskOutcome")
    control.act(on_a_worker, "approve")
    (task,) = airflow.until("the task on a worker has succeeded", succeeded(airflow, "on_a_worker"))
    assert airflow.returned(task)["version"] == f"a{CLEANED}b{CLEANED}"

    # So does the event of an asset.
    watched = control.start("SupplierOnboarding")["id"]
    distort(airflow, watched, "bpStatus", "version", "startTime")
    control.act(watched, "reject")
    (run,) = airflow.until("an event of the asset has started a run", succeeded(airflow, "on_watched"))
    path = f"/api/v2/dags/on_watched/dagRuns/{run['dag_run_id']}/taskInstances/read/xcomEntries/return_value"
    (payload,) = airflow.call("GET", f"{path}?deserialize=true")["value"]
    assert (payload["id"], payload["bp_status"]) == (watched, f"Appr{CLEANED}oved{CLEANED}")

    # Then both are in every text of every response for a while, including the states.
    for fault in ("nul", "half_pair"):
        control.fault("query", fault, times=10)
    airflow.until("all of those answers were sent", lambda: not control.faults() or None)
    assert airflow.count("deferred") == WAITS - 1
    for title, instance_id in instances.items():
        if title.startswith("many ") and title != victim:
            control.act(instance_id, "approve")
    tasks = airflow.until("all others have succeeded", succeeded(airflow, "many", WAITS - 1), PATIENCE)
    for task in tasks:
        returned = airflow.returned(task)
        assert (returned["id"], returned["bp_status"]) == (
            instances[f"many {task['map_index']}"],
            "Approved",
        )
    assert set(airflow.tasks("failed")) == {victim, "impatient -1", "batch -1"}
    assert triggerer.exit_code is None
    assert len(control.instances()) == WAITS + 5
    measured("until all tasks have ended", time.monotonic() - began)
