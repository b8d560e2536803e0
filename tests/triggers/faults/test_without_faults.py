"""Where nothing goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_astrobpm.bpm import errors
from airflow_provider_astrobpm.emulator.remote import EmulatorControl
from tests.triggers.faults.helpers import (
    LOOKUPS,
    Connect,
    Gate,
    Play,
    looks,
    nothing_was_written,
    requests_sent,
    until,
    waiting,
)


def test_a_gate_in_every_position_of_every_switch(
    lookup: str,
    switch: str,
    position: Any,
    fast_time: Play,
    emulator: EmulatorControl,
    connect: Connect,
) -> None:
    emulator.switch(**{"get_by_id": "action" if lookup == "by_id" else "absent", switch: position})
    connect(instance_lookup=lookup, max_attempts=1)
    seen = (switch, position) not in [("see_others", False), ("keep_closed", False)]

    async def scene() -> None:
        for outcome, opens in [("approve", True), ("reject", False)]:
            instance_id = waiting(emulator)
            emulator.advance(30)
            emulator.act(instance_id, outcome)
            gate = Gate(instance_id, poll_interval=30)
            if opens and seen:
                await gate.opens()
            else:
                await gate.fails(errors.WaitFailedError if seen else errors.InstanceNotFoundError)
            emulator.vanish(instance_id)  # a cap of one row hides what is older

    fast_time(scene())


@pytest.mark.parametrize("interval", [1, 3])
def test_latency(
    interval: float,
    emulator: EmulatorControl,
    record_property: Callable[[str, object], None],
) -> None:
    """Counted from the moment at which the instance ends, by the emulator's clock."""

    async def scene() -> list[float]:
        ids = [waiting(emulator) for _ in range(20)]
        gates = [Gate(each, poll_interval=interval) for each in ids]
        await until(lambda: looks(emulator))
        for each in ids:
            emulator.act(each, "approve")
            await asyncio.sleep(interval / len(ids))
        await asyncio.gather(*[gate.opens() for gate in gates])
        ended = [emulator.instance(each)["ended"] for each in ids]
        return [gate.fired_at - at for gate, at in zip(gates, ended, strict=True)]

    latencies = asyncio.run(scene())
    nothing_was_written(emulator)
    record_property("latencies", [round(each, 3) for each in latencies])
    assert max(latencies) <= interval + 2


@pytest.mark.parametrize(("lookup", "get_by_id"), [*LOOKUPS, ("auto", "not_allowed"), ("auto", "action")])
def test_one_waiter_in_one_state_costs_one_request_a_poll(
    lookup: str, get_by_id: str, fast_time: Play, emulator: EmulatorControl, connect: Connect
) -> None:
    connect(instance_lookup=lookup)
    emulator.switch(get_by_id=get_by_id)

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=10)
        await asyncio.sleep(5)
        before = requests_sent(emulator)
        await asyncio.sleep(200)
        assert requests_sent(emulator) - before == 20
        emulator.act(instance_id, "approve")
        await gate.opens()

    fast_time(scene())
