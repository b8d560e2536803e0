"""Whether a user ended a task: the table in the module's docstring is what the code decides, for every state of Airflow."""

from __future__ import annotations

import asyncio
from itertools import product
from typing import Any

import pytest
from airflow.utils.state import TaskInstanceState

from airflow_provider_astrobpm._airflow import user_action
from airflow_provider_astrobpm._airflow.user_action import (
    Published,
    ReplacedTryError,
    TaskInstanceRef,
    TaskVerdict,
)
from airflow_provider_astrobpm._airflow.xcom_keys import WAIT_FINISHED

STATES = (None, *(each.value for each in TaskInstanceState), "a state of a later Airflow")


def rows() -> list[tuple[str, str, str]]:
    """Return the rows of the table: states, what is published, and the verdict."""
    lines = iter((user_action.__doc__ or "").splitlines())
    for line in lines:
        if line.startswith("| the task instance is"):
            break
    assert next(lines).startswith("|---")
    found = []
    for line in lines:
        if not line.startswith("|"):
            break
        states, published, verdict = (cell.strip() for cell in line.strip("|").split("|"))
        found.append((states, published, verdict))
    return found


def documented(state: str | None, published: Published) -> str:
    """Return the verdict of the first row that applies."""
    for states, shown, verdict in rows():
        is_state = {"deleted": state is None, "in another state": True}.get(
            states, state in states.split(", ")
        )
        if is_state and (shown.startswith("anything") or published.value in shown.split(", ")):
            return verdict
    raise AssertionError(f"no row for {state!r} and {published.value!r}")


@pytest.mark.parametrize(("state", "published"), list(product(STATES, Published)))
def test_decides_as_the_table_says(state: str | None, published: Published) -> None:
    verdict = user_action.judge(state, published)
    assert verdict.name.lower().replace("_", " ") == documented(state, published)


def test_every_verdict_is_in_the_table() -> None:
    assert {verdict.upper().replace(" ", "_") for *_, verdict in rows()} == set(TaskVerdict.__members__)


def test_a_worker_terminates_only_for_states_that_a_user_sets() -> None:
    ended = {state for state in STATES if user_action.judge(state) is TaskVerdict.ENDED_BY_USER}
    assert ended == {None, "failed", "success", "skipped", "upstream_failed", "removed", "restarting"}


@pytest.mark.parametrize("state", ["awaiting_input", "a state of a later Airflow"])
def test_an_unknown_state_is_no_user_action_for_a_trigger(
    state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_action, "task_state", lambda _task: state)
    monkeypatch.setattr(user_action, "published_xcom", lambda _task, _key: None)
    task = user_action.TaskInstanceRef("dag", "run", "task", -1)
    assert user_action._observe(task, "instance_id", "mine") is TaskVerdict.UNKNOWN_STATE


TASK = TaskInstanceRef("dag", "run", "task", -1)
READ_OF_WAIT, READ_OF_END = "instance_id", WAIT_FINISHED


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    ("value", "published"),
    [
        ("mine", Published.THIS_WAIT),
        ("another", Published.ANOTHER_WAIT),
        (None, Published.NOTHING),
        (ReplacedTryError(), Published.TRY_REPLACED),
    ],
)
def test_a_trigger_reads_what_its_task_has_published_for_its_state(
    state: str | None, value: object, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that has ended publishes that its wait is over, and one that waits publishes what for."""
    reads: list[tuple[TaskInstanceRef, str]] = []

    def read(task: TaskInstanceRef, key: str) -> object:
        reads.append((task, key))
        if isinstance(value, Exception):
            raise value
        return value

    def state_of(task: TaskInstanceRef) -> str | None:
        assert task == TASK
        return state

    monkeypatch.setattr(user_action, "task_state", state_of)
    monkeypatch.setattr(user_action, "published_xcom", read)
    verdict = user_action._observe(TASK, READ_OF_WAIT, "mine")
    if state in {"deferred", "running"}:
        assert (verdict, reads) == (user_action.judge(state, published), [(TASK, READ_OF_WAIT)])
    elif state in {"failed", "success", "skipped", "upstream_failed", "removed", "restarting"}:
        assert (verdict, reads) == (user_action.judge(state, published), [(TASK, READ_OF_END)])
    else:
        assert (verdict, reads) == (user_action.judge(state), [])


@pytest.mark.parametrize(
    ("states", "why_not", "reads"),
    [
        (["failed"], None, 1),
        (["up_for_retry"], TaskVerdict.RETRIED.value, 1),
        (["queued", "failed"], None, 2),
        (["queued", "up_for_retry"], TaskVerdict.RETRIED.value, 2),
        (["queued", "queued", "queued"], None, 3),  # a user has cleared the task
        ([OSError(), "failed"], None, 2),
        (["queued", OSError(), OSError()], "the state of its task could not be read (OSError)", 3),
        ([OSError(), OSError(), "queued"], None, 3),
    ],
)
def test_a_trigger_reads_again_until_it_is_decided(
    states: list[Any], why_not: str | None, reads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = list(states)
    asked: list[TaskInstanceRef] = []
    pauses: list[float] = []

    def state(task: TaskInstanceRef) -> str:
        asked.append(task)
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return str(found)

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(user_action, "task_state", state)
    monkeypatch.setattr(user_action, "published_xcom", lambda _task, _key: None)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    assert asyncio.run(user_action.why_not_user_action(TASK, READ_OF_WAIT, "mine")) == why_not
    assert asked == [TASK] * reads
    assert len(pauses) == reads - 1
    assert all(2 <= pause <= 2.5 for pause in pauses)
