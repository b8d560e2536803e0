"""Decides whether a user ended a task, for its process on a worker and for its trigger.

Airflow stops processes by SIGTERM and cancels triggers for many reasons, and gives none. This is what else it tells:

| Airflow                                              | 3.0 to 3.2        | 3.3      | 3.4                               |
|------------------------------------------------------|-------------------|----------|-----------------------------------|
| calls the trigger's ``on_kill``, if its wait is over | no                | yes      | yes                               |
| the same, if another triggerer has taken over        | no                | yes      | no                                |
| returns the state of a task instance                 | yes               | yes      | in a loop of the newest iteration |
| returns the states of ended iterations, to workers   | there are none    | the same | yes                               |
| returns the XComs of a task                          | of the latest try | the same | of the try that asks              |

A wait is over for Airflow if a user ended the task, but also if the trigger has fired. So the state of the task instance decides,
and in the triggerer what its try has published: that its wait has ended, if the task has ended, and otherwise what it waits for.
A worker has no time to read that.

| the task instance is                                           | published                  | verdict       |
|----------------------------------------------------------------|----------------------------|---------------|
| deleted                                                        | anything                   | ended by user |
| failed, success, skipped, upstream_failed, removed, restarting | this wait                  | finished      |
| failed, success, skipped, upstream_failed, removed, restarting | anything else              | ended by user |
| deferred, running                                              | this wait, not read        | still waiting |
| deferred, running                                              | another wait, try replaced | ended by user |
| deferred                                                       | nothing                    | unknown       |
| running                                                        | nothing                    | undecided     |
| scheduled, queued, without a state                             | anything                   | undecided     |
| up_for_retry, up_for_reschedule                                | anything                   | retried       |
| in another state                                               | anything                   | unknown state |

If the verdict is undecided, a trigger reads again. If it stays undecided, a user cleared the task. Only "ended by user" lets a
worker terminate anything: a scheduler that restarts takes its state from a running task, and starts it again. Something that
cannot be read proves nothing.

If Airflow 3.4 refuses XComs because the try was replaced, the next try's XComs are read. In a loop Airflow refuses those as well.
There a replaced try was cleared, by itself or together with an earlier iteration.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextvars import Context
from dataclasses import dataclass
from enum import Enum
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm._airflow.xcom_keys import WAIT_FINISHED
from airflow_provider_astrobpm.client import process_state
from airflow_provider_astrobpm.client.backoff import Backoff
from airflow_provider_astrobpm.starting.business_keys import Region

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)

MAX_OBSERVATIONS = 3  # attempts to read the task instance
OBSERVATION_DELAY_SECONDS = 2.5  # between two attempts, at most; at least 2


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
        return {name: value for name, value in vars(self).items() if name != "region"}


class ReplacedTryError(Exception):
    """The try that waited was replaced by another one, and neither can be read."""


class Published(Enum):
    """What the try that waits has published, compared with the wait that was stopped."""

    THIS_WAIT = "this wait"
    ANOTHER_WAIT = "another wait"
    NOTHING = "nothing"
    TRY_REPLACED = "try replaced"
    NOT_READ = "not read"


class TaskVerdict(Enum):
    """Why a user did not end the task, or ``None`` if a user ended it."""

    ENDED_BY_USER = None
    UNDECIDED = "its task is running or about to run"
    STILL_WAITING = "its task is still waiting for it, because another triggerer has taken over"
    UNKNOWN = "its task is waiting again, and it is unknown for which instance"
    UNKNOWN_STATE = "the state of its task is none that a user sets"
    FINISHED = "its task has finished the wait, because another triggerer had taken over"
    RETRIED = "its task will be retried"


NO_STATE = "without a state"
ENDED_STATES = ("failed", "success", "skipped", "upstream_failed", "removed")
_STATES_SET_BY_USER = (*ENDED_STATES, "restarting")
_WAITING_STATES = ("deferred", "running")
_OTHER_STATES: dict[str | None, TaskVerdict] = {
    None: TaskVerdict.ENDED_BY_USER,
    "scheduled": TaskVerdict.UNDECIDED,
    "queued": TaskVerdict.UNDECIDED,
    NO_STATE: TaskVerdict.UNDECIDED,
    "up_for_retry": TaskVerdict.RETRIED,
    "up_for_reschedule": TaskVerdict.RETRIED,
}


def judge(state: str | None, published: Published = Published.NOT_READ) -> TaskVerdict:
    """Return whether a user ended a task, as the table above has it.

    :param state: the state of the task instance; ``None`` if it was deleted.
    :param published: what its try has published.
    """
    if state in _STATES_SET_BY_USER:
        is_over = published is Published.THIS_WAIT
        return TaskVerdict.FINISHED if is_over else TaskVerdict.ENDED_BY_USER
    if state not in _WAITING_STATES:
        return _OTHER_STATES.get(state, TaskVerdict.UNKNOWN_STATE)
    if published is Published.NOTHING:
        return TaskVerdict.UNKNOWN if state == "deferred" else TaskVerdict.UNDECIDED
    is_other = published in {Published.ANOTHER_WAIT, Published.TRY_REPLACED}
    return TaskVerdict.ENDED_BY_USER if is_other else TaskVerdict.STILL_WAITING


_WARM_UPS: list[asyncio.Task[None]] = []
"""The one read in advance. The event loop itself keeps only weak references to tasks."""

process_state.register(_WARM_UPS.clear)


def warm_up(task: TaskInstanceRef) -> None:
    """Read a task instance once per process, in advance, because Airflow's first read takes seconds.

    :param task: any task instance that waits.
    """
    if not _WARM_UPS:
        _WARM_UPS.append(Context().run(asyncio.get_running_loop().create_task, _observe_ahead(task)))


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
            again = Backoff(OBSERVATION_DELAY_SECONDS, factor=1, jitter=0.2)
            await asyncio.sleep(again.pause(attempt, random.random()))  # noqa: S311 - jitter
        try:
            observation = await sync_to_async(_observe)(task, key, awaited)
        except Exception as error:  # noqa: BLE001 - any error means that nothing is known
            reason = f"the state of its task could not be read ({type(error).__name__})"
        else:
            if observation is not TaskVerdict.UNDECIDED:
                reason = observation.value
                break
            reason = None
    return reason


def _observe(task: TaskInstanceRef, key: str, awaited: str) -> TaskVerdict:
    state = task_state(task)
    if state not in (*_STATES_SET_BY_USER, *_WAITING_STATES):
        return judge(state)
    try:
        value = published_xcom(task, key if state in _WAITING_STATES else WAIT_FINISHED)
    except ReplacedTryError:
        return judge(state, Published.TRY_REPLACED)
    if value is None:
        return judge(state, Published.NOTHING)
    return judge(state, Published.THIS_WAIT if value == awaited else Published.ANOTHER_WAIT)


def state_on_worker(task: TaskInstanceRef) -> str | None:
    """Return the state of the task instance whose process this is; ``None`` if it was deleted.

    For a task in a loop Airflow returns the state of the newest iteration. For iterations that have ended it also returns
    their region, which identifies the own one.
    """
    state = task_state(task)
    if task.region is None or state not in ENDED_STATES:
        return state
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance  # noqa: PLC0415

    for one in RuntimeTaskInstance.get_task_breadcrumbs(task.dag_id, task.run_id):
        region = str(one.get("region_id")), one.get("region_index")
        if one["task_id"] == task.task_id and region == task.region:
            ended: str = one["state"]
            return ended
    return "running"


def task_state(task: TaskInstanceRef) -> str | None:
    """Return the state of a task instance, ``NO_STATE``, or ``None`` if it was deleted."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance  # noqa: PLC0415

    states = RuntimeTaskInstance.get_task_states(
        dag_id=task.dag_id, task_ids=[task.task_id], run_ids=[task.run_id], map_index=task.map_index
    )
    name = task.task_id if task.map_index < 0 else f"{task.task_id}_{task.map_index}"
    found = states.get(task.run_id, {})
    return (found[name] or NO_STATE) if name in found else None


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
