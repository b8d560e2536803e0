"""Deferred task instances in Airflow's database: created, and read when a triggerer has made them ready to resume.

Import this only in a process whose environment names the database.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow._shared.timezones import timezone
from airflow.models.dag_version import DagVersion
from airflow.models.dagbag import DBDagBag
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.sdk.serde import deserialize
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunType
from sqlalchemy import func, select, update

from airflow_provider_astrobpm.client.errors import InstanceNotFoundError, WaitFailedError
from airflow_provider_astrobpm.waiting import event_payload

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.triggers.base import BaseTrigger

DAG_ID, TASK_ID, RUN_ID = "soak", "wait", "soak"


class Ended(NamedTuple):
    """A task instance that a triggerer has made ready to resume.

    :param end: how its wait ended, in words.
    """

    number: int
    end: str


class TaskRows:
    """The task instances of one run, by their map index."""

    def __init__(self) -> None:
        with create_session() as session:
            version = DagVersion.get_latest_version(DAG_ID, session=session)
            dag = DBDagBag().get_latest_version_of_dag(DAG_ID, session=session)
            if version is None or dag is None:
                raise RuntimeError(f"Airflow does not know the DAG {DAG_ID!r}")
            self._version, self._task = version.id, dag.get_task(TASK_ID)
            now = timezone.utcnow()
            session.add(
                DagRun(
                    dag_id=DAG_ID,
                    run_id=RUN_ID,
                    run_type=DagRunType.MANUAL,
                    state=DagRunState.RUNNING,
                    run_after=now,
                    start_date=now,
                )
            )

    def defer(self, triggers: Iterable[tuple[int, BaseTrigger]]) -> None:
        """Create deferred task instances."""
        with create_session() as session:
            for number, trigger in triggers:
                row = TaskInstance(
                    task=self._task, run_id=RUN_ID, map_index=number, dag_version_id=self._version
                )
                row.state = TaskInstanceState.DEFERRED
                row.try_number = 1
                row.start_date = timezone.utcnow()
                row.next_method = "resume"
                row.next_kwargs = {}
                row.trigger = Trigger.from_object(trigger)
                session.add(row)

    def running(self) -> int:
        """Return how many deferred task instances a triggerer has taken."""
        with create_session() as session:
            taken = select(func.count(Trigger.id)).where(Trigger.triggerer_id.is_not(None))
            return session.scalar(taken) or 0

    def waiting(self) -> int:
        """Return how many task instances are deferred."""
        with create_session() as session:
            deferred = TaskInstance.state == TaskInstanceState.DEFERRED
            return session.scalar(select(func.count(TaskInstance.id)).where(deferred)) or 0

    def take_ended(self, instance_ids: dict[int, str]) -> list[Ended]:
        """Return the task instances that are ready to resume, and mark them as done.

        :param instance_ids: the id of the awaited instance, by number.
        """
        with create_session() as session:
            ready = session.execute(
                select(
                    TaskInstance.id,
                    TaskInstance.map_index,
                    TaskInstance.next_kwargs,
                    TaskInstance.next_method,
                ).where(TaskInstance.state.not_in([TaskInstanceState.DEFERRED, TaskInstanceState.SUCCESS]))
            ).all()
            found = [
                Ended(number, describe(str(row_id), kwargs, method, instance_ids[number]))
                for row_id, number, kwargs, method in ready
            ]
            if ready:
                session.execute(
                    update(TaskInstance)
                    .where(TaskInstance.id.in_([row.id for row in ready]))
                    .values(state=TaskInstanceState.SUCCESS)
                    .execution_options(synchronize_session=False)
                )
        return found


def describe(task_instance_id: str, next_kwargs: Any, next_method: str | None, instance_id: str) -> str:
    """Return how a wait ended, in words: from the event, as the task reads it when it resumes."""
    kwargs = deserialize(json.loads(next_kwargs) if isinstance(next_kwargs, str) else next_kwargs)
    if not isinstance(kwargs, dict) or "event" not in kwargs:
        return f"the trigger failed ({next_method}): {kwargs}"
    payload = kwargs["event"]
    if payload.get("waiter") not in (None, task_instance_id):
        return f"with the event of another task, {payload}"
    end = event_payload.load(payload)
    if isinstance(end, InstanceNotFoundError):
        return "not found"
    if isinstance(end, Exception) and not isinstance(end, WaitFailedError):
        return f"{type(end).__name__}: {end}"
    word, instance = ("failed", end.instance) if isinstance(end, WaitFailedError) else ("done", end)
    if instance.id != instance_id:
        return f"with another instance, {instance}"
    return f"{word}: {instance.state}, {instance.bp_status}"
