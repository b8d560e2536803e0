"""The trigger of a batch: which instances it waits for, what its event reports, and when it terminates them.

Airflow's answers about the task instance are faked here; ``tests/deployment`` uses a real deployment.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_astrobpm._airflow import user_action
from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.client.search import SearchRequest
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.triggers import base
from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmBatchTrigger
from airflow_provider_astrobpm.waiting import event_payload

TASK = user_action.TaskInstanceRef("dag", "run", "task", -1)
MINE, OTHER = "dag.task.run-zld2ojgxmkbhmtqy-1-", "dag.task.run-zld2ojgxmkbhmtqy-2-"


class FakeAirflow:
    """Airflow's answers about the task instance."""

    def __init__(self) -> None:
        self.state: str | None = "deferred"
        self.xcoms: dict[str, Any] = {}

    def published(self, task: user_action.TaskInstanceRef, key: str) -> Any:
        assert task == TASK
        return self.xcoms.get(key)


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> FakeAirflow:
    fake = FakeAirflow()
    monkeypatch.setattr(user_action, "OBSERVATION_DELAY_SECONDS", 0.0)
    monkeypatch.setattr(user_action, "task_state", lambda _task: fake.state)
    monkeypatch.setattr(user_action, "published_xcom", fake.published)
    return fake


@pytest.fixture
def ids(airflow: FakeAirflow, emulator: EmulatorControl) -> list[str]:
    """Twenty instances that wait for users: the task's batch."""
    started: list[str] = [emulator.start("SupplierOnboarding")["id"] for _ in range(20)]
    emulator.advance(2)
    airflow.xcoms = {"batch_key": MINE, "instance_ids": [None, *started, None]}
    return started


@pytest.fixture
def trigger(make_runner: Any) -> Callable[..., AstroZeroBpmBatchTrigger]:
    def make(**arguments: Any) -> AstroZeroBpmBatchTrigger:
        made = AstroZeroBpmBatchTrigger(
            astro_zero_conn_id="astro_zero_default",
            task_key=TASK.trigger_arguments,
            batch_key=MINE,
            **{"terminate_on_kill": True, "poll_interval": 1, **arguments},
        )
        made.task_instance = make_runner().ti
        return made

    return make


async def first_event(trigger: AstroZeroBpmBatchTrigger) -> Any:
    events = trigger.run()
    try:
        return (await asyncio.wait_for(events.__anext__(), 30)).payload
    finally:
        await events.aclose()  # type: ignore[attr-defined]


async def killed(trigger: AstroZeroBpmBatchTrigger, *, while_it_waits: bool) -> None:
    """Kill a trigger, and wait until the termination has finished."""
    if while_it_waits:
        waiting = asyncio.ensure_future(trigger.run().__anext__())
        while trigger._awaited is None or None in _states(trigger):  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.wait({waiting})
    await trigger.on_kill()
    if base.RUNNING_KILLS:
        await asyncio.wait(base.RUNNING_KILLS)


def _states(trigger: AstroZeroBpmBatchTrigger) -> set[str | None]:
    sought = SearchRequest()
    assert trigger._awaited
    trigger._awaited.add_to_query(sought)
    return set(sought.ids.values())


def states(emulator: EmulatorControl) -> Counter[str]:
    return Counter(one["state"] for one in emulator.instances())


def test_waits_for_the_instances_that_the_task_published(
    trigger: Any, ids: list[str], emulator: EmulatorControl
) -> None:
    for one in ids[1:]:
        emulator.act(one, "complete")
    emulator.break_instance(ids[0])
    emulator.advance(2)
    end, error = event_payload.load_batch(asyncio.run(first_event(trigger())), ids)
    assert error is None
    assert end is not None
    assert (end.succeeded, list(end.failed), end.open) == (19, [ids[0]], ())


def test_timeout_reports_the_outcome_of_each(trigger: Any, ids: list[str], emulator: EmulatorControl) -> None:
    emulator.act(ids[7], "complete")
    emulator.advance(2)
    end, error = event_payload.load_batch(asyncio.run(first_event(trigger(deadline=1.0))), ids)
    assert isinstance(error, errors.WaitTimeoutError)
    assert end is not None
    assert (end.succeeded, end.open) == (1, (*ids[:7], *ids[8:]))


@pytest.mark.parametrize("xcoms", [{}, {"batch_key": OTHER, "instance_ids": ["1"]}, {"instance_ids": ["1"]}])
def test_fails_if_the_xcoms_are_of_another_batch(xcoms: Any, trigger: Any, airflow: FakeAirflow) -> None:
    airflow.xcoms = xcoms
    end, error = event_payload.load_batch(asyncio.run(first_event(trigger())), [])
    assert end is None
    assert "does not say which instances it has started" in str(error)


@pytest.mark.parametrize("while_it_waits", [True, False])
@pytest.mark.parametrize("state", ["failed", "success", "scheduled", None])
def test_terminates_open_instances_when_a_user_ends_the_task(
    state: str | None,
    while_it_waits: bool,
    trigger: Any,
    airflow: FakeAirflow,
    ids: list[str],
    emulator: EmulatorControl,
) -> None:
    other = emulator.start("SupplierOnboarding")["id"]
    emulator.act(ids[3], "complete")
    emulator.break_instance(ids[4])
    emulator.advance(2)
    airflow.state = state
    asyncio.run(killed(trigger(), while_it_waits=while_it_waits))
    assert states(emulator) == {
        "Terminated": 18,
        "Completed OK": 1,
        "Broken": 1,
        "Waiting for user interaction": 1,
    }
    assert emulator.instance(other)["closed"] is False
    assert emulator.counts()["action"] == 18


def test_terminates_the_old_batch_after_a_clear_whose_next_try_waits(
    trigger: Any, airflow: FakeAirflow, ids: list[str], emulator: EmulatorControl
) -> None:
    one = trigger()

    async def cleared() -> None:
        waiting = asyncio.ensure_future(one.run().__anext__())
        while one._poller is None:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)
        airflow.xcoms = {"batch_key": OTHER, "instance_ids": ["another"]}
        waiting.cancel()
        await asyncio.wait({waiting})
        await killed(one, while_it_waits=False)

    asyncio.run(cleared())
    assert states(emulator) == {"Terminated": len(ids)}


@pytest.mark.parametrize(
    ("state", "xcoms"),
    [
        ("deferred", {}),
        ("running", {}),
        ("up_for_retry", {}),
        ("success", {"wait_over": MINE}),
        ("failed", {"wait_over": MINE}),
    ],
    ids=str,
)
def test_terminates_nothing_without_a_user_action(
    state: str, xcoms: Any, trigger: Any, airflow: FakeAirflow, ids: list[str], emulator: EmulatorControl
) -> None:
    airflow.state = state
    airflow.xcoms |= xcoms
    asyncio.run(killed(trigger(), while_it_waits=True))
    assert states(emulator) == {"Waiting for user interaction": len(ids)}
    assert emulator.counts()["action"] == 0


@pytest.mark.parametrize("arguments", [{"terminate_on_kill": False}, {"deadline": 1.0}], ids=str)
def test_terminates_nothing_if_it_must_not(
    arguments: Any, trigger: Any, airflow: FakeAirflow, ids: list[str], emulator: EmulatorControl
) -> None:
    airflow.state = "failed"
    asyncio.run(killed(trigger(**arguments), while_it_waits=False))
    assert states(emulator) == {"Waiting for user interaction": len(ids)}


def test_terminates_nothing_of_a_batch_that_has_ended(
    trigger: Any, airflow: FakeAirflow, ids: list[str], emulator: EmulatorControl
) -> None:
    for one in ids:
        emulator.act(one, "complete")
    emulator.advance(2)
    airflow.state = "failed"
    asyncio.run(killed(trigger(), while_it_waits=False))
    assert emulator.counts()["action"] == 0
    assert states(emulator) == {"Completed OK": len(ids)}
