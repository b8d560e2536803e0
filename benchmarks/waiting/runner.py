"""One triggerer process full of waiting triggers, and what it costs: the side that is measured.

Runs Airflow's own ``TriggerRunner``. Only the process above it is replaced, by ``Supervisor``, which hands out the
triggers at the pace of the real one; creating, running and cancelling them is Airflow's code.

Reads what to run from standard input and prints what it took, both as JSON. Each measurement is a process of
its own, so that nothing of one is left in the next.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import time
import uuid
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psutil
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.executors.workloads.trigger import RunTrigger
from airflow.jobs.triggerer_job_runner import TriggerRunner, messages
from airflow.models.trigger import Trigger
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import MaskSecret
from airflow.sdk.log import configure_logging, reset_logging
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_astrobpm.emulator import EmulatorControl
from benchmarks.waiting.orders import Cost, Order

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


# What [triggerer] max_trigger_to_select_per_loop is unless somebody changed it; a loop takes about a second.
NEW_PER_LOOP = 50
TICK = 0.01
# Blocks are sought for this share of the time, before the rest is measured: it would count as work of the triggers.
SHARE_FOR_BLOCKS = 0.25
SCHEDULING = Path("/proc/thread-self/schedstat")
LOOK = 0.25
PATIENCE = 900.0


class IdleTrigger(BaseTrigger):
    """Waits and does nothing at all: whatever it costs is what Airflow itself takes for a waiting task."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes the same trigger again."""
        return "benchmarks.waiting.runner.IdleTrigger", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for what never comes."""
        await asyncio.Event().wait()
        yield TriggerEvent(None)  # type: ignore[no-untyped-call]


class Supervisor:
    """Stands in for the process above the runner: hands out triggers, and keeps what comes back.

    It reads their arguments as it goes, so that they take no memory beside the triggers.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._created = 0
        self._to_cancel: set[int] = set()
        self.returned: list[str] = []
        # The runner takes the end of this task for the loss of its supervisor.
        self._reader_task = asyncio.create_task(asyncio.Event().wait())

    def cancel_all(self) -> None:
        """Let the runner cancel every trigger, as when a person ended all the tasks."""
        self._to_cancel = set(range(1, self._order.count + 1))

    async def asend(self, message: object) -> messages.TriggerStateSync | None:
        """Answer the runner."""
        if not isinstance(message, messages.TriggerStateChanges):
            self.send(message)
            return None
        self.returned += [
            f"trigger {entry.trigger_id} fired {entry.event!r}" for entry in message.events or ()
        ]
        self.returned += [
            f"trigger {number} failed: {''.join(trace or ())}" for number, trace in message.failures or ()
        ]
        to_create = []
        for line in islice(sys.stdin, NEW_PER_LOOP):
            self._created += 1
            to_create.append(self._workload(self._created, json.loads(line)))
            # The real supervisor does this in its own process: it must not show as a block of this one's loop.
            await asyncio.sleep(0)
        to_cancel, self._to_cancel = self._to_cancel, set()
        return messages.TriggerStateSync(to_create=to_create, to_cancel=to_cancel)

    def send(self, message: object) -> None:
        """Answer a trigger that asks for something. Connections come from the environment, so little is asked for."""
        if not isinstance(message, MaskSecret):
            raise TypeError(f"nothing here answers {message!r}")

    def _workload(self, number: int, kwargs: dict[str, Any]) -> RunTrigger:
        task = TaskInstanceDTO(
            id=uuid.uuid4(),
            task_id="wait",
            dag_id="waiting",
            run_id=f"scheduled__{number}",
            try_number=1,
            dag_version_id=uuid.uuid4(),
            pool_slots=1,
            priority_weight=1,
        )
        return RunTrigger(
            id=number,
            classpath=self._order.classpath,
            encrypted_kwargs=Trigger.encrypt_kwargs(kwargs),
            ti=task,
        )


class Ticker:
    """Finds how late the event loop gets, by waking up so often that this costs more than many a trigger.

    The time for which the machine had no processor for the loop is left out: it says nothing about the triggers.
    """

    def __init__(self) -> None:
        self._worst = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._run())

    def take(self) -> float:
        """Return the longest delay since the last call, in seconds."""
        worst, self._worst = self._worst, 0.0
        return worst

    def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            begin = time.perf_counter() - _kept_waiting()
            await asyncio.sleep(TICK)
            late = time.perf_counter() - _kept_waiting() - begin - TICK
            self._worst = max(self._worst, late)


class Runner(TriggerRunner):
    """Airflow's runner of triggers, under a supervisor that wants a measurement."""

    supervisor: Supervisor
    measurement: asyncio.Task[Cost]

    def __init__(self, order: Order) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._order = order
        self._control = EmulatorControl(order.control)
        self._ticker = Ticker()
        self._looks: list[float] = []

    async def init_comms(self) -> None:
        """Connect to the supervisor, and begin to measure."""
        if self._order.time_looks:
            _time_looks(self._looks)
        self.supervisor = Supervisor(self._order)
        self.comms_decoder = task_runner.SUPERVISOR_COMMS = cast("Any", self.supervisor)
        self.measurement = asyncio.create_task(self._measure())

    async def _measure(self) -> Cost:
        try:
            self._ticker.start()
            start = await self._started()
            start_block = self._ticker.take()
            await asyncio.sleep(self._order.seconds * SHARE_FOR_BLOCKS)
            block = self._ticker.take()
            self._ticker.stop()
            cost = await self._steady(start, start_block, block)
            await self._stopped()
            return cost
        finally:
            self._ticker.stop()
            os.kill(os.getpid(), signal.SIGTERM)  # which is how a triggerer is told to end

    async def _started(self) -> float:
        """Wait until all triggers run and have looked, and return the seconds that took."""
        begin = time.monotonic()
        await self._until(lambda: len(self.triggers) == self._order.count, "all triggers ran")
        seen = await self._requests()
        await asyncio.sleep(self._order.settle)
        while await self._requests() - seen < self._order.looks:
            if time.monotonic() > begin + PATIENCE:
                raise TimeoutError(f"not every trigger had looked after {PATIENCE:g} s")
            await asyncio.sleep(LOOK)
        return time.monotonic() - begin

    async def _steady(self, start: float, start_block: float, block: float) -> Cost:
        seen = await self._requests()
        self._looks.clear()
        begin, cpu = time.monotonic(), _cpu()
        await asyncio.sleep(self._order.seconds)
        seconds, cpu = time.monotonic() - begin, _cpu() - cpu
        memory = psutil.Process().memory_info().rss
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        requests = await self._requests() - seen
        look = sum(self._looks) / len(self._looks) if self._looks else 0.0
        if self.supervisor.returned or len(self.triggers) != self._order.count:
            raise RuntimeError(f"triggers ended while they should wait: {self.supervisor.returned[:3]}")
        return Cost(seconds, requests, cpu, memory, peak, block, start_block, start, look)

    async def _stopped(self) -> None:
        self.supervisor.cancel_all()
        await self._until(lambda: not self.triggers, "all triggers were cancelled")
        if self.supervisor.returned:
            raise RuntimeError(
                f"triggers did not let themselves be cancelled: {self.supervisor.returned[:3]}"
            )

    async def _until(self, reached: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not reached():
            if self.supervisor.returned:
                raise RuntimeError(f"before {what}: {self.supervisor.returned[0]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{PATIENCE:g} s passed before {what}")
            await asyncio.sleep(LOOK)

    async def _requests(self) -> int:
        return sum((await asyncio.to_thread(self._control.counts)).values())


def _time_looks(looks: list[float]) -> None:
    """Note how long each look takes. The poller runs it as one plan; a renewal of the token would be another."""
    from airflow_provider_astrobpm.bpm.aio import AsyncBpmClient  # noqa: PLC0415 - not in the other contenders' memory

    run = AsyncBpmClient.run

    async def timed_run(client: AsyncBpmClient, plan: Any) -> Any:
        begin = time.perf_counter()
        try:
            return await run(client, plan)
        finally:
            looks.append(time.perf_counter() - begin)

    AsyncBpmClient.run = timed_run  # type: ignore[method-assign,assignment]


def _kept_waiting() -> float:
    """Return the seconds for which this thread could have run but got no processor, where the system tells."""
    try:
        return int(SCHEDULING.read_bytes().split()[1]) / 1e9
    except OSError:
        return 0.0


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Run what standard input orders."""
    order = Order(**json.loads(sys.stdin.readline()))
    # A triggerer's runner logs JSON lines to the process above it. Formatting them is its cost, keeping them is not.
    sink = Path(os.devnull).open("wb", buffering=0)  # noqa: SIM115 - Airflow logs to it to the very end
    reset_logging()  # type: ignore[no-untyped-call]
    configure_logging(json_output=True, output=sink, sending_to_supervisor=True)
    runner = Runner(order)
    runner.run()  # type: ignore[no-untyped-call]
    if runner.measurement.cancelled():
        sys.exit("interrupted")
    print(json.dumps(asdict(runner.measurement.result())))


if __name__ == "__main__":
    main()
