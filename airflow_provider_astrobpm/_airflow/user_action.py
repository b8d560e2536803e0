"""Decides whether a trigger was cancelled because a user ended its task, or for a reason that must not terminate anything.

Airflow does not say why it cancels a trigger. A triggerer that comes back after another took over its triggers cancels them
just like one whose task was marked as failed. So the trigger reads the state of its task instance.

| the task instance is                                          | conclusion                 |
|---------------------------------------------------------------|----------------------------|
| deferred or running, and still waits for the same             | no user action             |
| deferred or running, and waits for something else             | a user cleared the task    |
| running, scheduled or queued, unknown what it waits for       | undecided: read it again   |
| the same, after the last attempt                              | a user cleared the task    |
| to be retried                                                 | no user action             |
| ended, and it published that its wait had ended               | no user action             |
| ended otherwise, or deleted with its run                      | a user ended the task      |
| unreadable                                                    | counts as no user action   |

From Airflow 3.4 on, a trigger reads XComs as the try that waits. In a loop nothing else can read them, and Airflow refuses to
serve a replaced try. Outside of loops, the next try's XComs are read then. In a loop, a replaced try was cleared, by itself or
together with an earlier iteration.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from dataclasses import dataclass
from enum import Enum
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm._airflow.xcom_keys import WAIT_FINISHED
from airflow_provider_astrobpm.starting.business_keys import Region

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)

MAX_OBSERVATIONS = 3  # attempts to read the task instance
OBSERVATION_DELAY_SECONDS = 2.0  # between two attempts


@dataclass(frozen=True)
class TaskInstanceRef:
    """Identifies a task instance.

    :param region: the region that Airflow 3.4 gives to mapped tasks and to tasks in a loop.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    region: Region | None = None

    @classmethod
    def of(cls, task_instance: Any) -> Self:
        """Return the key of a task instance, for every form in which a triggerer has one."""
        index = task_instance.map_index
        return cls(
            task_instance.dag_id,
            task_instance.run_id,
            task_instance.task_id,
            -1 if index is None else index,
            Region.of(task_instance),
        )

    @property
    def trigger_arguments(self) -> dict[str, Any]:
        """The arguments from which a trigger recreates this. The trigger knows the region itself."""
        return {
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "task_id": self.task_id,
            "map_index": self.map_index,
        }


class ReplacedTryError(Exception):
    """The try that waited was replaced by another one, and neither can be read."""


_warm_up: asyncio.Task[None] | None = None


def warm_up(task: TaskInstanceRef) -> None:
    """Read a task instance once per process, in advance, because Airflow's first read takes seconds.

    :param task: any task instance that waits.
    """
    global _warm_up  # noqa: PLW0603 - the event loop itself keeps only weak references to tasks
    if _warm_up is None:
        _warm_up = Context().run(asyncio.get_running_loop().create_task, _observe_ahead(task))


async def _observe_ahead(task: TaskInstanceRef) -> None:
    from asgiref.sync import sync_to_async  # noqa: PLC0415

    try:
        await sync_to_async(task_state)(task)
    except Exception as error:  # noqa: BLE001 - a lasting error is reported when the state is needed
        log.debug("Could not read a task instance in advance: %s", type(error).__name__)


async def why_not_user_action(task: TaskInstanceRef, key: str, awaited: str) -> str | None:
    """Return why a cancellation was not a user action, or ``None`` if it was.

    :param task: the task instance that waited.
    :param key: the XCom in which a try of the task publishes what it waits for.
    :param awaited: what this trigger waited for.
    """
    from asgiref.sync import sync_to_async  # noqa: PLC0415

    reason: str | None = None
    for attempt in range(MAX_OBSERVATIONS):
        if attempt:
            await asyncio.sleep(OBSERVATION_DELAY_SECONDS)
        try:
            observation = await sync_to_async(_observe)(task, key, awaited)
        except Exception as error:  # noqa: BLE001 - any error means that nothing is known
            reason = f"the state of its task could not be read ({type(error).__name__})"
        else:
            if observation is not _TaskStatus.UNDECIDED:
                reason = observation.value
                break
            reason = None
    return reason


class _TaskStatus(Enum):
    """What a task instance shows about its wait: why it was no user action, or ``None`` if a user ended the wait."""

    ENDED_BY_USER = None
    UNDECIDED = "its task is running or about to run"
    STILL_WAITING = "its task is still waiting for it, because another triggerer has taken over"
    UNKNOWN = "its task is waiting again, and it is unknown for which instance"
    FINISHED = "its task has finished the wait, because another triggerer had taken over"
    RETRIED = "its task will be retried"


def _observe(task: TaskInstanceRef, key: str, awaited: str) -> _TaskStatus:
    try:
        return _observed_state(task, key, awaited)
    except ReplacedTryError:
        return _TaskStatus.ENDED_BY_USER


def _observed_state(task: TaskInstanceRef, key: str, awaited: str) -> _TaskStatus:
    state = task_state(task)
    if state in {"up_for_retry", "up_for_reschedule"}:
        return _TaskStatus.RETRIED
    if state in {"scheduled", "queued"}:
        return _TaskStatus.UNDECIDED
    if state in {"deferred", "running"}:
        own = published_xcom(task, key)
        if own is None:
            return _TaskStatus.UNKNOWN if state == "deferred" else _TaskStatus.UNDECIDED
        return _TaskStatus.STILL_WAITING if own == awaited else _TaskStatus.ENDED_BY_USER
    return (
        _TaskStatus.FINISHED
        if state is not None and published_xcom(task, WAIT_FINISHED) == awaited
        else _TaskStatus.ENDED_BY_USER
    )


def task_state(task: TaskInstanceRef) -> str | None:
    """Return the state of a task instance; ``None`` if it has no state or was deleted."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance  # noqa: PLC0415

    states = RuntimeTaskInstance.get_task_states(
        dag_id=task.dag_id, task_ids=[task.task_id], run_ids=[task.run_id], map_index=task.map_index
    )
    name = task.task_id if task.map_index < 0 else f"{task.task_id}_{task.map_index}"
    state: str | None = states.get(task.run_id, {}).get(name)
    return state


def published_xcom(task: TaskInstanceRef, key: str) -> Any:
    """Return the value of an XCom of this try of a task, or ``None``.

    :raises ReplacedTryError: if this try was replaced, and its task is in a loop.
    """
    from airflow.sdk.exceptions import AirflowRuntimeError  # noqa: PLC0415
    from airflow.sdk.execution_time.xcom import XCom  # noqa: PLC0415 - of the backend that the deployment uses

    read = partial(
        XCom.get_one,
        key=key,
        dag_id=task.dag_id,
        task_id=task.task_id,
        run_id=task.run_id,
        map_index=task.map_index,
    )
    try:
        return read()
    except AirflowRuntimeError as refusal:
        if _status(refusal) != HTTPStatus.FORBIDDEN:
            raise
    try:
        # In an empty context the XCom is not read as a particular try.
        return Context().run(read)
    except AirflowRuntimeError as refusal:
        if _status(refusal) != HTTPStatus.BAD_REQUEST:
            raise
        raise ReplacedTryError from None


def _status(refusal: Any) -> int | None:
    status: int | None = (refusal.error.detail or {}).get("status_code")
    return status
