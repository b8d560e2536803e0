"""Whether a user ended a task: the table in the module's docstring is what the code decides, for every state of Airflow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextvars import ContextVar
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.utils.state import TaskInstanceState

from airflow_provider_astrobpm._airflow import user_action
from airflow_provider_astrobpm._airflow.user_action import (
    NO_STATE,
    Published,
    ReplacedTryError,
    TaskInstanceRef,
    TaskVerdict,
)
from airflow_provider_astrobpm._airflow.xcom_keys import WAIT_FINISHED

STATES = (None, NO_STATE, *(each.value for each in TaskInstanceState), "a state of a later Airflow")


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


@pytest.mark.parametrize(("index", "known"), [(None, -1), (-1, -1), (0, 0), (7, 7)])
def test_a_task_instance_is_known_by_its_run_and_map_index(index: int | None, known: int) -> None:
    task = TaskInstanceRef.of(
        SimpleNamespace(dag_id="dag", run_id="run", task_id="task", map_index=index, region_id=None)
    )
    assert task == TaskInstanceRef("dag", "run", "task", known)
    assert task.trigger_arguments == {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": known}


@pytest.mark.parametrize(
    ("index", "answer", "state"),
    [
        (-1, {"run": {"task": "running"}}, "running"),
        (-1, {"run": {}}, None),
        (-1, {"run": {"task": None}}, NO_STATE),
        (-1, {}, None),
        (0, {"run": {"task": "failed", "task_0": "running"}}, "running"),
        (12, {"run": {"task_12": "queued"}, "another": {"task_12": "failed"}}, "queued"),
    ],
)
def test_reads_the_state_of_one_task_instance(
    index: int, answer: dict[str, Any], state: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def states(**arguments: Any) -> dict[str, Any]:
        asked.append(arguments)
        return answer

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", states)
    task = TaskInstanceRef("dag", "run", "task", index)
    assert user_action.task_state(task) == state
    assert user_action.state_on_worker(task) == state
    assert asked == [{"dag_id": "dag", "task_ids": ["task"], "run_ids": ["run"], "map_index": index}] * 2


class TestReadAhead:
    """The first read of a process takes seconds, so it is done in advance, outside of any trigger."""

    @pytest.fixture(autouse=True)
    def _forget(self) -> Iterator[None]:
        user_action._WARM_UPS.clear()
        yield
        user_action._WARM_UPS.clear()

    def reads(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> list[Any]:
        """Read ahead for two tasks, and return what was read, each with the trigger that it was read for."""
        trigger: ContextVar[str | None] = ContextVar("trigger", default=None)
        found: list[Any] = []

        def read(task: TaskInstanceRef) -> str:
            found.append((task, trigger.get()))
            if error:
                raise error
            return "deferred"

        async def both() -> None:
            trigger.set("one of them")
            user_action.warm_up(TASK)
            user_action.warm_up(TaskInstanceRef("another", "run", "task", -1))
            await asyncio.gather(*user_action._WARM_UPS)

        monkeypatch.setattr(user_action, "task_state", read)
        asyncio.run(both())
        return found

    def test_reads_once_and_for_no_trigger(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.reads(monkeypatch) == [(TASK, None)]

    def test_a_failure_is_only_noted(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.DEBUG, user_action.log.name):
            assert self.reads(monkeypatch, OSError("no route")) == [(TASK, None)]
        assert [
            (one.levelno, one.getMessage()) for one in caplog.records if one.name == user_action.log.name
        ] == [(logging.DEBUG, "Could not read a task instance in advance: OSError")]
