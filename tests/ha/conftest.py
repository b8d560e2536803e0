"""An Airflow with two triggerers and two Celery workers, on PostgreSQL and Redis, and the actions of the tests on it."""

from __future__ import annotations

import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from local_services import install_services, start_postgres, start_redis
from local_stack import DATABASE_VARIABLE, SIGNALS, Child, Deployment, Emulator, Stack, living
from tests.support.deployed import DeployedAirflow, measured, show_measured

__all__ = ["measured"]

TASK = "wait"
SLOTS = 4  # of each worker
PAGE = 1000  # more tasks than there are

SETTINGS = {
    "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent / "dags"),
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    # Tasks beyond the workers' slots wait in Redis, so that a free slot gets work at once.
    "AIRFLOW__CORE__PARALLELISM": str(4 * SLOTS),
    "AIRFLOW__API__MAXIMUM_PAGE_LIMIT": str(PAGE),
    "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(SLOTS),
    "AIRFLOW__CELERY__OPERATION_TIMEOUT": "10",  # one second is not enough on one small machine
    "AIRFLOW__CELERY__SYNC_PARALLELISM": "1",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",  # no file changes
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__MAX_DAGRUNS_PER_LOOP_TO_SCHEDULE": "50",
    # A killed worker reports nothing. Its tasks count as dead when they have been silent for this long. Redis
    # would give its messages to another worker after the visibility timeout, a day, and the scheduler should be first.
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "16",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    # Tasks that a killed worker had taken from Redis but not begun are silent as well, until they begin.
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
}


class Airflow(DeployedAirflow):
    """The deployment."""

    slots = SLOTS

    def __init__(self, deployment: Deployment, home: Path, control: EmulatorControl) -> None:
        super().__init__(deployment, home, control)
        self.workers: list[Child] = []
        self.triggerers: dict[int, Child] = {}
        """By the id under which Airflow knows each."""

    def start_worker(self) -> None:
        """Start a worker; it is ready some seconds later."""
        self.workers.append(self.deployment.start_worker())

    def start_triggerer(self) -> None:
        """Start a triggerer, and return when Airflow knows it."""
        self.note_triggerer(self.deployment.start_triggerer())

    def note_triggerer(self, child: Child) -> None:
        """Wait until Airflow knows a triggerer, the only one that is new."""

        def new() -> int | None:
            jobs = self.call("GET", "/api/v2/jobs?job_type=TriggererJob")["jobs"]
            return next((job["id"] for job in jobs if job["id"] not in self.triggerers), None)

        self.triggerers[self.until(f"{child.name} is known", new)] = child

    def kill(self, child: Child) -> None:
        """Kill every process of a component at once, so that none of them can report it."""
        self.gone.append(child)
        child.signal(signal.SIGSTOP)

        def dead() -> bool | None:
            child.signal(signal.SIGKILL)  # again, for processes that were just starting
            return not child.members() or None

        self.until(f"{child.name} is dead", dead)

    def run(self, dag_id: str, run_id: str) -> None:
        """Start a run."""
        self.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None, "dag_run_id": run_id})

    def count(self, *states: str) -> int:
        """Return the number of tasks in one of these states; without states, of all tasks."""
        query = urlencode([("limit", 1), *(("state", state) for state in states)])
        found: int = self.call("GET", f"{_TASKS}?{query}")["total_entries"]
        return found

    def tasks(self, *states: str) -> dict[str, dict[str, Any]]:
        """Return the tasks in one of these states, or all, by the title of their instances."""
        query = urlencode([("limit", PAGE), *(("state", state) for state in states)])
        found = self.call("GET", f"{_TASKS}?{query}")
        assert len(found["task_instances"]) < PAGE
        return {f"{task['dag_run_id']} {task['map_index']}": task for task in found["task_instances"]}

    def instances(self) -> dict[str, list[dict[str, Any]]]:
        """Return the instances of the emulator by their titles, oldest first."""
        found = defaultdict(list)
        for instance in self.control.instances():
            found[instance["title"]].append(instance)
        return dict(found)

    def returned(self, task: dict[str, Any]) -> dict[str, Any]:
        """Return what a task returned."""
        path = f"/api/v2/dags/{task['dag_id']}/dagRuns/{task['dag_run_id']}/taskInstances/{TASK}/xcomEntries"
        query = f"map_index={task['map_index']}&deserialize=true"
        value: dict[str, Any] = self.call("GET", f"{path}/return_value?{query}")["value"]
        return value


_TASKS = "/api/v2/dags/~/dagRuns/~/taskInstances"


@pytest.fixture(scope="module")
def airflow(emulator_server: EmulatorServer) -> Iterator[Airflow]:
    """The deployment, up; after the test nothing of it is left."""
    with Stack() as stack:
        for number in SIGNALS:
            signal.signal(number, signal.default_int_handler)  # ends the session, including this fixture
        install_services(stack)
        settings = {
            **SETTINGS,
            DATABASE_VARIABLE: f"postgresql+psycopg2://{start_postgres(stack)}",
            "AIRFLOW__CELERY__BROKER_URL": start_redis(stack),
        }
        emulator = Emulator(emulator_server.url, emulator_server.connection_json())
        airflow = Airflow(Deployment(stack, emulator, **settings), stack.home, emulator_server.control)
        airflow.deployment.start()
        first = airflow.deployment.start_triggerer()
        for _ in range(2):
            airflow.start_worker()
        airflow.until_up(dags=2)
        airflow.note_triggerer(first)
        airflow.start_triggerer()
        yield airflow
        for child in reversed(airflow.deployment.components):
            child.stop()
    assert living(stack.home) == []
    assert not stack.home.exists()


pytest_terminal_summary = show_measured
