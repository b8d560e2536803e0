"""The measured process: a triggerer with many waiting triggers.

It runs Airflow's own ``TriggerRunner``. Only the parent process is replaced, by ``Supervisor``, which hands out triggers at
the pace of the real one. Airflow's code creates, runs and cancels them.

It reads the workload from standard input and prints the cost, both as JSON. Each measurement is a new process, so that it
starts without remains of the previous one.
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
from benchmarks.waiting.workload import Cost, Workload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


# The default of [triggerer] max_trigger_to_select_per_loop; a loop takes about a second.
NEW_TRIGGERS_PER_LOOP = 50
TICK_SECONDS = 0.01
# The share of the time for finding blocks. It precedes the measurement, because its CPU time must not be counted.
SHARE_FOR_BLOCKS = 0.25
SCHEDSTAT = Path("/proc/thread-self/schedstat")
CHECK_INTERVAL_SECONDS = 0.25
TIMEOUT_SECONDS = 900.0


class IdleTrigger(BaseTrigger):
    """A trigger that only waits. Its cost is Airflow's own cost of a waiting task."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return "benchmarks.waiting.runner.IdleTrigger", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait forever."""
        await asyncio.Event().wait()
        yield TriggerEvent(None)  # type: ignore[no-untyped-call]


class Supervisor:
    """Replace the parent process of the runner: hand out triggers, and keep their events and failures.

    It reads the arguments of each trigger only when it hands it out, so that they use no extra memory.
    """

    def __init__(self, work: Workload) -> None:
        self._work = work
        self._created = 0
        self._to_cancel: set[int] = set()
        self.returned: list[str] = []
        self.instance: uuid.UUID | None = None
        # If this task ended, the runner would assume that its supervisor is gone.
        self._reader_task = asyncio.create_task(asyncio.Event().wait())

    def cancel_all(self) -> None:
        """Make the runner cancel every trigger, as if a user had ended all tasks."""
        self._to_cancel = set(range(1, self._work.count + 1))

    async def asend(self, message: object) -> messages.TriggerStateSync | None:
        """Respond to the runner."""
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
        for line in islice(sys.stdin, NEW_TRIGGERS_PER_LOOP):
            self._created += 1
            to_create.append(self._workload(self._created, json.loads(line)))
            # The real supervisor does this in its own process, so it must not count as a block of this loop.
            await asyncio.sleep(0)
        to_cancel, self._to_cancel = self._to_cancel, set()
        return messages.TriggerStateSync(to_create=to_create, to_cancel=to_cancel)

    def send(self, message: object) -> None:
        """Respond to a request of a trigger. There are few, because connections come from the environment."""
        if not isinstance(message, MaskSecret):
            raise TypeError(f"nothing here answers {message!r}")

    def _workload(self, number: int, kwargs: dict[str, Any]) -> RunTrigger:
        task = TaskInstanceDTO(
            id=self.instance or uuid.uuid4(),
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
            classpath=self._work.classpath,
            encrypted_kwargs=Trigger.encrypt_kwargs(kwargs),
            ti=task,
        )


class Ticker:
    """Measure the delay of the event loop by waking up often, which costs more CPU time than many triggers do.

    The time in which the machine had no free CPU for the loop is excluded, because it says nothing about the triggers.
    """

    def __init__(self) -> None:
        self._worst = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start measuring."""
        self._task = asyncio.create_task(self._run())

    def take(self) -> float:
        """Return the longest delay since the last call, in seconds."""
        worst, self._worst = self._worst, 0.0
        return worst

    def stop(self) -> None:
        """Stop measuring."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            begin = time.perf_counter() - _kept_waiting()
            await asyncio.sleep(TICK_SECONDS)
            late = time.perf_counter() - _kept_waiting() - begin - TICK_SECONDS
            self._worst = max(self._worst, late)


class Runner(TriggerRunner):
    """Airflow's trigger runner, under a supervisor that measures it."""

    supervisor: Supervisor
    measurement: asyncio.Task[Cost]

    def __init__(self, work: Workload) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._work = work
        self._control = EmulatorControl(work.control)
        self._ticker = Ticker()
        self._poll_seconds: list[float] = []

    async def init_comms(self) -> None:
        """Connect to the supervisor, and start measuring."""
        if self._work.time_polls:
            _time_polls(self._poll_seconds)
        self.supervisor = Supervisor(self._work)
        self.comms_decoder = task_runner.SUPERVISOR_COMMS = cast("Any", self.supervisor)
        self.measurement = asyncio.create_task(self._measure())

    async def _measure(self) -> Cost:
        try:
            self._ticker.start()
            start = await self._started()
            start_block = self._ticker.take()
            await asyncio.sleep(self._work.seconds * SHARE_FOR_BLOCKS)
            block = self._ticker.take()
            self._ticker.stop()
            cost = await self._steady(start, start_block, block)
            await self._stopped()
            return cost
        finally:
            self._ticker.stop()
            os.kill(os.getpid(), signal.SIGTERM)  # this is how a triggerer is stopped

    async def _started(self) -> float:
        """Wait until all triggers run and have polled, and return the seconds that this took."""
        begin = time.monotonic()
        await self._until(lambda: len(self.triggers) == self._work.count, "all triggers ran")
        seen = await self._requests()
        await asyncio.sleep(self._work.settle)
        while await self._requests() - seen < self._work.min_requests:
            if time.monotonic() > begin + TIMEOUT_SECONDS:
                raise TimeoutError(f"not every trigger had polled after {TIMEOUT_SECONDS:g} s")
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)
        return time.monotonic() - begin

    async def _steady(self, start: float, start_block: float, block: float) -> Cost:
        seen = await self._requests()
        self._poll_seconds.clear()
        begin, cpu = time.monotonic(), cpu_seconds()
        await asyncio.sleep(self._work.seconds)
        seconds, cpu = time.monotonic() - begin, cpu_seconds() - cpu
        memory = psutil.Process().memory_info().rss
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        requests = await self._requests() - seen
        poll = sum(self._poll_seconds) / len(self._poll_seconds) if self._poll_seconds else 0.0
        if self.supervisor.returned or len(self.triggers) != self._work.count:
            raise RuntimeError(f"triggers ended that should have waited: {self.supervisor.returned[:3]}")
        return Cost(seconds, requests, cpu, memory, peak, block, start_block, start, poll)

    async def _stopped(self) -> None:
        self.supervisor.cancel_all()
        await self._until(lambda: not self.triggers, "all triggers were cancelled")
        if self.supervisor.returned:
            raise RuntimeError(f"some triggers could not be cancelled: {self.supervisor.returned[:3]}")

    async def _until(self, reached: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not reached():
            if self.supervisor.returned:
                raise RuntimeError(f"before {what}: {self.supervisor.returned[0]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{TIMEOUT_SECONDS:g} s passed before {what}")
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)

    async def _requests(self) -> int:
        return sum((await asyncio.to_thread(self._control.counts)).values())


def _time_polls(durations: list[float]) -> None:
    """Record the duration of each poll. The poller calls ``run`` once for each poll, and once for a token renewal."""
    from airflow_provider_astrobpm.client.async_client import AsyncBpmClient  # noqa: PLC0415 - not in the other contenders' memory

    run = AsyncBpmClient.run

    async def timed_run(client: AsyncBpmClient, plan: Any) -> Any:
        begin = time.perf_counter()
        try:
            return await run(client, plan)
        finally:
            durations.append(time.perf_counter() - begin)

    AsyncBpmClient.run = timed_run  # type: ignore[method-assign,assignment]


def _kept_waiting() -> float:
    """Return the seconds for which this thread was ready to run but had no CPU; 0 if the system does not report it."""
    try:
        return int(SCHEDSTAT.read_bytes().split()[1]) / 1e9
    except OSError:
        return 0.0


def cpu_seconds() -> float:
    """Return the user and system CPU time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Run the workload from standard input."""
    work = Workload(**json.loads(sys.stdin.readline()))
    # The runner of a triggerer logs JSON lines to its parent process. Formatting them is part of its cost, storing is not.
    sink = Path(os.devnull).open("wb", buffering=0)  # noqa: SIM115 - Airflow logs to it until the process ends
    reset_logging()  # type: ignore[no-untyped-call]
    configure_logging(json_output=True, output=sink, sending_to_supervisor=True)
    runner = Runner(work)
    runner.run()  # type: ignore[no-untyped-call]
    if runner.measurement.cancelled():
        sys.exit("interrupted")
    print(json.dumps(asdict(runner.measurement.result())))


if __name__ == "__main__":
    main()
