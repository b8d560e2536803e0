"""Long lists are read in a thread, so that the event loop of a triggerer continues."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_astrobpm.client import async_client, operations
from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.operations import Flow
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.waiting import poller
from airflow_provider_astrobpm.waiting.poller import Poller
from airflow_provider_astrobpm.watching.targets import WatchTargets
from airflow_provider_astrobpm.watching.watch import Watch

PROCESS = "PublishApproval"
STATE = "Waiting for user interaction"
PATIENCE = 30.0  # seconds until the event loop must have run something else


@pytest.fixture
def settings(emulator_server: EmulatorServer, emulator: EmulatorControl) -> Settings:
    """A connection to an emulator with two instances."""
    for _ in range(2):
        emulator.start(PROCESS)
    known = emulator_server.settings
    return Settings("my_conn", emulator_server.url, ClientCredentials(known.client_id, known.client_secret))


class BusyReader:
    """Code that reads rows, and needs the event loop to run something meanwhile."""

    def __init__(self) -> None:
        self.continued: list[bool] = []
        self.in_loop: list[bool] = []
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def read(self) -> None:
        self.in_loop.append(threading.get_ident() == self._thread)
        if not self.in_loop[-1]:
            ran = threading.Event()
            self._loop.call_soon_threadsafe(ran.set)
            self.continued.append(ran.wait(PATIENCE))


@pytest.mark.parametrize(("longest", "in_loop"), [(1, False), (2, True)])
def test_a_flow_takes_a_long_list_in_a_thread(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, longest: int, in_loop: bool
) -> None:
    monkeypatch.setattr(async_client, "MAX_INLINE_ROWS", longest)

    def flow(reader: BusyReader) -> Flow[int]:
        rows = yield operations.query(STATE)
        reader.read()
        return len(rows)

    async def main() -> None:
        reader = BusyReader()
        async with AsyncBpmClient(settings) as client:
            assert await client.run(flow(reader)) == 2
        assert reader.in_loop == [in_loop]
        assert all(reader.continued)

    asyncio.run(main())


@pytest.mark.parametrize(("longest", "in_loop"), [(1, False), (2, True)])
def test_a_watch_sorts_long_lists_in_a_thread(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, longest: int, in_loop: bool
) -> None:
    monkeypatch.setattr(poller, "MAX_ROWS_SORTED_INLINE", longest)

    async def main() -> None:
        reader = BusyReader()
        watch = Watch(WatchTargets.of(PROCESS, [STATE], None), [])
        _before(monkeypatch, "entry_keys_of", reader.read)
        polls = Poller(AsyncBpmClient(settings), jitter=lambda: 0.0)
        async with polls.join(watch, interval=1, connection="my_conn") as subscription:
            await subscription.notes()
        await polls.ended()
        assert reader.in_loop == [in_loop] * 2
        assert all(reader.continued)
        assert len(watch.entries) == 2

    asyncio.run(main())


def test_a_watch_sorts_long_lists_itself_if_no_thread_can_be_started(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller, "MAX_ROWS_SORTED_INLINE", 1)

    def refuse(_executor: object, _call: Callable[..., Any], *_arguments: Any) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        reader = BusyReader()
        watch = Watch(WatchTargets.of(PROCESS, [STATE], None), [])
        _before(monkeypatch, "entry_keys_of", reader.read)
        client = AsyncBpmClient(settings)
        await client.call(operations.query(STATE))  # finds its route in a thread
        polls = Poller(client, jitter=lambda: 0.0)
        async with polls.join(watch, interval=1, connection="my_conn") as subscription:
            with monkeypatch.context() as patch:
                patch.setattr(asyncio.get_running_loop(), "run_in_executor", refuse)
                await subscription.notes()
        await polls.ended()
        assert reader.in_loop == [True] * 2
        assert len(watch.entries) == 2

    asyncio.run(main())


def test_a_watch_that_left_while_its_rows_were_sorted_is_not_judged(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller, "MAX_ROWS_SORTED_INLINE", 1)

    async def main() -> None:
        sorting, left = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def until_it_left() -> None:
            loop.call_soon_threadsafe(sorting.set)
            assert left.wait(PATIENCE)

        _before(monkeypatch, "entry_keys_of", until_it_left)
        watch = Watch(WatchTargets.of(PROCESS, [STATE], None), [])
        other = Watch(WatchTargets.of("Other", [STATE], None))
        polls = Poller(AsyncBpmClient(settings), jitter=lambda: 0.0)
        async with polls.join(watch, interval=1, connection="my_conn") as first:
            second = polls.join(other, interval=1, connection="my_conn")
            await asyncio.wait_for(sorting.wait(), PATIENCE)
            polls.leave(first)
            left.set()
            assert len(await second.notes()) == 1
            polls.leave(second)
        await polls.ended()
        assert watch.polls == 0

    asyncio.run(main())


def _before(monkeypatch: pytest.MonkeyPatch, method: str, do: Callable[[], None]) -> None:
    """Call a function before each call of a method of watch targets."""
    called = getattr(WatchTargets, method)

    def wrapped(targets: WatchTargets, row: BpmInstance, *more: Any) -> Any:
        do()
        return called(targets, row, *more)

    monkeypatch.setattr(WatchTargets, method, wrapped)
