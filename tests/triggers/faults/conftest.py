"""Runs a scenario with faults in real or skipped time, and sets its connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from airflow_provider_astrobpm.client.async_transport import AsyncTransport
from airflow_provider_astrobpm.client.tokens import TOKENS
from airflow_provider_astrobpm.emulator import web_app
from airflow_provider_astrobpm.emulator.clock import VirtualClock
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.hooks.connection import settings_from
from airflow_provider_astrobpm.waiting import poller
from tests.support.virtual_time import SkippingLoop
from tests.triggers.faults.helpers import (
    Connect,
    RunScenario,
    assert_nothing_was_written,
)

T = TypeVar("T")


def run_in(loop: asyncio.AbstractEventLoop, scenario: Coroutine[Any, Any, T]) -> T:
    """Run a scenario like ``asyncio.run``, in the given loop."""

    async def run() -> T:
        try:
            return await scenario
        finally:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await loop.shutdown_asyncgens()
            await loop.shutdown_default_executor()

    try:
        return loop.run_until_complete(run())
    finally:
        loop.close()


@pytest.fixture
def connect(emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Set the connection, with these extras and optionally ``answer_timeout``, which is not an extra."""

    def set_connection(*, password: str | None = None, **extra: Any) -> None:
        if "answer_timeout" in extra:
            short = extra.pop("answer_timeout")
            monkeypatch.setattr(
                "airflow_provider_astrobpm.hooks.astro_zero.settings_from",
                lambda connection: replace(settings_from(connection), answer_timeout=short),
            )
        connection = {**json.loads(emulator_server.connection_json()), "extra": extra}
        if password is not None:
            connection["password"] = password
        monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))

    return set_connection


@pytest.fixture(autouse=True)
def _one_attempt(emulator: EmulatorControl, connect: Connect) -> None:
    """Make every fault fail a poll, unless a test changes that."""
    connect(max_attempts=1, instance_lookup="list")


@pytest.fixture
def real_time(emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch) -> RunScenario:
    """Run a scenario in real time; the first poll comes at once."""
    monkeypatch.setattr(poller, "Poller", partial(poller.Poller, jitter=lambda: 0.0))

    def run(scenario: Coroutine[Any, Any, T]) -> T:
        result = asyncio.run(scenario)
        assert_nothing_was_written(emulator)
        return result

    return run


@pytest.fixture
def fast_time(emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch) -> RunScenario:
    """Run a scenario in a loop that skips idle time; the first poll comes at once.

    The emulator and the poller take their time from the loop, so that only the loop decides when time passes.
    """
    loop = SkippingLoop()
    send = AsyncTransport.send

    async def send_in_real_time(self: AsyncTransport, request: Any) -> Any:
        loop.under_way += 1
        try:
            return await send(self, request)
        finally:
            loop.under_way -= 1

    async def hold_back(seconds: float) -> None:
        loop.held_back += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            loop.held_back -= 1

    monkeypatch.setattr(AsyncTransport, "send", send_in_real_time)
    monkeypatch.setattr(web_app, "asyncio", SimpleNamespace(sleep=hold_back))
    monkeypatch.setattr(VirtualClock, "__call__", lambda clock: loop.wall_time() + clock.ahead)
    monkeypatch.setattr(TOKENS, "_clock", loop.time)
    monkeypatch.setattr(poller, "Poller", partial(poller.Poller, clock=loop.wall_time, jitter=lambda: 0.0))

    def run(scenario: Coroutine[Any, Any, T]) -> T:
        result = run_in(loop, scenario)
        assert_nothing_was_written(emulator)
        return result

    return run
