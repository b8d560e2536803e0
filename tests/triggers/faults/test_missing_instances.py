"""Instances that are hard to find."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.client.states import STATES
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from tests.triggers.faults.helpers import (
    LAST_STATE,
    LOOKUPS,
    WAITING,
    ApprovalWait,
    Connect,
    RunScenario,
    notes,
    now,
    polls,
    states_asked,
    until,
    waiting,
)


@pytest.mark.parametrize(("grace", "opens"), [(300, True), (60, False)])
def test_an_instance_is_not_gone_before_start_grace_has_passed(
    grace: float, opens: bool, fast_time: RunScenario, emulator: EmulatorControl, connect: Connect
) -> None:
    connect(max_attempts=1, instance_lookup="list", start_grace=grace)

    async def scenario() -> None:
        instance_id = emulator.start("PublishApproval")["id"]
        emulator.switch(start_lag=150)
        approval = ApprovalWait(instance_id, poll_interval=10)
        if not opens:
            await approval.fails(errors.InstanceNotFoundError, instance_id)
            return
        await asyncio.sleep(200)
        emulator.act(instance_id, "approve")
        await approval.succeeds()

    fast_time(scenario())


async def while_asked_for(state: str, emulator: EmulatorControl, happens: Callable[[], object]) -> None:
    """Make something happen after the server has computed its answer to a query, and before it sends it."""
    before = states_asked(emulator).count(state)
    await until(lambda: states_asked(emulator).count(state) > before)
    happens()


@pytest.mark.parametrize(
    ("held", "happens"),
    [
        (WAITING, lambda emulator, it: emulator.move(it, state=WAITING)),
        ("Completed OK", lambda emulator, it: emulator.act(it, "approve")),
    ],
    ids=["to a state that was already queried", "to its end"],
)
def test_finds_an_instance_that_moves_between_two_queries(
    held: str,
    happens: Callable[[EmulatorControl, str], object],
    fast_time: RunScenario,
    emulator: EmulatorControl,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The instance shows in none of the states, but does not count as missing, because all states are queried again."""

    async def scenario() -> None:
        instance_id = waiting(emulator)
        approval = ApprovalWait(instance_id, poll_interval=10)
        await until(lambda: polls(emulator))
        emulator.move(instance_id, state="Dispatched")
        skip = list(STATES).index(held)
        emulator.fault("query", "delay", seconds=0.5, work_done=True, skip=skip)
        await while_asked_for(held, emulator, lambda: happens(emulator, instance_id))
        if held == WAITING:
            await asyncio.sleep(25)
            assert not approval.has_fired
            emulator.act(instance_id, "approve")
        await approval.succeeds()

    fast_time(scenario())
    asked = states_asked(emulator)
    assert asked[: 1 + 12] == [WAITING, *STATES]
    assert asked[13 : 13 + list(STATES).index(held) + 1] == list(STATES)[: list(STATES).index(held) + 1]
    assert notes(capsys) == []


def test_does_not_mistake_a_moving_instance_for_a_closed_match(
    fast_time: RunScenario, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        emulator.act(waiting(emulator, business_key="k"), "approve")
        instance_id = waiting(emulator, business_key="k")
        emulator.move(instance_id, state="Dispatched")
        emulator.fault("query", "delay", seconds=0.5, work_done=True)
        approval = ApprovalWait(business_key="k", poll_interval=10)
        await while_asked_for(WAITING, emulator, lambda: emulator.move(instance_id, state=WAITING))
        await asyncio.sleep(25)
        assert not approval.has_fired
        emulator.act(instance_id, "reject")
        await approval.fails(errors.WaitFailedError, instance_id, "'Rejected'")

    fast_time(scenario())
    assert notes(capsys) == []


@pytest.mark.parametrize(("lookup", "get_by_id"), LOOKUPS)
def test_a_vanished_instance_fails_the_wait(
    lookup: str,
    get_by_id: str,
    fast_time: RunScenario,
    emulator: EmulatorControl,
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connect(instance_lookup=lookup)
    emulator.switch(get_by_id=get_by_id)

    async def scenario() -> None:
        instance_id = waiting(emulator)
        approval = ApprovalWait(instance_id, poll_interval=20)
        await until(lambda: emulator.counts()["get" if lookup == "by_id" or get_by_id == "row" else "query"])
        emulator.vanish(instance_id)
        vanished = now()
        await approval.fails(errors.InstanceNotFoundError, instance_id)
        # The first poll that misses it comes after 20 s; then it is missing for a minute.
        assert 75 <= now() - vanished < 105

    fast_time(scenario())
    assert notes(capsys) == ["polling again"]


def test_an_instance_is_gone_only_after_three_polls(
    fast_time: RunScenario, emulator: EmulatorControl
) -> None:
    async def scenario() -> None:
        instance_id = waiting(emulator)
        approval = ApprovalWait(instance_id, poll_interval=100)
        await until(lambda: polls(emulator))
        emulator.vanish(instance_id)
        await approval.fails(errors.InstanceNotFoundError, instance_id)
        assert polls(emulator) == 1 + 3 * 2  # a complete poll that misses it queries each state twice

    fast_time(scenario())


def test_failed_polls_do_not_count_as_missing_polls(
    fast_time: RunScenario, emulator: EmulatorControl
) -> None:
    async def scenario() -> None:
        instance_id = waiting(emulator)
        approval = ApprovalWait(instance_id, poll_interval=20)
        await until(lambda: polls(emulator))
        emulator.vanish(instance_id)
        await until(lambda: states_asked(emulator).count(LAST_STATE) == 2)  # it was missing once
        emulator.outage(mode="503")
        await asyncio.sleep(200)
        assert not approval.has_fired
        emulator.outage(False)
        before = polls(emulator)
        await approval.fails(errors.InstanceNotFoundError, instance_id)
        assert polls(emulator) - before == 4

    fast_time(scenario())


@pytest.fixture
def unknown_state(monkeypatch: pytest.MonkeyPatch) -> str:
    """A state that only the server knows. It cannot be queried, so no list shows it."""
    monkeypatch.setattr("airflow_provider_astrobpm.emulator.engine.STATES", {**STATES, "Archived": None})
    return "Archived"


@pytest.mark.parametrize("shape", ["action", "row"])
def test_keeps_waiting_in_an_unknown_state_that_can_be_read(
    shape: str,
    unknown_state: str,
    fast_time: RunScenario,
    emulator: EmulatorControl,
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connect()
    emulator.switch(get_by_id=shape)

    async def scenario() -> None:
        instance_id = waiting(emulator)
        approval = ApprovalWait(instance_id)
        await until(lambda: emulator.counts()["get"])
        emulator.move(instance_id, state=unknown_state, bp_status="Approved")
        await asyncio.sleep(200)
        assert not approval.has_fired
        emulator.move(instance_id, state="Completed OK")
        await approval.succeeds()

    fast_time(scenario())
    assert notes(capsys) == []


def test_fails_if_the_instance_ends_in_an_unknown_state(
    unknown_state: str, fast_time: RunScenario, emulator: EmulatorControl, connect: Connect
) -> None:
    connect()
    emulator.switch(get_by_id="action")  # rows do not say whether an instance is closed

    async def scenario() -> None:
        instance_id = waiting(emulator)
        approval = ApprovalWait(instance_id)
        await until(lambda: emulator.counts()["get"])
        emulator.move(instance_id, state=unknown_state, bp_status="Approved", closed=True)
        await approval.fails(errors.WaitFailedError, "ended in state 'Archived'")

    fast_time(scenario())


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("lookup", ["list", "auto"])
def test_fails_in_an_unknown_state_that_no_list_shows(
    lookup: str,
    closed: bool,
    unknown_state: str,
    fast_time: RunScenario,
    emulator: EmulatorControl,
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connect(instance_lookup=lookup)

    async def scenario() -> None:
        instance_id = waiting(emulator)
        approval = ApprovalWait(instance_id, poll_interval=20)
        await until(lambda: polls(emulator))
        emulator.move(instance_id, state=unknown_state, bp_status="Approved", closed=closed)
        await approval.fails(errors.InstanceNotFoundError, instance_id, "does not count as success")

    fast_time(scenario())
    assert notes(capsys) == ["polling again"]


def test_survives_an_unknown_state_for_less_than_a_minute(
    unknown_state: str, fast_time: RunScenario, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        instance_id = waiting(emulator)
        approval = ApprovalWait(instance_id, poll_interval=10)
        await until(lambda: polls(emulator))
        for _ in range(3):  # the minute starts again each time
            emulator.move(instance_id, state=unknown_state, bp_status="Approved")
            await asyncio.sleep(45)
            emulator.move(instance_id, state=WAITING, bp_status="Submitted")
            await asyncio.sleep(15)
        emulator.act(instance_id, "approve")
        await approval.succeeds()

    fast_time(scenario())
    assert notes(capsys) == ["polling again"] * 3


def hide(emulator: EmulatorControl, cap: int) -> None:
    """Cap the lists, and fill them with newer instances."""
    emulator.switch(row_cap=cap)
    for _ in range(cap):
        waiting(emulator)


def test_finds_an_instance_hidden_by_a_row_cap_by_its_id(
    fast_time: RunScenario, emulator: EmulatorControl, connect: Connect, capsys: pytest.CaptureFixture[str]
) -> None:
    connect()
    emulator.switch(get_by_id="row")

    async def scenario() -> None:
        ids = [waiting(emulator) for _ in range(2)]  # two in one state, so the list is read first
        hide(emulator, 5)
        approvals = [ApprovalWait(each, poll_interval=20) for each in ids]
        await asyncio.sleep(200)
        assert polls(emulator) > 5
        assert not any(approval.has_fired for approval in approvals)
        for each in ids:
            emulator.act(each, "approve")
        await asyncio.gather(*[approval.succeeds() for approval in approvals])

    fast_time(scenario())
    assert notes(capsys) == []


@pytest.mark.parametrize(("cap", "reported"), [(100, True), (5, False)])
@pytest.mark.parametrize("lookup", ["list", "auto"])
def test_names_the_row_cap_that_hides_an_instance(
    lookup: str, cap: int, reported: bool, fast_time: RunScenario, emulator: EmulatorControl, connect: Connect
) -> None:
    connect(instance_lookup=lookup)

    async def scenario() -> None:
        instance_id = waiting(emulator)
        approval = ApprovalWait(instance_id, poll_interval=20)
        await until(lambda: polls(emulator))
        hide(emulator, cap)
        end = await approval.end()
        assert type(end) is errors.InstanceNotFoundError
        words = f"the longest list had {cap} rows, so a row cap may hide it"
        assert (words in str(end)) is reported

    fast_time(scenario())
