"""Waits without faults: every switch of the emulator, latency, and cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from tests.triggers.faults.helpers import (
    LOOKUPS,
    ApprovalWait,
    Connect,
    RunScenario,
    assert_nothing_was_written,
    polls,
    requests_sent,
    until,
    waiting,
)


def test_waits_in_every_position_of_every_switch(
    lookup: str,
    switch: str,
    position: Any,
    fast_time: RunScenario,
    emulator: EmulatorControl,
    connect: Connect,
) -> None:
    emulator.switch(**{"get_by_id": "action" if lookup == "by_id" else "absent", switch: position})
    connect(instance_lookup=lookup, max_attempts=1)
    seen = (switch, position) not in [("see_others", False), ("keep_closed", False)]

    async def scenario() -> None:
        for outcome, opens in [("approve", True), ("reject", False)]:
            instance_id = waiting(emulator)
            emulator.advance(30)
            emulator.act(instance_id, outcome)
            approval = ApprovalWait(instance_id, poll_interval=30)
            if opens and seen:
                await approval.succeeds()
            else:
                await approval.fails(errors.WaitFailedError if seen else errors.InstanceNotFoundError)
            emulator.vanish(instance_id)  # a row cap of 1 hides older instances

    fast_time(scenario())


@pytest.mark.parametrize("interval", [1, 3])
def test_latency_is_about_one_interval(
    interval: float,
    emulator: EmulatorControl,
    record_property: Callable[[str, object], None],
) -> None:
    """Measured from the end of the instance, on the emulator's clock."""

    async def scenario() -> list[float]:
        ids = [waiting(emulator) for _ in range(20)]
        approvals = [ApprovalWait(each, poll_interval=interval) for each in ids]
        await until(lambda: polls(emulator))
        for each in ids:
            emulator.act(each, "approve")
            await asyncio.sleep(interval / len(ids))
        await asyncio.gather(*[approval.succeeds() for approval in approvals])
        ended = [emulator.instance(each)["ended"] for each in ids]
        return [approval.fired_at - at for approval, at in zip(approvals, ended, strict=True)]

    latencies = asyncio.run(scenario())
    assert_nothing_was_written(emulator)
    record_property("latencies", [round(each, 3) for each in latencies])
    assert max(latencies) <= interval + 2


@pytest.mark.parametrize(("lookup", "get_by_id"), [*LOOKUPS, ("auto", "not_allowed"), ("auto", "action")])
def test_one_wait_takes_one_request_per_poll(
    lookup: str, get_by_id: str, fast_time: RunScenario, emulator: EmulatorControl, connect: Connect
) -> None:
    connect(instance_lookup=lookup)
    emulator.switch(get_by_id=get_by_id)

    async def scenario() -> None:
        instance_id = waiting(emulator)
        approval = ApprovalWait(instance_id, poll_interval=10)
        await asyncio.sleep(5)
        before = requests_sent(emulator)
        await asyncio.sleep(200)
        assert requests_sent(emulator) - before == 20
        emulator.act(instance_id, "approve")
        await approval.succeeds()

    fast_time(scenario())
