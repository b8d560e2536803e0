"""Outages, and a server that sends Retry-After."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from itertools import pairwise
from typing import Any

import pytest

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.client.search_result import MAX_CONSECUTIVE_FAILURES
from airflow_provider_astrobpm.client.tokens import TOKENS
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from tests.triggers.faults.helpers import (
    FAIL,
    SUCCEED,
    ApprovalWait,
    Connect,
    RunScenario,
    assert_nothing_was_written,
    notes,
    now,
    outage,
    polls,
    requests_sent,
    status,
    until,
    waiting,
)


@pytest.mark.parametrize("mode", ["cut", "503", "not listening"])
def test_survives_a_short_outage(
    mode: str,
    real_time: RunScenario,
    emulator: EmulatorControl,
    emulator_server: EmulatorServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scenario() -> None:
        instance_id = waiting(emulator)
        approval = ApprovalWait(instance_id)
        await until(lambda: polls(emulator))
        async with outage(mode, emulator_server):
            await until(lambda: approval.failed_polls)
        emulator.act(instance_id, "approve")
        await approval.succeeds()

    real_time(scenario())
    assert notes(capsys) == [FAIL, SUCCEED]


@pytest.mark.parametrize("extra", [{}, {"max_attempts": 1, "instance_lookup": "list"}], ids=["auto", "list"])
@pytest.mark.parametrize("interval", [1, 30])
@pytest.mark.parametrize("mode", ["cut", "503", "not listening"])
def test_survives_an_outage_of_a_minute(
    mode: str,
    interval: float,
    extra: dict[str, Any],
    fast_time: RunScenario,
    emulator: EmulatorControl,
    emulator_server: EmulatorServer,
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connect(**extra)

    async def scenario() -> None:
        instance_id = waiting(emulator)
        approval = ApprovalWait(instance_id, poll_interval=interval)
        await until(lambda: polls(emulator))
        async with outage(mode, emulator_server):
            await asyncio.sleep(60)
            assert not approval.has_fired
        emulator.act(instance_id, "approve")
        closed = now()
        await approval.succeeds()
        # While polls fail, the pauses between them grow to a minute at most.
        assert now() - closed <= 62

    fast_time(scenario())
    assert notes(capsys) == [FAIL, SUCCEED]


def test_counts_and_logs_each_outage_separately(
    fast_time: RunScenario, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each outage is counted from its start, and logged once at its start and end."""

    async def scenario() -> None:
        instance_id = waiting(emulator)
        approval = ApprovalWait(instance_id, poll_interval=5)
        for _ in range(3):
            emulator.outage(mode="503")
            await asyncio.sleep(300)
            assert approval.failed_polls > 3
            emulator.outage(False)
            await asyncio.sleep(90)
            assert approval.failed_polls == 0
        emulator.act(instance_id, "approve")
        await approval.succeeds()

    fast_time(scenario())
    assert notes(capsys) == [FAIL, SUCCEED] * 3


@pytest.mark.parametrize("mode", ["cut", "503"])
def test_a_lasting_outage_fails_the_wait_after_ten_minutes(
    mode: Any, fast_time: RunScenario, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default is ten minutes."""

    async def scenario() -> None:
        approval = ApprovalWait(waiting(emulator))
        await until(lambda: polls(emulator))
        emulator.outage(mode=mode)
        began = now()
        await asyncio.sleep(595)
        assert not approval.has_fired
        kind = errors.ServerError if mode == "503" else errors.InterruptedCallError
        await approval.fails(kind, "polls have failed for 600 s ('max_poll_failure_time')")
        assert 600 <= now() - began < 603

    fast_time(scenario())
    assert notes(capsys) == [FAIL]


def test_survives_an_outage_that_ends_just_in_time(
    fast_time: RunScenario, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        instance_id = waiting(emulator)
        approval = ApprovalWait(instance_id)
        await until(lambda: polls(emulator))
        emulator.outage(mode="503")
        await asyncio.sleep(595)
        emulator.outage(False)
        emulator.act(instance_id, "approve")
        await approval.succeeds()

    fast_time(scenario())
    assert notes(capsys) == [FAIL, SUCCEED]


def test_a_deadline_during_an_outage_is_a_timeout(fast_time: RunScenario, emulator: EmulatorControl) -> None:
    async def scenario() -> None:
        deadline = now() + 100
        approval = ApprovalWait(waiting(emulator), deadline=deadline)
        await until(lambda: polls(emulator))
        emulator.outage()
        await approval.fails(
            errors.WaitTimeoutError,
            "last seen: instance",
            "polls have failed since",
            "Could not list the instances in state 'Waiting for user interaction' on connection 'astro_zero_default'",
        )
        assert 0 <= now() - deadline < 2

    fast_time(scenario())


def test_fifty_waits_send_no_more_requests_than_one_in_an_outage(
    fast_time: RunScenario,
    emulator: EmulatorControl,
    record_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def cost(number: int) -> int:
        emulator.reset()
        TOKENS.clear()
        ids = [waiting(emulator) for _ in range(number)]
        approvals = [ApprovalWait(each) for each in ids]
        await until(lambda: polls(emulator))
        before = requests_sent(emulator)
        emulator.outage(mode="503")
        await asyncio.sleep(120)
        spent = requests_sent(emulator) - before
        emulator.outage(False)
        for each in ids:
            emulator.act(each, "approve")
        await asyncio.gather(*[approval.succeeds() for approval in approvals])
        assert notes(capsys).count(FAIL) == number  # each task logs it
        assert_nothing_was_written(emulator)
        return spent

    async def scenario() -> tuple[int, int]:
        return await cost(1), await cost(50)

    for_one, for_fifty = fast_time(scenario())
    record_property("requests", (for_one, for_fifty))
    # Fifty instances may be in two states, and a poll gives up after a few failed lists.
    assert for_one <= for_fifty <= MAX_CONSECUTIVE_FAILURES * for_one


# Retry-After.


def around(emulator: EmulatorControl, refused: int) -> tuple[float, float]:
    """Return the times of the request that got this status and of the next request."""
    ((before, after),) = [
        (before["at"], after["at"])
        for before, after in pairwise(emulator.requests())
        if before["status"] == refused
    ]
    return before, after


def test_obeys_retry_after(real_time: RunScenario, emulator: EmulatorControl) -> None:
    async def scenario() -> None:
        instance_id = waiting(emulator)
        emulator.fault("query", **status(429, retry_after=3))
        approval = ApprovalWait(instance_id)
        await until(lambda: not emulator.faults())
        emulator.act(instance_id, "approve")
        await approval.succeeds()

    real_time(scenario())
    refused_at, asked_again_at = around(emulator, 429)
    assert 3 <= asked_again_at - refused_at < 5


@pytest.mark.parametrize(
    ("asked", "extra"), [(100, {"max_attempts": 1}), (20, {}), (3600, {"max_attempts": 1})]
)
@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("code", [429, 503])
def test_a_new_wait_obeys_an_earlier_retry_after(
    code: int,
    form: str,
    asked: int,
    extra: dict[str, Any],
    fast_time: RunScenario,
    emulator: EmulatorControl,
    connect: Connect,
) -> None:
    """If the server asks for more than ten minutes, the next poll comes after ten."""
    connect(instance_lookup="list", **extra)

    async def scenario() -> None:
        instance_id = waiting(emulator)
        approvals = [ApprovalWait(instance_id, max_poll_failure_time=10_000)]
        await until(lambda: polls(emulator))
        date = int(now()) + asked + 1
        retry_after = asked if form == "seconds" else formatdate(date, usegmt=True)
        emulator.fault("query", **status(code, retry_after=retry_after))
        await until(lambda: not emulator.faults())
        approvals.append(ApprovalWait(instance_id))
        emulator.act(instance_id, "approve")
        await asyncio.gather(*[approval.succeeds() for approval in approvals])
        refused_at, asked_again_at = around(emulator, code)
        asked_until = refused_at + asked if form == "seconds" else date
        earliest = min(asked_until, refused_at + 600)
        assert earliest - 0.05 <= asked_again_at < earliest + 2

    fast_time(scenario())
