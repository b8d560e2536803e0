"""A triggerer process with one trigger, which waits for a whole batch: the side that is measured.

It is the one of ``benchmarks.waiting``; what is added is that the trigger can read the XComs of its task, and that looks
are counted. Its one argument is a file with those XComs; the rest comes by standard input.
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
from benchmarks.waiting.orders import Cost, Order

APART = 2.0  # seconds that are longer than those between two requests of a look, and shorter than those between two looks


class Runner(runner.Runner):
    """The runner of triggers that is measured there, with one trigger that asks about its task."""

    def __init__(self, order: Order, xcoms: dict[str, Any]) -> None:
        super().__init__(order)
        self._xcoms = xcoms
        self.looks = self.requests = 0

    async def init_comms(self) -> None:
        """Connect to a supervisor that knows the task, and begin to measure."""
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
        self.looks = len(self._looks)
        seen = [entry["at"] for entry in await asyncio.to_thread(self._control.requests)]
        self.requests = most_at_once([at for at in seen if at >= began])
        return cost


def most_at_once(moments: list[float]) -> int:
    """Return how many moments there are at most between two long pauses."""
    most = count = min(len(moments), 1)
    for before, at in pairwise(moments):
        count = count + 1 if at - before < APART else 1
        most = max(most, count)
    return most


def main() -> None:
    """Run what standard input orders."""
    order = Order(**json.loads(sys.stdin.readline()))
    sink = Path(os.devnull).open("wb", buffering=0)  # noqa: SIM115 - Airflow logs to it to the very end
    reset_logging()  # type: ignore[no-untyped-call]
    configure_logging(json_output=True, output=sink, sending_to_supervisor=True)
    own = Runner(order, json.loads(Path(sys.argv[1]).read_text()))
    own.run()  # type: ignore[no-untyped-call]
    if own.measurement.cancelled():
        sys.exit("interrupted")
    print(
        json.dumps({"cost": asdict(own.measurement.result()), "looks": own.looks, "requests": own.requests})
    )


if __name__ == "__main__":
    main()
