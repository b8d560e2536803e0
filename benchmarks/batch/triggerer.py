"""The measured process: a triggerer with one trigger, which waits for a whole batch.

It extends the one of ``benchmarks.waiting``: the trigger can read the XComs of its task, and polls are counted. Its only
argument is a file with those XComs. It reads everything else from standard input.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from airflow.sdk.api.datamodels._generated import XComResponse
from airflow.sdk.execution_time.comms import GetTaskStates, GetXCom, TaskStatesResult, XComResult
from airflow.sdk.log import configure_logging, reset_logging

from benchmarks.waiting import runner
from benchmarks.waiting.workload import Cost, Workload

POLL_GAP_SECONDS = 2.0  # longer than between two requests of one poll, shorter than between two polls


class Runner(runner.Runner):
    """The measured trigger runner of ``benchmarks.waiting``, with one trigger that asks about its task."""

    def __init__(self, work: Workload, xcoms: dict[str, Any]) -> None:
        super().__init__(work)
        self._xcoms = xcoms
        self.polls = self.requests = 0

    async def init_comms(self) -> None:
        """Connect to a supervisor that knows the task, and start measuring."""
        await super().init_comms()
        others = self.supervisor.send

        def send(message: object) -> Any:
            match message:
                case GetXCom(key=key):
                    return XComResult.from_xcom_response(XComResponse(key=key, value=self._xcoms.get(key)))
                case GetTaskStates(run_ids=[run_id], task_ids=[task_id]):
                    return TaskStatesResult(task_states={run_id: {task_id: "deferred"}})
            others(message)
            return None

        self.supervisor.send = send  # type: ignore[method-assign]

    async def _steady(self, start: float, start_block: float, block: float) -> Cost:
        began = time.time()
        cost = await super()._steady(start, start_block, block)
        self.polls = len(self._poll_seconds)
        seen = [entry["at"] for entry in await asyncio.to_thread(self._control.requests)]
        self.requests = most_at_once([at for at in seen if at >= began])
        return cost


def most_at_once(moments: list[float]) -> int:
    """Return the most moments without a long pause between them."""
    most = count = min(len(moments), 1)
    for before, at in pairwise(moments):
        count = count + 1 if at - before < POLL_GAP_SECONDS else 1
        most = max(most, count)
    return most


def main() -> None:
    """Run the workload from standard input."""
    work = Workload(**json.loads(sys.stdin.readline()))
    sink = Path(os.devnull).open("wb", buffering=0)  # noqa: SIM115 - Airflow logs to it until the process ends
    reset_logging()  # type: ignore[no-untyped-call]
    configure_logging(json_output=True, output=sink, sending_to_supervisor=True)
    own = Runner(work, json.loads(Path(sys.argv[1]).read_text()))
    own.run()  # type: ignore[no-untyped-call]
    if own.measurement.cancelled():
        sys.exit("interrupted")
    print(
        json.dumps({"cost": asdict(own.measurement.result()), "polls": own.polls, "requests": own.requests})
    )


if __name__ == "__main__":
    main()
