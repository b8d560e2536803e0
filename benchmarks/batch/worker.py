"""Run one task as a worker does: with Airflow's supervisor, and the process that it forks for the task.

Only the API server is replaced, by ``Api``, which answers from memory. The task reads and writes in the same way as in a
deployment, but no database uses CPU time.

The arguments are the task id, a file with the launches, and a file for the XComs of the task.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import httpx
from airflow.executors.workloads.base import BundleInfo
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.sdk.api.client import Client
from airflow.sdk.execution_time.supervisor import supervise_task

from benchmarks.batch.process_cost import DAG_ID, RUN_ID

LOG = "task.log"
PRELOADED = (  # a worker imports the first two before it forks, and the idle memory includes the operator
    "airflow.dag_processing.dagbag",
    "airflow.sdk.execution_time.task_runner",
    "airflow_provider_astrobpm.operators.bpm",
)


class Api:
    """Answer the requests of one task as an API server does.

    :param launches: the return value of the upstream task, as JSON text so that the idle process stays small.

    ``left`` is the task's last message about its state. ``resumption`` is what a deferred task gets when it resumes.
    """

    def __init__(self, launches: str) -> None:
        self.xcoms = {"return_value": launches}
        self.left: dict[str, Any] = {}
        self.resumption: dict[str, Any] = {}
        self._store: dict[str, Any] = {}

    @property
    def state(self) -> str | None:
        """The state in which the task has ended."""
        return self.left.get("state")

    def xcom_name(self, task_id: str, key: str) -> str:
        """Return the name in ``xcoms`` of an XCom of a task."""
        return key

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        match request.method, request.url.path.strip("/").split("/"):
            case "PATCH", ["task-instances", _, "run"]:
                return httpx.Response(200, json={"dag_run": _run(), "max_tries": 0, **self.resumption})
            case "PATCH", ["task-instances", _, "state"]:
                self.left = json.loads(request.content)
            case "GET", ["xcoms", _, _, task, key] if (name := self.xcom_name(task, key)) in self.xcoms:
                return httpx.Response(200, text=f'{{"key": "{key}", "value": {self.xcoms[name]}}}')
            case "POST", ["xcoms", _, _, task, key]:
                self.xcoms[self.xcom_name(task, key)] = request.content.decode()
            case "GET", ["store", "ti", _, key] if key in self._store:
                return httpx.Response(200, json={"value": self._store[key]})
            case "PUT", ["store", "ti", _, key]:
                self._store[key] = json.loads(request.content)["value"]
            case "GET", _:
                return httpx.Response(404, json={"detail": {"reason": "not_found"}})
        return httpx.Response(200, json={})


def _run() -> dict[str, Any]:
    now = datetime.now(timezone.utc).isoformat()
    times = dict.fromkeys(
        ("logical_date", "data_interval_start", "data_interval_end", "run_after", "start_date"), now
    )
    key = {"dag_id": DAG_ID, "run_id": RUN_ID, "run_type": "scheduled", "partition_key": None}
    return {**times, **key, "state": "running", "end_date": None, "consumed_asset_events": []}


def run(api: Api, task_id: str, dag_file: str, log: str = LOG, instance: uuid.UUID | None = None) -> None:
    """Run one task as a worker does, until its process has ended.

    :param instance: the id of the task instance; by default a new one.
    """
    task = TaskInstanceDTO(
        id=instance or uuid.uuid4(),
        task_id=task_id,
        dag_id=DAG_ID,
        run_id=RUN_ID,
        try_number=1,
        dag_version_id=uuid.uuid4(),
        pool_slots=1,
        priority_weight=1,
    )
    supervise_task(
        ti=cast("Any", task),  # executors pass the same type
        bundle_info=BundleInfo(name="dags-folder"),
        dag_rel_path=dag_file,
        token="",
        client=Client(base_url=None, dry_run=True, token="", transport=httpx.MockTransport(api.answer)),
        log_path=log,
    )


def log_text(log: str = LOG) -> str:
    """Return the log of a task."""
    return Path(os.environ["AIRFLOW_HOME"], "logs", log).read_text()


def main() -> None:
    """Run the task."""
    for module in PRELOADED:
        import_module(module)
    task_id, launches, xcoms = sys.argv[1:]
    api = Api(f"[{','.join(Path(launches).read_text().splitlines())}]")
    run(api, task_id, "launch.py")
    if api.state != "deferred":
        sys.exit(f"the task is {api.state}:\n{log_text()}")
    Path(xcoms).write_text(json.dumps({key: json.loads(text) for key, text in api.xcoms.items()}))


if __name__ == "__main__":
    main()
