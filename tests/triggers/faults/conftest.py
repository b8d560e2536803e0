"""The time in which a scene with faults is played, and its connection."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import pytest

from airflow_provider_astrobpm.bpm import poller
from airflow_provider_astrobpm.bpm.aio_transport import AsyncTransport
from airflow_provider_astrobpm.bpm.token import TOKENS
from airflow_provider_astrobpm.emulator.remote import EmulatorControl, EmulatorError
from airflow_provider_astrobpm.emulator.running import EmulatorServer
from airflow_provider_astrobpm.hooks.connection import settings_from
from tests.support.virtual_time import SkippingLoop
from tests.triggers.faults.helpers import (
    Connect,
    Play,
    nothing_was_written,
)

T = TypeVar("T")


def played(loop: asyncio.AbstractEventLoop, scene: Coroutine[Any, Any, T]) -> T:
    """Run a scene as ``asyncio.run`` does, in a loop of one's own."""

    async def play() -> T:
        try:
            return await scene
        finally:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await loop.shutdown_asyncgens()
            await loop.shutdown_default_executor()

    try:
        return loop.run_until_complete(play())
    finally:
        loop.close()


@pytest.fixture
def connect(emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Set the connection, with these extras. ``answer_timeout``, which is no extra, may be among them."""

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
    """Let every fault be a failed look, unless a test says otherwise."""
    connect(max_attempts=1, instance_lookup="list")


@pytest.fixture
def real_time(emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Play a scene in real time; the first look comes at once."""
    monkeypatch.setattr(poller, "Poller", partial(poller.Poller, jitter=lambda: 0.0))

    def play(scene: Coroutine[Any, Any, T]) -> T:
        result = asyncio.run(scene)
        nothing_was_written(emulator)
        return result

    return play


@pytest.fixture
def fast_time(emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Play a scene in a loop that skips what nobody has to wait for; the first look comes at once."""
    owed = 0.0

    def passes(seconds: float) -> None:
        nonlocal owed
        owed += seconds
        try:
            emulator.advance(owed)
        except EmulatorError:
            return  # it does not listen; it learns of it later
        owed = 0.0

    loop = SkippingLoop(passes)
    send = AsyncTransport.send

    async def send_in_real_time(self: AsyncTransport, request: Any) -> Any:
        loop.under_way += 1
        try:
            return await send(self, request)
        finally:
            loop.under_way -= 1

    monkeypatch.setattr(AsyncTransport, "send", send_in_real_time)
    monkeypatch.setattr(TOKENS, "_clock", lambda: time.monotonic() + loop.ahead)
    monkeypatch.setattr(
        poller,
        "Poller",
        partial(poller.Poller, clock=lambda: time.time() + loop.ahead, jitter=lambda: 0.0),
    )

    def play(scene: Coroutine[Any, Any, T]) -> T:
        result = played(loop, scene)
        nothing_was_written(emulator)
        return result

    return play
