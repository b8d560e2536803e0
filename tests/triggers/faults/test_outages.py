"""Outages, and a server that asks to be left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from itertools import pairwise
from typing import Any

import pytest

from airflow_provider_astrobpm.bpm import errors
from airflow_provider_astrobpm.bpm.findings import MOST_IN_VAIN
from airflow_provider_astrobpm.bpm.token import TOKENS
from airflow_provider_astrobpm.emulator.remote import EmulatorControl
from airflow_provider_astrobpm.emulator.running import EmulatorServer
from tests.triggers.faults.helpers import (
    FAIL,
    SUCCEED,
    Connect,
    Gate,
    Play,
    looks,
    notes,
    nothing_was_written,
    now,
    outage,
    requests_sent,
    status,
    until,
    waiting,
)


@pytest.mark.parametrize("mode", ["cut", "503", "not listening"])
def test_a_short_outage(
    mode: str,
    real_time: Play,
    emulator: EmulatorControl,
    emulator_server: EmulatorServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id)
        await until(lambda: looks(emulator))
        async with outage(mode, emulator_server):
            await until(lambda: gate.failed_looks)
        emulator.act(instance_id, "approve")
        await gate.opens()

    real_time(scene())
    assert notes(capsys) == [FAIL, SUCCEED]


@pytest.mark.parametrize("extra", [{}, {"max_attempts": 1, "instance_lookup": "list"}], ids=["auto", "list"])
@pytest.mark.parametrize("interval", [1, 30])
@pytest.mark.parametrize("mode", ["cut", "503", "not listening"])
def test_an_outage_of_a_minute(
    mode: str,
    interval: float,
    extra: dict[str, Any],
    fast_time: Play,
    emulator: EmulatorControl,
    emulator_server: EmulatorServer,
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connect(**extra)

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=interval)
        await until(lambda: looks(emulator))
        async with outage(mode, emulator_server):
            await asyncio.sleep(60)
            assert not gate.has_fired
        emulator.act(instance_id, "approve")
        closed = now()
        await gate.opens()
        # While looks fail, the pauses between them grow, to a minute at most.
        assert now() - closed <= 62

    fast_time(scene())
    assert notes(capsys) == [FAIL, SUCCEED]


def test_polls_fail_and_succeed_again_and_again(
    fast_time: Play, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each stretch is counted anew, and each change is told once, not each look."""

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=5)
        for _ in range(3):
            emulator.outage(mode="503")
            await asyncio.sleep(300)
            assert gate.failed_looks > 3
            emulator.outage(False)
            await asyncio.sleep(90)
            assert gate.failed_looks == 0
        emulator.act(instance_id, "approve")
        await gate.opens()

    fast_time(scene())
    assert notes(capsys) == [FAIL, SUCCEED] * 3


@pytest.mark.parametrize("mode", ["cut", "503"])
def test_an_outage_that_lasts(
    mode: Any, fast_time: Play, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    """It fails the wait after the ten minutes that are the default, not sooner and not much later."""

    async def scene() -> None:
        gate = Gate(waiting(emulator))
        await until(lambda: looks(emulator))
        emulator.outage(mode=mode)
        began = now()
        await asyncio.sleep(595)
        assert not gate.has_fired
        kind = errors.ServerError if mode == "503" else errors.InterruptedCallError
        await gate.fails(kind, "polls have failed for 600 s ('max_poll_failure_time')")
        assert 600 <= now() - began < 603

    fast_time(scene())
    assert notes(capsys) == [FAIL]


def test_an_outage_that_ends_just_in_time(
    fast_time: Play, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id)
        await until(lambda: looks(emulator))
        emulator.outage(mode="503")
        await asyncio.sleep(595)
        emulator.outage(False)
        emulator.act(instance_id, "approve")
        await gate.opens()

    fast_time(scene())
    assert notes(capsys) == [FAIL, SUCCEED]


def test_a_deadline_in_an_outage_is_a_time_out(fast_time: Play, emulator: EmulatorControl) -> None:
    async def scene() -> None:
        deadline = now() + 100
        gate = Gate(waiting(emulator), deadline=deadline)
        await until(lambda: looks(emulator))
        emulator.outage()
        await gate.fails(
            errors.WaitTimeoutError,
            "last seen: instance",
            "polls have failed since",
            "Could not list the instances in state 'Waiting for user interaction' on connection 'astro_zero_default'",
        )
        assert 0 <= now() - deadline < 2

    fast_time(scene())


def test_an_outage_costs_the_server_as_much_for_fifty_as_for_one(
    fast_time: Play,
    emulator: EmulatorControl,
    record_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def cost(number: int) -> int:
        emulator.reset()
        TOKENS.clear()
        ids = [waiting(emulator) for _ in range(number)]
        gates = [Gate(each) for each in ids]
        await until(lambda: looks(emulator))
        before = requests_sent(emulator)
        emulator.outage(mode="503")
        await asyncio.sleep(120)
        spent = requests_sent(emulator) - before
        emulator.outage(False)
        for each in ids:
            emulator.act(each, "approve")
        await asyncio.gather(*[gate.opens() for gate in gates])
        assert notes(capsys).count(FAIL) == number  # each task's own log tells it
        nothing_was_written(emulator)
        return spent

    async def scene() -> tuple[int, int]:
        return await cost(1), await cost(50)

    for_one, for_fifty = fast_time(scene())
    record_property("requests", (for_one, for_fifty))
    # Fifty may have been seen in two states, and a poll gives up after that many lists that fail.
    assert for_one <= for_fifty <= MOST_IN_VAIN * for_one


# A server that asks to be left alone.


def around(emulator: EmulatorControl, refused: int) -> tuple[float, float]:
    """Return when the request came that was answered with this status, and when the one after it."""
    ((before, after),) = [
        (before["at"], after["at"])
        for before, after in pairwise(emulator.requests())
        if before["status"] == refused
    ]
    return before, after


def test_retry_after(real_time: Play, emulator: EmulatorControl) -> None:
    async def scene() -> None:
        instance_id = waiting(emulator)
        emulator.fault("query", **status(429, retry_after=3))
        gate = Gate(instance_id)
        await until(lambda: not emulator.faults())
        emulator.act(instance_id, "approve")
        await gate.opens()

    real_time(scene())
    refused_at, asked_again_at = around(emulator, 429)
    assert 3 <= asked_again_at - refused_at < 5


@pytest.mark.parametrize(
    ("asked", "extra"), [(100, {"max_attempts": 1}), (20, {}), (3600, {"max_attempts": 1})]
)
@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("code", [429, 503])
def test_a_long_retry_after_holds_for_those_who_come_later_too(
    code: int,
    form: str,
    asked: int,
    extra: dict[str, Any],
    fast_time: Play,
    emulator: EmulatorControl,
    connect: Connect,
) -> None:
    """Only where it asks for more than ten minutes, the next look comes after ten."""
    connect(instance_lookup="list", **extra)

    async def scene() -> None:
        instance_id = waiting(emulator)
        gates = [Gate(instance_id, max_poll_failure_time=10_000)]
        await until(lambda: looks(emulator))
        date = int(now()) + asked + 1
        retry_after = asked if form == "seconds" else formatdate(date, usegmt=True)
        emulator.fault("query", **status(code, retry_after=retry_after))
        await until(lambda: not emulator.faults())
        gates.append(Gate(instance_id))
        emulator.act(instance_id, "approve")
        await asyncio.gather(*[gate.opens() for gate in gates])
        refused_at, asked_again_at = around(emulator, code)
        asked_until = refused_at + asked if form == "seconds" else date
        earliest = min(asked_until, refused_at + 600)
        assert earliest - 0.05 <= asked_again_at < earliest + 2

    fast_time(scene())
