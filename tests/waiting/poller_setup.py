"""Shared by the tests of the poller: a poller with its server, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_astrobpm.client import errors, process_state
from airflow_provider_astrobpm.waiting.condition import WaitCondition
from airflow_provider_astrobpm.waiting.poller import Poller, PollerRegistry
from airflow_provider_astrobpm.waiting.wait import BaseWait, InstanceWait
from tests.support.memory_server import Client, Server, settings
from tests.support.virtual_time import VirtualLoop

HOUR = 3600.0


class PollerSetup:
    """A poller with its server and its waits. Create it in a running loop; that is time 0 of its polls."""

    def __init__(self, *, jitter: float = 0.0, pollers: PollerRegistry | None = None) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.loop = loop
        self.began = loop.now
        self.server = Server(loop)
        self.client = Client(settings(), self.server)
        if pollers:
            self.poller = pollers.get(settings(), lambda _: self.client)
        else:
            self.poller = Poller(self.client, clock=self.server.clock, jitter=lambda: jitter)
        self.ended: list[str] = []
        self.notes: list[str] = []

    def wait(
        self, instance_id: str | None = "1", *, deadline: float | None = None, **options: Any
    ) -> InstanceWait:
        by = None if deadline is None else self.server.clock() + deadline
        return InstanceWait(
            options.pop("condition", WaitCondition()), instance_id=instance_id, deadline=by, **options
        )

    def join(
        self, awaited: BaseWait[Any], interval: float = 10, connection: str = "first_conn"
    ) -> asyncio.Task[Any]:
        """Wait like a trigger."""
        return self.loop.create_task(self._wait(awaited, interval, connection))

    async def _wait(self, awaited: BaseWait[Any], interval: float, connection: str) -> Any:
        async with self.poller.join(awaited, interval=interval, connection=connection) as subscription:
            while awaited.ending is None:
                self.notes += [note.text for note in await subscription.notes()]
        self.ended.append(connection)
        return awaited.ending

    def polled_at(self) -> list[float]:
        """Return when the polls began."""
        return [round(poll.began - self.began, 3) for poll in self.client.polls]

    def requests_per_poll(self) -> list[int]:
        """Return how many requests each poll took."""
        return [len(poll.asked) for poll in self.client.polls]


async def leave(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def fault(kind: type[errors.CallError], retry_after: str | None = None) -> Callable[[], Exception]:
    def make() -> Exception:
        error = kind("injected")
        error.retry_after = retry_after
        return error

    return make


@pytest.fixture(autouse=True)
def forget_other_tests() -> None:
    process_state.reset()
