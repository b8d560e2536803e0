"""The subjects of histories: one start, and a batch. A try runs as in the operators, with server and store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any, Protocol

import msgspec

from airflow_provider_astrobpm.batches.batch_input import Launch
from airflow_provider_astrobpm.batches.batch_record import BatchRecord, BatchRequest
from airflow_provider_astrobpm.batches.batch_run import BatchRun
from airflow_provider_astrobpm.batches.batch_sender import BatchSender
from airflow_provider_astrobpm.client import operations, process_state
from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
from airflow_provider_astrobpm.client.errors import AstroZeroError
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.operations import Operation, Sleep
from airflow_provider_astrobpm.client.search import find_by_id
from airflow_provider_astrobpm.client.settings import Settings, StaticToken
from airflow_provider_astrobpm.client.states import StateClass, class_of
from airflow_provider_astrobpm.starting.business_keys import BatchKey, Region, TaskIdentity
from airflow_provider_astrobpm.starting.decision import StartRecord, StartRequest
from airflow_provider_astrobpm.starting.instance_starter import InstanceStarter
from airflow_provider_astrobpm.starting.try_record import TryRecord
from airflow_provider_astrobpm.starting.try_request import TaskTry
from tests.starting.history import GRACE, History
from tests.support.virtual_time import VirtualLoop

NAME = "Approval"
AUTHORS_KEY = "order 4711"
URL = "https://history"


class Died(BaseException):
    """The process was killed."""


Outcome = tuple[dict[int, BpmInstance], frozenset[int]]
"""The instances of a try by the numbers of the launches, and the launches that have met the condition before."""


class Process(Protocol):
    """The process of one try. All effects go through it, and it may be killed at each of them."""

    this: TaskTry
    elapsed: float

    def clock(self) -> float:
        """Return the time, in seconds since the epoch."""

    def remember(self, record: Any) -> None:
        """Store a record."""

    def call(self, operation: Operation[Any]) -> Generator[float, None, Any]:
        """Send a call and resend it if allowed. Yields seconds to sleep, and returns the answer."""

    def send(self, operation: Operation[Any]) -> Generator[float, None, Any]:
        """Send a call once."""


def identity_of(run_id: str, iteration: int | None) -> TaskIdentity:
    """Return the identity of the task.

    :param iteration: the iteration of its loop; ``None`` outside of loops.
    """
    region = None if iteration is None else Region("01a22064-3a54-7e6c-8d88-3d22bab58d7d", iteration)
    return TaskIdentity("orders", run_id, "approve", region=region)


class One:
    """One start, as by the start operator."""

    kind: type[TryRecord] = StartRecord

    def __init__(self, history: History) -> None:
        self._history = history
        self.authors_keys = {1: AUTHORS_KEY} if history.mode else {}

    def change_input(self, number: int) -> None:
        """Change nothing, because there are no launches."""

    def key(self, identity: TaskIdentity, generation: int, launch: int) -> str:
        """Return the key that the task makes for a launch."""
        del launch
        return identity.key(generation)

    def launch_of(self, body: Any) -> int:
        """Return the launch of a start."""
        del body
        return 1

    def accepts(self, instance: BpmInstance) -> bool:
        """Return whether a closed instance has succeeded, for the task."""
        return instance.state == "Completed OK" if self._history.waits else True

    def run(self, process: Process, record: StartRecord | None) -> Outcome:
        """Run the try up to its wait."""
        history = self._history
        order = StartRequest(
            start=lambda key: operations.start(NAME, business_key=key),
            bpm_name=NAME,
            **vars(process.this),
            business_key=AUTHORS_KEY if history.mode else None,
            if_open_instance_exists=history.mode or "start",
            keeps_open=history.keeps_open,
            accepts=self.accepts,
            grace=GRACE,
        )
        launcher = InstanceStarter(
            order,
            find=lambda instance_id: find_by_id(instance_id, lookup="list"),
            remember=process.remember,
            log=lambda _note: None,
            clock=process.clock,
        )
        plan = launcher.launch(record)
        reply: Any = None
        error: AstroZeroError | None = None
        while True:
            try:
                step = plan.throw(error) if error else plan.send(reply)
            except StopIteration as stop:
                return {1: stop.value.instance}, frozenset()
            reply, error = None, None
            if isinstance(step, Sleep):
                process.elapsed += step.seconds
                continue
            try:
                reply = _at_once(process, process.call(step))
            except AstroZeroError as failure:
                error = failure

    def after_failure(
        self, record: Any, ending: str, generation: int, launched: dict[int, BpmInstance], met: Any
    ) -> Any:
        """Return the record to store after a failed wait, or ``None`` for no change."""
        del generation, met
        if not launched or record is None or record.instance_id != launched[1].id:
            return None
        return msgspec.structs.replace(record, left_open=ending == "leaves it")

    def tells_of_a_start(self, record: Any) -> float | None:
        """Return the time of the start in a record, if any; 0 if the record only has an instance."""
        if record is None:
            return None
        if record.posted_at is None and record.instance_id is not None:
            return 0.0
        posted_at: float | None = record.posted_at
        return posted_at


class Batch:
    """A batch, as by the batch operator."""

    kind: type[TryRecord] = BatchRecord

    def __init__(self, history: History) -> None:
        self._history = history
        self.authors_keys = {number: f"{AUTHORS_KEY}-{number}" for number in history.own_keys}
        self.change_input(0)

    def change_input(self, number: int) -> None:
        """Change the first launch."""
        history = self._history
        self.launches = [
            Launch(
                at,
                NAME,
                variables={"n": at, "input": number if at == 1 else 0},
                business_key=self.authors_keys.get(at),
            )
            for at in range(1, history.launches + 1)
        ]

    def key(self, identity: TaskIdentity, generation: int, launch: int) -> str:
        """Return the key that the task makes for a launch."""
        return identity.batch_key(BatchKey(generation, launch, self.launches[launch - 1].digest))

    def launch_of(self, body: Any) -> int:
        """Return the launch of a start."""
        number: int = body["variables"]["n"]
        return number

    def accepts(self, instance: BpmInstance) -> bool:
        """Return whether a closed instance has succeeded, for the task."""
        if self._history.waits:
            return instance.state == "Completed OK"
        return class_of(instance.state) is not StateClass.CANCELLED

    def run(self, process: Process, record: BatchRecord | None) -> Outcome:
        """Run the try up to its wait."""
        history = self._history
        order = BatchRequest(
            **vars(process.this),
            keeps_open=history.keeps_open,
            accepts=self.accepts,
            own_keys=self.authors_keys,
            grace=GRACE,
        )
        process_state.reset()  # another process
        with closing(Loop(process)) as loop:
            launcher = BatchRun(
                order,
                lambda: iter(self.launches),
                sender=BatchSender(
                    Client(process, history.max_attempts),
                    max_concurrency=3,
                    grace=GRACE,
                    log=lambda _note: None,
                    clock=process.clock,
                    sleep=asyncio.sleep,
                ),
                remember=process.remember,
                total=len(self.launches) if history.is_checked else None,
            )
            try:
                launched = loop.run_until_complete(launcher.launch(record))
            except BaseException as error:
                for task in asyncio.all_tasks(loop):
                    task.cancel()
                loop.settle()
                loop.settle()
                if isinstance(error, Exception):
                    raise
                raise Died from None  # drop the context, which keeps the loop's tasks alive
            return launched.instances, launched.met

    def after_failure(
        self, record: Any, ending: str, generation: int, launched: dict[int, BpmInstance], met: Any
    ) -> Any:
        """Return the record to store after a failed try, or ``None`` for no change."""
        del ending
        if record is None or record.generation != generation:
            return None
        if self._history.is_permanent:
            met = ()
        return record.failed(unfinished=True, met=met)

    def tells_of_a_start(self, record: Any) -> float | None:
        """Return the time of the first start in a record, if any."""
        posted_at: float | None = None if record is None else record.posted_at
        return posted_at


class Loop(VirtualLoop):
    """An event loop on the clock of a history. It runs work for threads immediately."""

    def __init__(self, process: Process) -> None:
        self._process = process
        at = process.elapsed
        super().__init__()
        self.now = at
        self._clock_resolution = 1e-6  # days may have passed

    @property
    def now(self) -> float:
        return self._process.elapsed

    @now.setter
    def now(self, seconds: float) -> None:
        self._process.elapsed = seconds

    def run_in_executor(  # type: ignore[override]  # only plain functions are passed here
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        """Run the function immediately."""
        del executor
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except BaseException as error:  # noqa: BLE001 - raised where the future is awaited
            future.set_exception(error)
        return future


class Client(AsyncBpmClient):
    """The real client, but with the server of a history instead of HTTP."""

    def __init__(self, process: Process, max_attempts: int) -> None:
        super().__init__(
            Settings("my_conn", URL, StaticToken("t"), instance_lookup="list", max_attempts=max_attempts)
        )
        self._process = process

    async def call(self, operation: Operation[Any]) -> Any:
        return await self._run(self._process.call(operation))

    async def call_once(self, operation: Operation[Any]) -> Any:
        return await self._run(self._process.send(operation))

    @staticmethod
    async def _run(steps: Any) -> Any:
        try:
            while True:
                seconds = next(steps)
                if seconds:
                    await asyncio.sleep(seconds)
        except StopIteration as stop:
            return stop.value


def _at_once(process: Process, steps: Generator[float, None, Any]) -> Any:
    try:
        while True:
            process.elapsed += next(steps)
    except StopIteration as stop:
        return stop.value
