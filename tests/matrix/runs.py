"""One run of a DAG on the Airflow of a line, with an emulator of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from tests.deployment.conftest import TASK, Wait
from tests.support.deployed import Found

LOOPED = "review.approve"
LATE = 15.0  # seconds after which a process dies late in its wait, half of its time


@dataclass(frozen=True)
class Begin:
    """A run that a test needs. All runs begin together, because most of their time is waiting.

    :param dag_id: its DAG.
    :param conf: its conf.
    :param since: the first line that has the DAG, or where the run makes a difference.
    :param prepare: called with the emulator of the run before it begins.
    """

    dag_id: str
    conf: Mapping[str, Any] = field(default_factory=dict)
    since: str = "3.0"
    prepare: Callable[[EmulatorControl], dict[str, Any] | None] = lambda _control: None


def begins(**runs: Begin) -> pytest.MarkDecorator:
    """Mark a test with the runs that it needs, by the names under which the fixture ``run`` returns them."""
    return pytest.mark.begins(runs)


@dataclass(frozen=True)
class Run(Wait):
    """One run of a DAG.

    :param own: the emulator of the run.
    """

    own: EmulatorControl

    @property
    def path(self) -> str:
        return self._path

    @property
    def instances(self) -> list[dict[str, Any]]:
        return self.own.instances()

    @property
    def still_open(self) -> list[dict[str, Any]]:
        return [each for each in self.instances if not each["closed"]]

    def tasks(self) -> list[dict[str, Any]]:
        """Return all task instances."""
        found: list[dict[str, Any]] = self.airflow.call("GET", f"{self.path}/taskInstances?limit=100")[
            "task_instances"
        ]
        return found

    def one(self, task_id: str = TASK) -> dict[str, Any]:
        """Return the only task instance of a task."""
        (found,) = [each for each in self.tasks() if each["task_id"] == task_id]
        return found

    def until(self, what: str, look: Callable[[], Found | None], seconds: float = 0) -> Found:
        folder = self.airflow.home / f"logs/dag_id={self.dag_id}/run_id={self.run_id}"
        return self.airflow.until(f"{self.run_id}: {what}", look, seconds, *folder.glob("**"))

    def until_task(self, *states: str, task_id: str = TASK) -> str:
        """Wait until a task is in one of these states, and return it."""

        def there() -> str | None:
            state: str = self.one(task_id)["state"]
            return state if state in states else None

        return self.until(f"{task_id} is {' or '.join(states)}", there)

    def until_ended(self, task_id: str = TASK) -> str:
        """Wait until a task and its run have ended: before that Airflow loses a clear. Return the state of the task."""
        state = self.until_task("success", "failed", task_id=task_id)
        self.until("the run has ended", lambda: self.airflow.call("GET", self.path)["end_date"])
        return state

    def until_asked(self, *, tries: int = 1, instances: int = 1) -> None:
        """Wait until a try waits for a person.

        :param tries: the number of the try.
        :param instances: how many instances were started by then.
        """

        def asked() -> bool | None:
            ready = [each for each in self.still_open if each["outcomes"]]
            task = self.one()
            waits = task["state"] in {"running", "deferred"} and task["try_number"] == tries
            return (waits and ready and len(self.instances) == instances) or None

        self.until(f"try {tries} waits for a person", asked)

    def decide(self, outcome: str = "approve") -> None:
        """Let a person act on all open instances that wait for one."""
        for each in self.still_open:
            if each["outcomes"]:
                self.own.act(each["id"], outcome)

    def value(self, key: str = "return_value", *, task: dict[str, Any]) -> Any:
        """Return a value that a task instance has published."""
        region = task.get("region_id")
        where = f"region_id={region}&region_index={task['region_index']}&" if region else ""
        path = f"{self.path}/taskInstances/{task['task_id']}/xcomEntries/{key}?{where}deserialize=true"
        return self.airflow.call("GET", path)["value"]

    def mark_one(self, task: dict[str, Any], state: str) -> None:
        """Mark a task instance, as a person does."""
        where = f"?region_id={task['region_id']}&region_index={task['region_index']}"
        mapped = f"/{task['map_index']}" if task["map_index"] >= 0 else ""
        path = f"{self.path}/taskInstances/{task['task_id']}{mapped}{where}"
        self.airflow.call("PATCH", path, {"new_state": state})

    def clear_one(self, task: dict[str, Any], **more: Any) -> None:
        """Clear a task instance, as a person does."""
        body = {"dry_run": False, "dag_run_id": self.run_id, "only_failed": False, **more}
        which = (
            {"task_instance_ids": [task["id"]]} if task.get("region_id") else {"task_ids": [task["task_id"]]}
        )
        self.airflow.call("POST", f"/api/v2/dags/{self.dag_id}/clearTaskInstances", {**body, **which})

    def log(self, task_id: str = TASK) -> str:
        """Return the logs of all tries of a task."""
        folder = self.airflow.home / f"logs/dag_id={self.dag_id}/run_id={self.run_id}/task_id={task_id}"
        return "".join(path.read_text() for path in sorted(folder.rglob("*.log")))

    def iteration(self, number: int) -> list[dict[str, Any]]:
        """Return the waiting task instances of an iteration of the loop; several if they are mapped."""
        return [
            each
            for each in self.tasks()
            if each["task_id"] == LOOPED and each["loop_iteration"]["iteration"] == number
        ]

    def until_iteration(self, number: int, *, started: int) -> None:
        """Wait until an iteration waits, and people can act on all open instances.

        :param started: the number of instances that the run has started by then.
        """
        on_worker = self.dag_id == "loop_on_worker"

        def is_waiting(task: dict[str, Any]) -> bool:
            return task["state"] == "running" if on_worker else self._is_taken_up(task)

        def waiting() -> bool | None:
            tasks, still_open = self.iteration(number), self.still_open
            wait = tasks and all(is_waiting(each) for each in tasks)
            ready = still_open and all(each["outcomes"] for each in still_open)
            return (wait and ready and len(self.instances) == started) or None

        self.until(f"iteration {number} waits", waiting)

    def _is_taken_up(self, task: dict[str, Any]) -> bool:
        """Return whether a triggerer runs the trigger of a task. Before that a kill does not reach it."""
        folder = self.airflow.home / f"logs/dag_id={self.dag_id}/run_id={self.run_id}"
        logs = [path.read_text() for path in folder.rglob("*.trigger.*.log")]
        lines = [line for log in logs for line in log.splitlines() if f'"ti_id":"{task["id"]}"' in line]
        return task["state"] == "deferred" and any(" starting" in line for line in lines)
