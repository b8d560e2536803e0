"""Shared by the tests of faults: a trigger that waits for an approval, its requests and its log."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import pytest

from airflow_provider_astrobpm.client import errors, operations
from airflow_provider_astrobpm.client.errors import AstroZeroError
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.states import STATES
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmInstanceTrigger
from airflow_provider_astrobpm.waiting import event_payload
from tests.support.virtual_time import SkippingLoop

T = TypeVar("T")
RunScenario = Callable[[Coroutine[Any, Any, Any]], Any]
Connect = Callable[..., None]

READS = {"token", "query", "get"}
WAITING = "Waiting for user interaction"
LAST_STATE = list(STATES)[-1]  # of a complete poll
FAIL, SUCCEED = "Polls are failing", "Polls succeed again"
NOTES = (FAIL, SUCCEED, "polling again", "The connection has changed", "The wait could not continue")
FOR_EVER = 100_000
LOOKUPS = [("list", "absent"), ("auto", "absent"), ("auto", "row"), ("by_id", "row"), ("by_id", "action")]


class ApprovalWait:
    """A trigger that waits for an approval, in the running event loop.

    A kill may terminate its instance. No fault may ever do so.
    """

    def __init__(self, instance_id: str | None = None, **arguments: Any) -> None:
        self.trigger = AstroZeroBpmInstanceTrigger(
            astro_zero_conn_id="astro_zero_default",
            instance_id=instance_id,
            **{"bp_statuses": ["Approved"], "poll_interval": 1, "terminate_on_kill": True, **arguments},
        )
        self.fired_at = 0.0
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> Any:
        async with aclosing(self.trigger.run()) as events:  # type: ignore[type-var]
            payload = (await events.__anext__()).payload
            self.fired_at = now()
        return payload

    async def end(self) -> BpmInstance | AstroZeroError:
        """Return how the wait ends, as its task reads the event."""
        flies = isinstance(asyncio.get_running_loop(), SkippingLoop)
        payload = await asyncio.wait_for(self._task, 3600 if flies else 60)
        if self.trigger._poller is not None:
            await self.trigger._poller.ended()
        return event_payload.load(json.loads(json.dumps(payload)))

    async def succeeds(self) -> None:
        """Check that the wait succeeds."""
        end = await self.end()
        assert isinstance(end, BpmInstance), end
        assert (end.state, end.bp_status) == ("Completed OK", "Approved")

    async def fails(self, kind: type[AstroZeroError], *words: str) -> None:
        """Check that the wait fails with an error that contains these words."""
        end = await self.end()
        assert type(end) is kind, end
        assert end.connection == "astro_zero_default" or kind is errors.WaitFailedError
        for each in words:
            assert each in str(end)

    @property
    def has_fired(self) -> bool:
        return self._task.done()

    @property
    def failed_polls(self) -> int:
        return self.trigger._poller._failures.in_a_row if self.trigger._poller else 0


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait until something has happened."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        assert loop.time() < deadline
        await asyncio.sleep(0.1)


def now() -> float:
    """Return the time on the trigger's clock, in seconds since the epoch."""
    loop = asyncio.get_running_loop()
    return loop.wall_time() if isinstance(loop, SkippingLoop) else time.time()


def polls(emulator: EmulatorControl) -> int:
    """Return how often the state was queried that nearly all instances of these tests are in."""
    return sum(query(WAITING) == request["query"].partition("&")[0] for request in emulator.requests())


def query(state: str) -> str:
    return operations.query(state).target.partition("?")[2].partition("&")[0]


def states_asked(emulator: EmulatorControl) -> list[str]:
    known = {query(state): state for state in STATES}
    return [known[each["query"].partition("&")[0]] for each in emulator.requests() if each["kind"] == "query"]


def requests_sent(emulator: EmulatorControl) -> int:
    return sum(emulator.counts().values())


def waiting(emulator: EmulatorControl, **arguments: Any) -> str:
    """Start an instance and let it reach the state in which it waits for a user."""
    instance_id: str = emulator.start("PublishApproval", **arguments)["id"]
    assert emulator.instance(instance_id)["state"] == WAITING
    return instance_id


def notes(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the log lines about polls, in order."""
    lines = capsys.readouterr().out.splitlines()
    return [note for line in lines for note in NOTES if note in line]


def assert_nothing_was_written(emulator: EmulatorControl) -> None:
    assert {kind for kind, number in emulator.counts().items() if number} <= READS


def status(code: int, **parameters: Any) -> dict[str, Any]:
    return {"fault": "status", "status": code, **parameters}


@asynccontextmanager
async def outage(mode: str, server: EmulatorServer) -> AsyncIterator[None]:
    if mode == "not listening":
        with server.unreachable():
            yield
    else:
        server.control.outage(mode=mode)  # type: ignore[arg-type]
        yield
        server.control.outage(False)
