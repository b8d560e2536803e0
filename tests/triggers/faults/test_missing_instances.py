"""Instances that are hard to find."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from airflow_provider_astrobpm.bpm import errors
from airflow_provider_astrobpm.bpm.states import STATES
from airflow_provider_astrobpm.emulator.remote import EmulatorControl
from tests.triggers.faults.helpers import (
    LAST_STATE,
    LOOKUPS,
    WAITING,
    Connect,
    Gate,
    Play,
    looks,
    notes,
    now,
    states_asked,
    until,
    waiting,
)


@pytest.mark.parametrize(("grace", "opens"), [(300, True), (60, False)])
def test_an_instance_that_shows_late_is_not_gone_before_start_grace_has_passed(
    grace: float, opens: bool, fast_time: Play, emulator: EmulatorControl, connect: Connect
) -> None:
    connect(max_attempts=1, instance_lookup="list", start_grace=grace)

    async def scene() -> None:
        instance_id = emulator.start("PublishApproval")["id"]
        emulator.switch(start_lag=150)
        gate = Gate(instance_id, poll_interval=10)
        if not opens:
            await gate.fails(errors.InstanceNotFoundError, instance_id)
            return
        await asyncio.sleep(200)
        emulator.act(instance_id, "approve")
        await gate.opens()

    fast_time(scene())


async def while_asked_for(state: str, emulator: EmulatorControl, happens: Callable[[], object]) -> None:
    """Let something happen after the server has looked up its answer to a query, and before it sends it."""
    before = states_asked(emulator).count(state)
    await until(lambda: states_asked(emulator).count(state) > before)
    happens()


@pytest.mark.parametrize(
    ("held", "happens"),
    [
        (WAITING, lambda emulator, it: emulator.move(it, state=WAITING)),
        ("Completed OK", lambda emulator, it: emulator.act(it, "approve")),
    ],
    ids=["to a state that was asked for", "to its end"],
)
def test_an_instance_that_moves_between_two_queries(
    held: str,
    happens: Callable[[EmulatorControl, str], object],
    fast_time: Play,
    emulator: EmulatorControl,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It shows in none of the states, and yet it is not missed: they are asked once more."""

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=10)
        await until(lambda: looks(emulator))
        emulator.move(instance_id, state="Dispatched")
        skip = list(STATES).index(held)
        emulator.fault("query", "delay", seconds=0.5, work_done=True, skip=skip)
        await while_asked_for(held, emulator, lambda: happens(emulator, instance_id))
        if held == WAITING:
            await asyncio.sleep(25)
            assert not gate.has_fired
            emulator.act(instance_id, "approve")
        await gate.opens()

    fast_time(scene())
    asked = states_asked(emulator)
    assert asked[: 1 + 12] == [WAITING, *STATES]
    assert asked[13 : 13 + list(STATES).index(held) + 1] == list(STATES)[: list(STATES).index(held) + 1]
    assert notes(capsys) == []


def test_an_instance_that_moves_is_not_mistaken_for_an_ended_one_of_the_same_key(
    fast_time: Play, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scene() -> None:
        emulator.act(waiting(emulator, business_key="k"), "approve")
        instance_id = waiting(emulator, business_key="k")
        emulator.move(instance_id, state="Dispatched")
        emulator.fault("query", "delay", seconds=0.5, work_done=True)
        gate = Gate(business_key="k", poll_interval=10)
        await while_asked_for(WAITING, emulator, lambda: emulator.move(instance_id, state=WAITING))
        await asyncio.sleep(25)
        assert not gate.has_fired
        emulator.act(instance_id, "reject")
        await gate.fails(errors.WaitFailedError, instance_id, "'Rejected'")

    fast_time(scene())
    assert notes(capsys) == []


@pytest.mark.parametrize(("lookup", "get_by_id"), LOOKUPS)
def test_an_instance_that_vanishes_is_never_a_success(
    lookup: str,
    get_by_id: str,
    fast_time: Play,
    emulator: EmulatorControl,
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connect(instance_lookup=lookup)
    emulator.switch(get_by_id=get_by_id)

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=20)
        await until(lambda: emulator.counts()["get" if lookup == "by_id" or get_by_id == "row" else "query"])
        emulator.vanish(instance_id)
        vanished = now()
        await gate.fails(errors.InstanceNotFoundError, instance_id)
        # It is missed first after 20 s, and then for a minute.
        assert 75 <= now() - vanished < 105

    fast_time(scene())
    assert notes(capsys) == ["polling again"]


def test_a_minute_is_not_enough_where_looks_are_rare(fast_time: Play, emulator: EmulatorControl) -> None:
    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=100)
        await until(lambda: looks(emulator))
        emulator.vanish(instance_id)
        await gate.fails(errors.InstanceNotFoundError, instance_id)
        assert looks(emulator) == 1 + 3 * 2  # a whole look that misses it asks for each state twice

    fast_time(scene())


def test_looks_that_fail_do_not_count_as_looks_that_miss(fast_time: Play, emulator: EmulatorControl) -> None:
    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=20)
        await until(lambda: looks(emulator))
        emulator.vanish(instance_id)
        await until(lambda: states_asked(emulator).count(LAST_STATE) == 2)  # it was missed once
        emulator.outage(mode="503")
        await asyncio.sleep(200)
        assert not gate.has_fired
        emulator.outage(False)
        before = looks(emulator)
        await gate.fails(errors.InstanceNotFoundError, instance_id)
        assert looks(emulator) - before == 4

    fast_time(scene())


@pytest.fixture
def unknown_state(monkeypatch: pytest.MonkeyPatch) -> str:
    """A state that only the server knows; nobody can ask for it, so no list ever shows it."""
    monkeypatch.setattr("airflow_provider_astrobpm.emulator.engine.STATES", {**STATES, "Archived": None})
    return "Archived"


@pytest.mark.parametrize("shape", ["action", "row"])
def test_an_unknown_state_that_can_be_read_is_waited_through(
    shape: str,
    unknown_state: str,
    fast_time: Play,
    emulator: EmulatorControl,
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connect()
    emulator.switch(get_by_id=shape)

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id)
        await until(lambda: emulator.counts()["get"])
        emulator.move(instance_id, state=unknown_state, bp_status="Approved")
        await asyncio.sleep(200)
        assert not gate.has_fired
        emulator.move(instance_id, state="Completed OK")
        await gate.opens()

    fast_time(scene())
    assert notes(capsys) == []


def test_an_unknown_state_at_the_end_fails(
    unknown_state: str, fast_time: Play, emulator: EmulatorControl, connect: Connect
) -> None:
    connect()
    emulator.switch(get_by_id="action")  # rows do not say whether an instance has ended

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id)
        await until(lambda: emulator.counts()["get"])
        emulator.move(instance_id, state=unknown_state, bp_status="Approved", closed=True)
        await gate.fails(errors.WaitFailedError, "ended in state 'Archived'")

    fast_time(scene())


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("lookup", ["list", "auto"])
def test_an_unknown_state_that_no_list_shows_fails(
    lookup: str,
    closed: bool,
    unknown_state: str,
    fast_time: Play,
    emulator: EmulatorControl,
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connect(instance_lookup=lookup)

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=20)
        await until(lambda: looks(emulator))
        emulator.move(instance_id, state=unknown_state, bp_status="Approved", closed=closed)
        await gate.fails(errors.InstanceNotFoundError, instance_id, "that is no success")

    fast_time(scene())
    assert notes(capsys) == ["polling again"]


def test_an_unknown_state_for_less_than_a_minute_is_survived(
    unknown_state: str, fast_time: Play, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=10)
        await until(lambda: looks(emulator))
        for _ in range(3):  # each time the minute begins anew
            emulator.move(instance_id, state=unknown_state, bp_status="Approved")
            await asyncio.sleep(45)
            emulator.move(instance_id, state=WAITING, bp_status="Submitted")
            await asyncio.sleep(15)
        emulator.act(instance_id, "approve")
        await gate.opens()

    fast_time(scene())
    assert notes(capsys) == ["polling again"] * 3


def hide(emulator: EmulatorControl, cap: int) -> None:
    """Cap the lists, and fill them with newer instances."""
    emulator.switch(row_cap=cap)
    for _ in range(cap):
        waiting(emulator)


def test_a_row_cap_hides_nothing_that_can_be_read_by_its_id(
    fast_time: Play, emulator: EmulatorControl, connect: Connect, capsys: pytest.CaptureFixture[str]
) -> None:
    connect()
    emulator.switch(get_by_id="row")

    async def scene() -> None:
        ids = [waiting(emulator) for _ in range(2)]  # two in one state: the list is asked first
        hide(emulator, 5)
        gates = [Gate(each, poll_interval=20) for each in ids]
        await asyncio.sleep(200)
        assert looks(emulator) > 5
        assert not any(gate.has_fired for gate in gates)
        for each in ids:
            emulator.act(each, "approve")
        await asyncio.gather(*[gate.opens() for gate in gates])

    fast_time(scene())
    assert notes(capsys) == []


@pytest.mark.parametrize(("cap", "told"), [(100, True), (5, False)])
@pytest.mark.parametrize("lookup", ["list", "auto"])
def test_a_row_cap_that_hides_an_instance_for_good_fails_and_is_named(
    lookup: str, cap: int, told: bool, fast_time: Play, emulator: EmulatorControl, connect: Connect
) -> None:
    connect(instance_lookup=lookup)

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=20)
        await until(lambda: looks(emulator))
        hide(emulator, cap)
        end = await gate.end()
        assert type(end) is errors.InstanceNotFoundError
        words = f"the longest answer had {cap} rows, a row cap could hide it"
        assert (words in str(end)) is told

    fast_time(scene())
