"""When a cancelled trigger terminates its instance, and when it must not; the emulator records the requests.

Airflow's answers about the task instance are faked here; ``tests/deployment`` uses a real deployment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from airflow_provider_astrobpm._airflow import user_action
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.triggers import base
from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmInstanceTrigger


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_action, "OBSERVATION_DELAY_SECONDS", 0.0)


@pytest.fixture
def airflow_says(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set Airflow's answer about the task instance: a value, or an error."""

    def said(task: user_action.TaskInstanceRef, value: Any) -> Any:
        assert task == user_action.TaskInstanceRef("dag", "run", "task", -1)
        if isinstance(value, Exception):
            raise value
        return value

    def say(state: Any, instance: Any = None, **published: Any) -> None:
        xcoms = {"instance_id": instance, **published}
        none = instance if isinstance(instance, Exception) else None
        monkeypatch.setattr(user_action, "task_state", lambda task: said(task, state))
        monkeypatch.setattr(user_action, "published_xcom", lambda task, key: said(task, xcoms.get(key, none)))

    return say


@pytest.fixture
def instance_id(emulator: EmulatorControl) -> str:
    instance_id: str = emulator.start("SupplierOnboarding")["id"]
    return instance_id


def trigger_for(instance_id: str, make_runner: Any, **arguments: Any) -> AstroZeroBpmInstanceTrigger:
    made = AstroZeroBpmInstanceTrigger(
        astro_zero_conn_id="astro_zero_default",
        instance_id=instance_id,
        **{"terminate_on_kill": True, "poll_interval": 1, **arguments},
    )
    made.task_instance = make_runner().ti
    return made


async def settled(work: Coroutine[Any, Any, Any]) -> None:
    """Do something, then wait until the termination has finished."""
    await work
    if base.RUNNING_KILLS:
        await asyncio.wait(base.RUNNING_KILLS)


async def is_waiting(trigger: AstroZeroBpmInstanceTrigger) -> None:
    """Return when the trigger has joined its poller."""
    while trigger._poller is None:  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.01)


def terminations(emulator: EmulatorControl) -> int:
    return sum(request["detail"] == "terminate" for request in emulator.requests())


@pytest.mark.parametrize(
    "state", ["failed", "success", "skipped", "upstream_failed", "removed", "scheduled", "running", None]
)
def test_terminates_when_a_user_ended_the_task(
    state: str | None, airflow_says: Any, emulator: EmulatorControl, instance_id: str, make_runner: Any
) -> None:
    airflow_says(state)
    asyncio.run(settled(trigger_for(instance_id, make_runner).on_kill()))
    assert emulator.instance(instance_id)["closed"] is True


@pytest.mark.parametrize("state", ["deferred", "running"])
def test_terminates_when_a_user_cleared_the_task_and_the_next_try_waits(
    state: str, airflow_says: Any, emulator: EmulatorControl, instance_id: str, make_runner: Any
) -> None:
    airflow_says(state, "002Nanother")
    asyncio.run(settled(trigger_for(instance_id, make_runner).on_kill()))
    assert emulator.instance(instance_id)["closed"] is True


@pytest.mark.parametrize(
    ("state", "published", "over"),
    [
        ("success", "mine", "mine"),
        ("failed", "mine", "mine"),
        ("running", "mine", None),
        ("up_for_retry", "mine", "mine"),
        ("up_for_retry", None, None),
    ],
)
def test_terminates_nothing_if_the_task_ended_its_wait_or_still_waits(
    state: str,
    published: str | None,
    over: str | None,
    airflow_says: Any,
    emulator: EmulatorControl,
    instance_id: str,
    make_runner: Any,
) -> None:
    airflow_says(state, published and instance_id, wait_over=over and instance_id)
    asyncio.run(settled(trigger_for(instance_id, make_runner).on_kill()))
    assert terminations(emulator) == 0


@pytest.mark.parametrize(
    ("states", "terminated"),
    [
        (["queued", "queued", "running"], 0),
        (["scheduled", "success"], 0),
        (["queued", "failed"], 1),
        (["scheduled", "scheduled", "queued"], 1),
    ],
)
def test_reads_a_task_that_is_about_to_run_again(
    states: list[str],
    terminated: int,
    emulator: EmulatorControl,
    instance_id: str,
    make_runner: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has resumed after its wait, or a user has cleared it."""
    answers = iter(states)
    xcoms = {"instance_id": instance_id, "wait_over": instance_id if "success" in states else None}
    monkeypatch.setattr(user_action, "task_state", lambda _task: next(answers))
    monkeypatch.setattr(user_action, "published_xcom", lambda _task, key: xcoms[key])
    asyncio.run(settled(trigger_for(instance_id, make_runner).on_kill()))
    assert terminations(emulator) == terminated


@pytest.mark.parametrize(
    "condition",
    [
        {"states": ["Waiting for user interaction"]},
        {"failed_states": ["Waiting for user interaction"]},
        {"bp_statuses": ["Collecting"]},
    ],
    ids=str,
)
def test_terminates_nothing_if_the_wait_would_have_ended_anyway(
    condition: dict[str, Any],
    airflow_says: Any,
    emulator: EmulatorControl,
    instance_id: str,
    make_runner: Any,
) -> None:
    airflow_says("running")
    asyncio.run(settled(trigger_for(instance_id, make_runner, **condition).on_kill()))
    assert terminations(emulator) == 0


def test_terminates_nothing_if_the_instance_has_ended(
    airflow_says: Any, emulator: EmulatorControl, instance_id: str, make_runner: Any
) -> None:
    airflow_says("failed")
    emulator.act(instance_id, "complete")
    emulator.advance(2)
    assert emulator.instance(instance_id)["closed"] is True
    asyncio.run(settled(trigger_for(instance_id, make_runner).on_kill()))
    assert terminations(emulator) == 0


@pytest.mark.parametrize(
    ("state", "published"),
    [
        ("deferred", "mine"),
        ("deferred", None),
        ("deferred", RuntimeError("no XCom today")),
        ("failed", RuntimeError("no XCom today")),
        (RuntimeError("no state today"), "mine"),
        (KeyError("run"), None),
    ],
)
def test_terminates_nothing_without_a_known_user_action(
    state: Any,
    published: Any,
    airflow_says: Any,
    emulator: EmulatorControl,
    instance_id: str,
    make_runner: Any,
) -> None:
    airflow_says(state, instance_id if published == "mine" else published)
    asyncio.run(settled(trigger_for(instance_id, make_runner).on_kill()))
    assert terminations(emulator) == 0


def test_uses_a_state_read_at_the_third_attempt(
    emulator: EmulatorControl, instance_id: str, make_runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([RuntimeError("no"), RuntimeError("no"), None])

    def state_of(_task: user_action.TaskInstanceRef) -> str:
        if error := next(answers):
            raise error
        return "failed"

    monkeypatch.setattr(user_action, "task_state", state_of)
    monkeypatch.setattr(user_action, "published_xcom", lambda _task, _key: None)
    asyncio.run(settled(trigger_for(instance_id, make_runner).on_kill()))
    assert terminations(emulator) == 1


@pytest.mark.parametrize("arguments", [{"terminate_on_kill": False}, {"deadline": time.time() - 1}])
def test_terminates_nothing_if_it_must_not(
    arguments: dict[str, Any],
    airflow_says: Any,
    emulator: EmulatorControl,
    instance_id: str,
    make_runner: Any,
) -> None:
    airflow_says("failed")
    asyncio.run(settled(trigger_for(instance_id, make_runner, **arguments).on_kill()))
    assert terminations(emulator) == 0


def test_terminates_nothing_without_a_task(
    airflow_says: Any, emulator: EmulatorControl, instance_id: str, make_runner: Any
) -> None:
    airflow_says("failed")
    trigger = trigger_for(instance_id, make_runner)
    trigger.task_instance = None
    asyncio.run(settled(trigger.on_kill()))
    assert terminations(emulator) == 0


def test_terminates_nothing_after_its_event(
    airflow_says: Any, emulator: EmulatorControl, instance_id: str, make_runner: Any
) -> None:
    airflow_says("success")

    async def fire_and_kill() -> None:
        trigger = trigger_for(instance_id, make_runner, states=["Waiting for user interaction"])
        events = trigger.run()
        await asyncio.wait_for(events.__anext__(), 30)
        await trigger.on_kill()
        await events.aclose()  # type: ignore[attr-defined]

    asyncio.run(settled(fire_and_kill()))
    assert terminations(emulator) == 0


def test_terminates_nothing_after_a_stall(
    airflow_says: Any,
    emulator: EmulatorControl,
    instance_id: str,
    make_runner: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    airflow_says("success")

    async def stand_still_and_kill() -> None:
        trigger = trigger_for(instance_id, make_runner, poll_interval=3600)
        waiting = asyncio.ensure_future(trigger.run().__anext__())
        await is_waiting(trigger)
        loop = asyncio.get_running_loop()
        at = loop.time()
        monkeypatch.setattr(loop, "time", lambda: at + 40)
        waiting.cancel()
        await trigger.on_kill()
        await asyncio.wait({waiting})

    asyncio.run(settled(stand_still_and_kill()))
    assert terminations(emulator) == 0


def test_finishes_a_kill_that_airflow_cuts_off(
    airflow_says: Any, emulator: EmulatorControl, instance_id: str, make_runner: Any
) -> None:
    airflow_says("failed")
    emulator.fault("action", "delay", seconds=1)

    async def kill_and_cut_off() -> None:
        killing = asyncio.ensure_future(trigger_for(instance_id, make_runner).on_kill())
        await asyncio.sleep(0)  # it begins
        assert base.RUNNING_KILLS
        killing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await killing

    asyncio.run(settled(kill_and_cut_off()))
    assert emulator.instance(instance_id)["closed"] is True


def test_logs_what_to_do_if_a_termination_fails(
    airflow_says: Any,
    emulator: EmulatorControl,
    instance_id: str,
    make_runner: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    airflow_says("failed")
    emulator.fault("action", "status", status=403)
    asyncio.run(settled(trigger_for(instance_id, make_runner).on_kill()))
    assert "may still be open: terminate it by hand" in capsys.readouterr().out


@pytest.mark.parametrize(("tells", "terminated"), [(True, 0), (False, 1)])
def test_checks_on_cancellation_only_if_airflow_has_no_on_kill(
    tells: bool,
    terminated: int,
    airflow_says: Any,
    emulator: EmulatorControl,
    instance_id: str,
    make_runner: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    airflow_says("failed")
    monkeypatch.setattr(base, "triggers_have_on_kill", lambda: tells)

    async def wait_and_cancel() -> None:
        trigger = trigger_for(instance_id, make_runner)
        waiting = asyncio.ensure_future(trigger.run().__anext__())
        await is_waiting(trigger)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(settled(wait_and_cancel()))
    assert terminations(emulator) == terminated
