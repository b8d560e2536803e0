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
DAG_COUNT = 15
LOOPED = "review.approve"
GRACE = 1  # seconds after which a started instance certainly shows in the lists


class Airflow(DeployedAirflow):
    """The deployment."""

    _numbers = count(1)

    def run(self, dag_id: str, *, dies_in: int | None = None, control: EmulatorControl | None = None) -> Run:
        """Start a run.

        :param dies_in: the iteration in which the first try dies before it does anything.
        :param control: the emulator that its DAG uses, if it is not the common one.
        """
        run_id = f"{dag_id}-{next(self._numbers)}"
        conf = {} if dies_in is None else {"dies_in": dies_in}
        body = {"logical_date": None, "dag_run_id": run_id, "conf": conf}
        self.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)
        return Run(self, dag_id, run_id, control or self.control)


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

    def iteration(self, number: int) -> list[dict[str, Any]]:
        """Return the waiting task instances of an iteration of the loop; several if they are mapped."""
        return [
            each
            for each in self.tasks()
            if each["task_id"] == LOOPED and each["loop_iteration"]["iteration"] == number
        ]

    def xcom(self, task: dict[str, Any], key: str) -> Any:
        """Return a value that a task instance has published."""
        where = f"region_id={task['region_id']}&region_index={task['region_index']}"
        path = f"{self.path}/taskInstances/{task['task_id']}/xcomEntries/{key}?{where}&deserialize=true"
        return self.airflow.call("GET", path)["value"]

    def until_waiting(self, iteration: int, *, started: int) -> None:
        """Wait until an iteration waits, and people can act on all open instances.

        :param started: the number of instances that the run has started by then.
        """

        on_worker = self.dag_id == "loop_on_worker"

        def is_waiting(task: dict[str, Any]) -> bool:
            return task["state"] == "running" if on_worker else self._is_taken_up(task)

        def waiting() -> bool | None:
            tasks, still_open = self.iteration(iteration), self.still_open
            wait = tasks and all(is_waiting(each) for each in tasks)
            ready = still_open and all(each["outcomes"] for each in still_open)
            return (wait and ready and len(self.instances) == started) or None

        self.until(f"iteration {iteration} waits", waiting)

    def _is_taken_up(self, task: dict[str, Any]) -> bool:
        """Return whether a triggerer runs the trigger of a task. Before that a kill does not reach it."""
        logs = [path.read_text() for path in self._logs.rglob("*.trigger.*.log")]
        lines = [line for log in logs for line in log.splitlines() if f'"ti_id":"{task["id"]}"' in line]
        return task["state"] == "deferred" and any(" starting" in line for line in lines)

    def until_state(self, state: str, task_id: str) -> None:
        self.until(f"{task_id} is {state}", lambda: self.task(task_id)["state"] == state or None)

    def until(self, what: str, look: Callable[[], Found | None]) -> Found:
        return self.airflow.until(f"{self.run_id}: {what}", look, 90, *self._logs.glob("**"))

    def approve(self) -> None:
        """Approve all open instances."""
        for each in self.still_open:
            self.control.act(each["id"], "approve")

    def mark(self, task: dict[str, Any], state: str) -> None:
        """Mark a task instance, as a person does."""
        where = f"?region_id={task['region_id']}&region_index={task['region_index']}"
        mapped = f"/{task['map_index']}" if task["map_index"] >= 0 else ""
        path = f"{self.path}/taskInstances/{task['task_id']}{mapped}{where}"
        self.airflow.call("PATCH", path, {"new_state": state})

    def clear(self, task: dict[str, Any], **more: Any) -> None:
        """Clear a task instance, as a person does."""
        body = {"dry_run": False, "dag_run_id": self.run_id, "only_failed": False, **more}
        which = (
            {"task_instance_ids": [task["id"]]} if task.get("region_id") else {"task_ids": [task["task_id"]]}
        )
        self.airflow.call("POST", f"/api/v2/dags/{self.dag_id}/clearTaskInstances", {**body, **which})

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


@pytest.fixture(scope="session")
def runs(airflow: Airflow) -> dict[str, Run]:
    """The runs of all tests, started together, because most of their time is waiting."""
    dying = {
        dag_id: airflow.run(dag_id, dies_in=1)
        for dag_id in ("loop_of_one", "loop_on_worker", "loop_of_batches", "loop_of_mapped")
    }
    failing = {
        f"{dag_id}, {state}": airflow.run(dag_id)
        for dag_id in ("fails", "fails_as_batch")
        for state in ("kept", "whole run", "discarded")
    }
    failing |= {
        dag_id: airflow.run(dag_id) for dag_id in ("fails_with_own_keys", "fails_as_batch_with_own_keys")
    }
    return {**dying, **failing, "cleared": airflow.run("loop_of_one")}
