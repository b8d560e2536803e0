"""Reads from Airflow's database which tasks may have started given instances, and which instances they have recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm._airflow import xcom_keys
from airflow_provider_astrobpm._airflow.stored_values import (
    ENDED_RUN_STATES,
    TaskPlace,
    as_seconds,
    chunks,
    read_records,
    read_xcoms,
)
from airflow_provider_astrobpm._airflow.version_compat import place_columns
from airflow_provider_astrobpm.starting.orphans import StartingTask, beginnings_of, may_be_of

if TYPE_CHECKING:
    from collections.abc import Collection


def read_starting_tasks(session: Any, beginnings: Collection[str]) -> dict[str, list[StartingTask]]:
    """Return the tasks whose business keys have the given beginnings, by beginning.

    :param beginnings: what ``key_beginning`` returns for the keys.
    """
    from airflow.models.dagrun import DagRun  # noqa: PLC0415
    from airflow.models.taskinstance import TaskInstance  # noqa: PLC0415
    from sqlalchemy import and_, select  # noqa: PLC0415

    wanted = set(beginnings)
    known = session.execute(select(TaskInstance.dag_id, TaskInstance.task_id).distinct())
    pairs = [pair for pair in known if any(may_be_of(one, *pair) for one in wanted)]
    query = select(
        *place_columns(TaskInstance),
        TaskInstance.state,
        DagRun.state,
        TaskInstance.end_date,
        TaskInstance.updated_at,
        TaskInstance.last_heartbeat_at,
    ).join(DagRun, and_(DagRun.dag_id == TaskInstance.dag_id, DagRun.run_id == TaskInstance.run_id))
    found: dict[str, list[tuple[TaskPlace, StartingTask]]] = {}
    for dag_id in dict.fromkeys(dag_id for dag_id, _ in pairs):
        for some in chunks([task_id for other, task_id in pairs if other == dag_id]):
            for row in session.execute(
                query.where(TaskInstance.dag_id == dag_id, TaskInstance.task_id.in_(some))
            ):
                place, state, run_has_ended = TaskPlace.of(*row[:5]), row[5], row[6] in ENDED_RUN_STATES
                for beginning, identity in beginnings_of(place.identities).items():
                    if beginning in wanted:
                        changed = max((at for at in map(as_seconds, row[7:]) if at is not None), default=None)
                        task = StartingTask(identity, state, run_has_ended, changed)
                        found.setdefault(beginning, []).append((place, task))
    recorded = _recorded_ids(session, {place for tasks in found.values() for place, _ in tasks})
    return {
        beginning: [task._replace(recorded_ids=recorded.get(place, frozenset())) for place, task in tasks]
        for beginning, tasks in found.items()
    }


def _recorded_ids(session: Any, places: Collection[TaskPlace]) -> dict[TaskPlace, frozenset[str]]:
    runs = {place.run_id for place in places}
    keys = (xcom_keys.INSTANCE_ID, xcom_keys.INSTANCE_IDS)
    found: dict[TaskPlace, set[str]] = {}
    for place, _, value in read_xcoms(session, runs, keys):
        ids = value if isinstance(value, list) else [value]
        found.setdefault(place, set()).update(one for one in ids if isinstance(one, str))
    for place, _, record in read_records(session, runs):
        if isinstance(record, dict) and isinstance(record.get("instance_id"), str):
            found.setdefault(place, set()).add(record["instance_id"])
    return {place: frozenset(ids) for place, ids in found.items()}
