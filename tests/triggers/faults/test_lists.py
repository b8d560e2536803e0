"""Lists that fail one by one, and rows that do not fit the awaited instance."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from tests.triggers.faults.helpers import (
    FAIL,
    FOR_EVER,
    SUCCEED,
    WAITING,
    ApprovalWait,
    Connect,
    RunScenario,
    notes,
    polls,
    states_asked,
    status,
    until,
    waiting,
)


def test_a_failing_list_fails_only_the_waits_that_need_it(
    fast_time: RunScenario, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        here, there = waiting(emulator), waiting(emulator)
        emulator.move(there, state="Running")
        lucky, unlucky = (
            ApprovalWait(here, poll_interval=10),
            ApprovalWait(there, poll_interval=10, max_poll_failure_time=100),
        )
        await until(lambda: states_asked(emulator).count("Running") >= 2)
        emulator.fault("query", **status(503), target="states=Running", times=FOR_EVER)
        await asyncio.sleep(90)
        assert not unlucky.has_fired
        await asyncio.sleep(25)
        assert unlucky.has_fired
        assert not lucky.has_fired
        assert lucky.failed_polls == 0
        assert states_asked(emulator).count(WAITING) >= 12  # one failing list causes no backoff
        emulator.act(here, "approve")
        await lucky.succeeds()
        await unlucky.fails(errors.ServerError, "list the instances in state 'Running'", "failed for 100 s")

    fast_time(scenario())
    assert notes(capsys) == [FAIL]


@pytest.mark.parametrize(
    "fault", [{"fault": "html", "status": 200}, {"fault": "not_json"}, status(503)], ids=str
)
def test_a_key_without_a_match_does_not_make_polls_fail(
    fault: dict[str, Any],
    fast_time: RunScenario,
    emulator: EmulatorControl,
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A wait by key lists every state twice in each poll, and one answer in twenty is faulty."""
    connect(instance_lookup="list")

    async def scenario() -> None:
        emulator.fault("query", **fault, share=0.05, times=FOR_EVER)
        ids = [waiting(emulator, business_key=f"other-{number}") for number in range(3)]
        approvals = [ApprovalWait(each, poll_interval=60) for each in ids] + [
            ApprovalWait(business_key="k", poll_interval=60)
        ]
        await asyncio.sleep(3600)
        ids.append(waiting(emulator, business_key="k"))
        await asyncio.sleep(120)
        assert not any(approval.has_fired for approval in approvals)
        for each in ids:
            emulator.act(each, "approve")
        await asyncio.gather(*[approval.succeeds() for approval in approvals])

    fast_time(scenario())
    assert notes(capsys) == []


@pytest.mark.parametrize("name", [None, "PublishApproval"])
def test_a_wait_by_key_fails_at_once_if_lists_show_no_keys(
    name: str | None, fast_time: RunScenario, emulator: EmulatorControl
) -> None:
    async def scenario() -> None:
        emulator.switch(business_keys_in_rows=False)
        by_key = ApprovalWait(business_key="k", bpm_name=name, poll_interval=60)
        await asyncio.sleep(150)
        assert not by_key.has_fired, "an empty list proves nothing"
        waiting(emulator, business_key="k")
        await by_key.fails(errors.KeysNotShownError, "none of the 1 listed instances shows a business key")

    fast_time(scenario())


def test_contradictory_rows_do_not_end_a_wait(
    fast_time: RunScenario, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        instance_id = waiting(emulator)
        approval = ApprovalWait(instance_id, poll_interval=10)
        await until(lambda: polls(emulator))
        emulator.fault(
            "query",
            "twice",
            target=WAITING,
            times=FOR_EVER,
            fields={"state": "Completed OK", "bpStatus": "Approved"},
        )
        await asyncio.sleep(100)
        assert not approval.has_fired
        emulator.clear_faults()
        await asyncio.sleep(100)
        assert not approval.has_fired
        emulator.act(instance_id, "reject")
        await approval.fails(errors.WaitFailedError, "'Rejected'")

    fast_time(scenario())
    assert notes(capsys) == [FAIL, SUCCEED]


@pytest.mark.parametrize(
    "fields", [{"name": "Another"}, {"businessKey": "z"}, {"name": "Another", "businessKey": "z"}], ids=str
)
@pytest.mark.parametrize("knows", [False, True])
def test_another_instance_under_the_same_id_fails_the_wait(
    fields: dict[str, Any], knows: bool, fast_time: RunScenario, emulator: EmulatorControl
) -> None:
    async def scenario() -> None:
        started = emulator.start("PublishApproval", business_key="k")
        seen = {"name": "PublishApproval", "state": "Dispatched", "business_key": "k", "id": started["id"]}
        approval = ApprovalWait(started["id"], seen=seen if knows else None)
        if not knows:
            await until(lambda: polls(emulator) >= 2)
        emulator.distort(started["id"], fields)
        emulator.act(started["id"], "approve")
        await approval.fails(
            errors.AnotherInstanceError, "of 'PublishApproval' with business key 'k'", "now it is"
        )

    fast_time(scenario())


def test_a_row_without_a_key_is_not_another_instance(
    fast_time: RunScenario, emulator: EmulatorControl
) -> None:
    async def scenario() -> None:
        emulator.switch(business_keys_in_rows=False)
        instance_id = waiting(emulator, business_key="k")
        seen = {"name": "ns__PublishApproval", "state": "Dispatched", "business_key": "k", "id": instance_id}
        approval = ApprovalWait(instance_id, seen=seen)
        await until(lambda: polls(emulator))
        emulator.act(instance_id, "approve")
        await approval.succeeds()

    fast_time(scenario())
