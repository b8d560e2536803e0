"""Lists that fail by themselves, and rows that do not fit what is waited for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_provider_astrobpm.bpm import errors
from airflow_provider_astrobpm.emulator.remote import EmulatorControl
from tests.triggers.faults.helpers import (
    FAIL,
    FOR_EVER,
    SUCCEED,
    WAITING,
    Connect,
    Gate,
    Play,
    looks,
    notes,
    states_asked,
    status,
    until,
    waiting,
)


def test_a_list_that_fails_costs_only_those_in_it(
    fast_time: Play, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scene() -> None:
        here, there = waiting(emulator), waiting(emulator)
        emulator.move(there, state="Running")
        lucky, unlucky = (
            Gate(here, poll_interval=10),
            Gate(there, poll_interval=10, max_poll_failure_time=100),
        )
        await until(lambda: states_asked(emulator).count("Running") >= 2)
        emulator.fault("query", **status(503), target="states=Running", times=FOR_EVER)
        await asyncio.sleep(90)
        assert not unlucky.has_fired
        await asyncio.sleep(25)
        assert unlucky.has_fired
        assert not lucky.has_fired
        assert lucky.failed_looks == 0
        assert states_asked(emulator).count(WAITING) >= 12  # nothing backs off for one list
        emulator.act(here, "approve")
        await lucky.opens()
        await unlucky.fails(errors.ServerError, "list the instances in state 'Running'", "failed for 100 s")

    fast_time(scene())
    assert notes(capsys) == [FAIL]


@pytest.mark.parametrize(
    "fault", [{"fault": "html", "status": 200}, {"fault": "not_json"}, status(503)], ids=str
)
def test_a_key_that_nothing_carries_yet_makes_no_poll_fail(
    fault: dict[str, Any],
    fast_time: Play,
    emulator: EmulatorControl,
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It lists every state twice in each poll, and one answer of twenty makes no sense."""
    connect(instance_lookup="list")

    async def scene() -> None:
        emulator.fault("query", **fault, share=0.05, times=FOR_EVER)
        ids = [waiting(emulator, business_key=f"other-{number}") for number in range(3)]
        gates = [Gate(each, poll_interval=60) for each in ids] + [Gate(business_key="k", poll_interval=60)]
        await asyncio.sleep(3600)
        ids.append(waiting(emulator, business_key="k"))
        await asyncio.sleep(120)
        assert not any(gate.has_fired for gate in gates)
        for each in ids:
            emulator.act(each, "approve")
        await asyncio.gather(*[gate.opens() for gate in gates])

    fast_time(scene())
    assert notes(capsys) == []


@pytest.mark.parametrize("name", [None, "PublishApproval"])
def test_where_the_lists_show_no_keys_a_gate_by_key_fails_at_once(
    name: str | None, fast_time: Play, emulator: EmulatorControl
) -> None:
    async def scene() -> None:
        emulator.switch(business_keys_in_rows=False)
        by_key = Gate(business_key="k", bpm_name=name, poll_interval=60)
        await asyncio.sleep(150)
        assert not by_key.has_fired, "an empty list proves nothing"
        waiting(emulator, business_key="k")
        await by_key.fails(errors.KeysNotShownError, "none of the 1 instances listed shows a business key")

    fast_time(scene())


def test_rows_that_contradict_each_other_open_no_gate(
    fast_time: Play, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=10)
        await until(lambda: looks(emulator))
        emulator.fault(
            "query",
            "twice",
            target=WAITING,
            times=FOR_EVER,
            fields={"state": "Completed OK", "bpStatus": "Approved"},
        )
        await asyncio.sleep(100)
        assert not gate.has_fired
        emulator.clear_faults()
        await asyncio.sleep(100)
        assert not gate.has_fired
        emulator.act(instance_id, "reject")
        await gate.fails(errors.WaitFailedError, "'Rejected'")

    fast_time(scene())
    assert notes(capsys) == [FAIL, SUCCEED]


@pytest.mark.parametrize(
    "fields", [{"name": "Another"}, {"businessKey": "z"}, {"name": "Another", "businessKey": "z"}], ids=str
)
@pytest.mark.parametrize("knows", [False, True])
def test_another_instance_under_the_same_id_opens_no_gate(
    fields: dict[str, Any], knows: bool, fast_time: Play, emulator: EmulatorControl
) -> None:
    async def scene() -> None:
        started = emulator.start("PublishApproval", business_key="k")
        seen = {"name": "PublishApproval", "state": "Dispatched", "business_key": "k", "id": started["id"]}
        gate = Gate(started["id"], seen=seen if knows else None)
        if not knows:
            await until(lambda: looks(emulator) >= 2)
        emulator.distort(started["id"], fields)
        emulator.act(started["id"], "approve")
        await gate.fails(
            errors.AnotherInstanceError, "of 'PublishApproval' with business key 'k'", "now it is"
        )

    fast_time(scene())


def test_rows_that_show_no_keys_are_no_other_instance(fast_time: Play, emulator: EmulatorControl) -> None:
    async def scene() -> None:
        emulator.switch(business_keys_in_rows=False)
        instance_id = waiting(emulator, business_key="k")
        seen = {"name": "ns__PublishApproval", "state": "Dispatched", "business_key": "k", "id": instance_id}
        gate = Gate(instance_id, seen=seen)
        await until(lambda: looks(emulator))
        emulator.act(instance_id, "approve")
        await gate.opens()

    fast_time(scene())
