"""Run the tasks of one gate as a worker does: with Airflow's supervisor, which forks a process for each task.

This process has imported what a worker of the ``LocalExecutor`` inherits from its scheduler, and no module of a provider. As
in a deployment, each task process imports for itself what it needs in addition. Only the API server is replaced, by ``Api``,
which answers from memory. The process reads one order per line from standard input, and prints a line for each.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
from typing import Any

import airflow.executors.local_executor
import airflow.jobs.scheduler_job_runner  # noqa: F401 - workers are forked from a scheduler
import httpx

from benchmarks.batch import worker
from benchmarks.waiting.workload import TASK_INSTANCE

MARK = "task: "


class Api(worker.Api):
    """Answer the requests of all tasks of one run."""

    def __init__(self) -> None:
        super().__init__("null")

    def xcom_name(self, task_id: str, key: str) -> str:
        """Return the name in ``xcoms`` of an XCom of a task."""
        return f"{task_id}.{key}"

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer a request. Templates read an XCom as a slice of the XComs of all mapped tasks."""
        match request.method, request.url.path.strip("/").split("/"):
            case "GET", ["xcoms", _, _, task, key, "slice"]:
                return httpx.Response(200, text=f"[{self.xcoms[self.xcom_name(task, key)]}]")
        return super().answer(request)


class EndClock:
    """Record when a task process has ended, because the supervisor may notice it up to five seconds later."""

    def __init__(self) -> None:
        self.at = 0.0
        signal.signal(signal.SIGCHLD, self._record)

    def _record(self, _number: int, _frame: object) -> None:
        self.at = time.perf_counter()


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Run the tasks that standard input orders."""
    api, end = Api(), EndClock()
    for line in sys.stdin:
        order: dict[str, Any] = json.loads(line)
        if order["is_first"]:
            api = Api()
        api.resumption = {}
        if (left := order["resumes"]) is not None:
            given = {**(left["next_kwargs"] or {}), "event": order["event"]}
            api.resumption = {"next_method": left["next_method"], "next_kwargs": given}
        cpu, began = _children_cpu(), time.perf_counter()
        worker.run(api, order["task_id"], f"{order['dag']}.py", order["log"], TASK_INSTANCE)
        cost = {"seconds": end.at - began, "cpu": _children_cpu() - cpu}
        if api.state not in ("deferred", "success"):
            sys.exit(f"{order['task_id']} is {api.state}:\n{worker.log_text(order['log'])}")
        print(f"\n{MARK}{json.dumps({**cost, 'left': api.left})}", flush=True)


if __name__ == "__main__":
    main()
