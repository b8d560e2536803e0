"""Whether a trigger was cancelled because a person ended its task, or for a reason that must terminate nothing.

Airflow tells a trigger neither: a triggerer that comes back after another took its triggers over cancels them just as one
whose task was marked as failed. So the task instance is looked at.

| the task instance is                                           | then a person          |
|----------------------------------------------------------------|------------------------|
| deferred or running, and waits for the same as before          | did nothing            |
| deferred or running, and waits for something else              | cleared the task       |
| running, scheduled or queued, and nobody can say for which one | may have: look again   |
| and so it stays                                                | cleared the task       |
| to be retried                                                  | did nothing            |
| ended, and says that its wait was over                         | did nothing            |
| ended otherwise, or gone with its run                          | ended the task         |
| not to be seen                                                 | perhaps did nothing    |

From Airflow 3.4 on a trigger reads XComs as the try that waits. In a loop nothing else can read them, and Airflow refuses
a try that was replaced. Outside of loops the next try's XComs are read then. In a loop a try that was replaced was cleared,
by itself or with an earlier iteration.
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

from asgiref.sync import sync_to_async

from airflow_provider_astrobpm._airflow.xcom_keys import WAIT_OVER
from airflow_provider_astrobpm.bpm.identity import Region

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)

LOOKS = 3  # attempts to see the task instance
PAUSE = 2.0  # seconds between them


@dataclass(frozen=True)
class TaskInstanceKey:
    """Which task instance is meant.

    :param region: the region that Airflow 3.4 gives to mapped tasks and to those of a loop.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    region: Region | None = None

    @classmethod
    def of(cls, task_instance: Any) -> Self:
        """Return the key of a task instance, in whichever shape the triggerer has it."""
        index = task_instance.map_index
        return cls(
            task_instance.dag_id,
            task_instance.run_id,
            task_instance.task_id,
            -1 if index is None else index,
            Region.of(task_instance),
        )

    @property
    def for_trigger(self) -> dict[str, Any]:
        """The arguments by which a trigger makes it again. A trigger knows the region by itself."""
        return {
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "task_id": self.task_id,
            "map_index": self.map_index,
        }


class ReplacedTryError(Exception):
    """The try that waited was replaced by another one, and nothing can be read of either."""


_preparation: asyncio.Task[None] | None = None


def prepare(task: TaskInstanceKey) -> None:
    """Look at a task instance once in this process, ahead of need: Airflow takes seconds over the first look.

    :param task: any task instance that waits.
    """
    global _preparation  # noqa: PLW0603 - an event loop itself keeps no task alive
    if _preparation is None:
        _preparation = Context().run(asyncio.get_running_loop().create_task, _look_ahead(task))


async def _look_ahead(task: TaskInstanceKey) -> None:
    try:
        await sync_to_async(state_of)(task)
    except Exception as error:  # noqa: BLE001 - what is wrong with it is told when it is needed
        log.debug("Looking at a task ahead of need failed: %s", type(error).__name__)


async def why_it_was_no_kill(task: TaskInstanceKey, key: str, awaited: str) -> str | None:
    """Return why a cancelled wait was ended by nobody, or ``None`` if a person did end it.

    :param task: the task instance that waited.
    :param key: the XCom in which a try of the task shows for what it waits.
    :param awaited: for what this one waited.
    """
    reason: str | None = None
    for attempt in range(LOOKS):
        if attempt:
            await asyncio.sleep(PAUSE)
        try:
            sight = await sync_to_async(_look)(task, key, awaited)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing is known then
            reason = f"the state of its task could not be read ({type(error).__name__})"
        else:
            if sight is not Sight.UNDECIDED:
                reason = sight.value
                break
            reason = None
    return reason


class Sight(Enum):
    """What a look at a task instance says of its wait: why nobody ended it, or nothing if somebody did."""

    ENDED = None
    UNDECIDED = "its task runs, or is about to"
    GOES_ON = "its task goes on with it, for another triggerer has taken it over"
    UNKNOWN = "its task is waiting again, and nobody knows for which instance"
    OVER = "its task has ended its wait, for another triggerer had taken it over"
    RETRIED = "its task is retried"


def _look(task: TaskInstanceKey, key: str, awaited: str) -> Sight:
    try:
        return _sight(task, key, awaited)
    except ReplacedTryError:
        return Sight.ENDED


def _sight(task: TaskInstanceKey, key: str, awaited: str) -> Sight:
    state = state_of(task)
    if state in {"up_for_retry", "up_for_reschedule"}:
        return Sight.RETRIED
    if state in {"scheduled", "queued"}:
        return Sight.UNDECIDED
    if state in {"deferred", "running"}:
        own = published(task, key)
        if own is None:
            return Sight.UNKNOWN if state == "deferred" else Sight.UNDECIDED
        return Sight.GOES_ON if own == awaited else Sight.ENDED
    return Sight.OVER if state is not None and published(task, WAIT_OVER) == awaited else Sight.ENDED


def state_of(task: TaskInstanceKey) -> str | None:
    """Return the state of a task instance; ``None`` also where there is none any more."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance  # noqa: PLC0415

    states = RuntimeTaskInstance.get_task_states(
        dag_id=task.dag_id, task_ids=[task.task_id], run_ids=[task.run_id], map_index=task.map_index
    )
    name = task.task_id if task.map_index < 0 else f"{task.task_id}_{task.map_index}"
    state: str | None = states.get(task.run_id, {}).get(name)
    return state


def published(task: TaskInstanceKey, key: str) -> Any:
    """Return what this try of a task has published under a key, or ``None``.

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
        # A context of its own holds no try as which it would be read.
        return Context().run(read)
    except AirflowRuntimeError as refusal:
        if _status(refusal) != HTTPStatus.BAD_REQUEST:
            raise
        raise ReplacedTryError from None


def _status(refusal: Any) -> int | None:
    status: int | None = (refusal.error.detail or {}).get("status_code")
    return status
