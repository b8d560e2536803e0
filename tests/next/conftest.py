"""An Airflow of the next line, a pre-release, of separate processes against the emulator, and the runs of its DAGs."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_astrobpm.emulator.running import EmulatorServer
from local_stack import SIGNALS, Deployment, Emulator, Stack, living
from tests.deployment.conftest import SETTINGS
from tests.support.deployed import DeployedAirflow, Found

DAGS = Path(__file__).parent / "dags"
DAG_COUNT = 6
TASK = "review.approve"
GRACE = 1  # seconds after which an instance that was started certainly shows in the lists


class Airflow(DeployedAirflow):
    """The deployment."""

    _numbers = count(1)

    def run(self, dag_id: str, *, dies_in: int | None = None) -> Run:
        """Start a run.

        :param dies_in: the iteration in which the first try dies before it does anything.
        """
        run_id = f"{dag_id}-{next(self._numbers)}"
        conf = {} if dies_in is None else {"dies_in": dies_in}
        body = {"logical_date": None, "dag_run_id": run_id, "conf": conf}
        self.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)
        return Run(self, dag_id, run_id)


@dataclass(frozen=True)
class Run:
    """One run of a DAG. Its id is the title of each instance that it starts."""

    airflow: Airflow
    dag_id: str
    run_id: str

    @property
    def path(self) -> str:
        return f"/api/v2/dags/{self.dag_id}/dagRuns/{self.run_id}"

    @property
    def instances(self) -> list[dict[str, Any]]:
        """Every instance that this run started, oldest first."""
        return [each for each in self.airflow.control.instances() if each["title"] == self.run_id]

    @property
    def still_open(self) -> list[dict[str, Any]]:
        return [each for each in self.instances if not each["closed"]]

    def tasks(self, task_id: str, iteration: int | None = None) -> list[dict[str, Any]]:
        """Return the task instances of a task, in one iteration or in all."""
        found = self.airflow.call("GET", f"{self.path}/taskInstances?limit=100")["task_instances"]
        return [
            each
            for each in found
            if each["task_id"] == task_id and iteration in {None, each.get("region_index")}
        ]

    def task(self, task_id: str = TASK, iteration: int | None = None) -> dict[str, Any]:
        """Return the only task instance of a task, in an iteration if it is in a loop."""
        (found,) = self.tasks(task_id, iteration)
        return found

    def until_waiting(self, task_id: str = TASK, iteration: int | None = None, *, tries: int = 1) -> None:
        """Wait until a task has been deferred and a triggerer has taken it up, and people may act on what it started."""

        def waiting() -> bool | None:
            found = self.tasks(task_id, iteration)
            taken = [each for each in found if (each["trigger"] or {}).get("triggerer_id")]
            ready = taken and found == taken and {each["try_number"] for each in found} == {tries}
            return (
                bool(ready and all(each["outcomes"] for each in self.still_open) and self.still_open) or None
            )

        self.until(f"{task_id} waits in iteration {iteration}, try {tries}", waiting)

    def until_state(self, state: str, task_id: str = TASK, iteration: int | None = None) -> None:
        self.until(f"{task_id} is {state}", lambda: self.task(task_id, iteration)["state"] == state or None)

    def until(self, what: str, look: Callable[[], Found | None]) -> Found:
        folder = self.airflow.home / f"logs/dag_id={self.dag_id}/run_id={self.run_id}"
        return self.airflow.until(f"{self.run_id}: {what}", look, 90, *folder.glob("**"))

    def approve(self) -> None:
        """Approve everything that is open."""
        for each in self.still_open:
            self.airflow.control.act(each["id"], "approve")

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

    def log(self, task_id: str = TASK) -> str:
        """Return what the tries of a task have logged."""
        folder = self.airflow.home / f"logs/dag_id={self.dag_id}/run_id={self.run_id}"
        return "".join(path.read_text() for path in folder.glob(f"task_id={task_id}/**/*.log"))


@pytest.fixture(scope="session")
def airflow(emulator_server: EmulatorServer) -> Iterator[Airflow]:
    """The deployment, up, with one triggerer."""
    with Stack() as stack:
        for number in SIGNALS:
            signal.signal(number, signal.default_int_handler)  # ends the session, with this fixture's end
        plain = json.loads(emulator_server.connection_json())
        emulator = Emulator(emulator_server.url, json.dumps({**plain, "extra": {"start_grace": GRACE}}))
        deployment = Deployment(stack, emulator, **{**SETTINGS, "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS)})
        airflow = Airflow(deployment, stack.home, emulator_server.control)
        deployment.start()
        deployment.start_triggerer()
        airflow.until_up(dags=DAG_COUNT)
        yield airflow
        for child in reversed(deployment.components):
            child.stop()
    assert living(stack.home) == []
