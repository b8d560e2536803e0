"""A deployed pre-release of the next Airflow line against the emulator, and the runs of its DAGs."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_astrobpm._airflow.version_compat import has_reschedules
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from local_stack import SIGNALS, Deployment, Emulator, Stack, living
from tests.deployment.conftest import SETTINGS
from tests.support.deployed import DeployedAirflow, Found

# It imports what older versions do not have.
collect_ignore = [] if has_reschedules() else ["test_retry_policy.py"]

DAGS = Path(__file__).parent / "dags"
DAG_COUNT = 5
GRACE = 1  # seconds after which a started instance certainly shows in the lists


class Airflow(DeployedAirflow):
    """The deployment."""

    _numbers = count(1)

    def run(self, dag_id: str, control: EmulatorControl) -> Run:
        """Start a run.

        :param control: the emulator that its DAG uses.
        """
        run_id = f"{dag_id}-{next(self._numbers)}"
        body = {"logical_date": None, "dag_run_id": run_id}
        self.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)
        return Run(self, dag_id, run_id, control)


@dataclass(frozen=True)
class Run:
    """One run of a DAG. Its id is the title of each instance that it starts."""

    airflow: Airflow
    dag_id: str
    run_id: str
    control: EmulatorControl

    @property
    def path(self) -> str:
        return f"/api/v2/dags/{self.dag_id}/dagRuns/{self.run_id}"

    @property
    def instances(self) -> list[dict[str, Any]]:
        """Every instance that this run started, oldest first."""
        return [each for each in self.control.instances() if each["title"] == self.run_id]

    @property
    def still_open(self) -> list[dict[str, Any]]:
        return [each for each in self.instances if not each["closed"]]

    @property
    def waiting_for_people(self) -> list[dict[str, Any]]:
        """The open instances on which people can act."""
        return [each for each in self.still_open if each["outcomes"]]

    def tasks(self) -> list[dict[str, Any]]:
        """Return all task instances."""
        found: list[dict[str, Any]] = self.airflow.call("GET", f"{self.path}/taskInstances?limit=100")[
            "task_instances"
        ]
        return found

    def task(self, task_id: str) -> dict[str, Any]:
        """Return the only task instance of a task."""
        (found,) = [each for each in self.tasks() if each["task_id"] == task_id]
        return found

    def until_state(self, state: str, task_id: str) -> None:
        self.until(f"{task_id} is {state}", lambda: self.task(task_id)["state"] == state or None)

    def until(self, what: str, look: Callable[[], Found | None]) -> Found:
        return self.airflow.until(f"{self.run_id}: {what}", look, 90, *self._logs.glob("**"))

    def approve(self) -> None:
        """Approve all open instances."""
        for each in self.still_open:
            self.control.act(each["id"], "approve")

    def log(self, task_id: str) -> str:
        """Return the logs of all tries of a task."""
        return "".join(path.read_text() for path in self._logs.glob(f"task_id={task_id}/**/*.log"))

    @property
    def _logs(self) -> Path:
        return self.airflow.home / f"logs/dag_id={self.dag_id}/run_id={self.run_id}"


@pytest.fixture(scope="session")
def outage_server() -> Iterator[EmulatorServer]:
    """The emulator behind the connection ``astro_zero_outage``."""
    with EmulatorServer() as server:
        yield server


@pytest.fixture
def outage(outage_server: EmulatorServer) -> EmulatorControl:
    """The control of that emulator, in its initial state. One test at a time uses it."""
    outage_server.control.reset()
    return outage_server.control


@pytest.fixture(scope="session")
def airflow(emulator_server: EmulatorServer, outage_server: EmulatorServer) -> Iterator[Airflow]:
    """The running deployment with one triggerer."""
    with Stack() as stack:
        for number in SIGNALS:
            signal.signal(number, signal.default_int_handler)  # ends the session, with this fixture's end
        emulator = Emulator(emulator_server.url, _connection(emulator_server))
        own = {
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW_CONN_ASTRO_ZERO_OUTAGE": _connection(outage_server, max_attempts=1),
            "AIRFLOW__TRIGGERER__QUEUES_ENABLED": "True",
        }
        deployment = Deployment(stack, emulator, **{**SETTINGS, **own})
        airflow = Airflow(deployment, stack.home, emulator_server.control)
        deployment.start()
        deployment.start_triggerer("--queues", "default")  # where tasks are that name no queue
        airflow.until_up(dags=DAG_COUNT)
        yield airflow
        for child in reversed(deployment.components):
            child.stop()
    assert living(stack.home) == []


def _connection(server: EmulatorServer, **extra: Any) -> str:
    plain = json.loads(server.connection_json())
    return json.dumps({**plain, "extra": {"start_grace": GRACE, **extra}})
