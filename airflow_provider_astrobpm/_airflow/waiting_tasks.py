"""Reads from Airflow's database which tasks wait for instances, and what is known of their waits.

| the task                                                    | what is known of its wait comes from                           |
|-------------------------------------------------------------|----------------------------------------------------------------|
| is deferred, with the arguments of this provider's triggers | the arguments of the trigger; for a batch also its XComs       |
| waits for its next poke, or is deferred in another way      | the rendered fields of the task                                |
| is running, with an operator of this provider that may wait | its XComs, its task state (Airflow 3.3) and its rendered fields |

What none of them shows is unknown. Airflow keeps the rendered fields of the latest runs only, by default 30, and a task that has
not run yet has none. Such a task is recognised by its operator, by its template fields in Airflow's copy of the DAG, or by the
fields of other runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm._airflow import xcom_keys
from airflow_provider_astrobpm._airflow.stored_values import (
    ENDED_RUN_STATES,
    START_RECORD,
    TaskPlace,
    as_seconds,
    by_place,
    chunks,
    read_records,
    read_xcoms,
)
from airflow_provider_astrobpm._airflow.version_compat import (
    join_rendered_fields,
    map_index_column,
    place_columns,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

INSTANCE_TRIGGER = "airflow_provider_astrobpm.triggers.bpm.AstroZeroBpmInstanceTrigger"
BATCH_TRIGGER = "airflow_provider_astrobpm.triggers.bpm.AstroZeroBpmBatchTrigger"
SENSOR = "AstroZeroBpmInstanceSensor"
START_OPERATOR = "AstroZeroStartBpmInstanceOperator"
BATCH_OPERATOR = "AstroZeroStartBpmBatchOperator"
TRIGGERER, WORKER, NOTHING = "triggerer", "worker", "none"
OPERATORS_WITHOUT_WAIT = frozenset(
    f"AstroZero{name}Operator"
    for name in (
        "SuspendBpmInstance", "ResumeBpmInstance", "TerminateBpmInstance", "SetBpmVariables", "DeleteBpmInstance",
        "QueryBpmInstances",
    )
)  # fmt: skip
CONNECTION_FIELD = "astro_zero_conn_id"
"""The rendered field that all operators of this provider have, and their subclasses."""
_UNRENDERED: dict[str, dict[str, Any]] = {
    SENSOR: {CONNECTION_FIELD: None, "instance_id": None},
    START_OPERATOR: {CONNECTION_FIELD: None},
    BATCH_OPERATOR: {CONNECTION_FIELD: None},
}
"""What is known of the fields of a task that shows none, by its operator."""
_XCOMS = (
    xcom_keys.INSTANCE_ID, xcom_keys.BUSINESS_KEY, xcom_keys.INSTANCE_IDS, xcom_keys.SATISFIED_LAUNCHES,
    xcom_keys.BPM_NAMES,
)  # fmt: skip


@dataclass
class WaitingTask:
    """A task instance that waits, and what is known of its wait. ``None`` means unknown.

    :param place: the task instance.
    :param map_index: its map index; -1 if it is not mapped.
    :param held_by: what waits: the triggerer, a worker, or nothing until the next poke.
    :param since: when its try began, in seconds since the epoch.
    :param conn_id: the connection.
    :param instance_ids: the instances that it waits for.
    :param business_key: the key of the instance, if only that is given.
    :param bpm_names: the names that their BPM may show.
    :param deadline: when the wait fails, in seconds since the epoch.
    :param has_deadline: whether it is known if there is a deadline.
    :param is_batch: whether it waits for several instances.
    :param seen: the instance, as the task saw it before it was deferred.
    :param starts: whether it certainly waits for what it has started itself.
    :param author_key: the business key that the author gave to what it starts.
    """

    place: TaskPlace
    map_index: int
    held_by: str
    since: float | None
    conn_id: str | None = None
    instance_ids: tuple[str, ...] | None = None
    business_key: str | None = None
    bpm_names: tuple[str, ...] = ()
    deadline: float | None = None
    has_deadline: bool = False
    is_batch: bool = False
    seen: Mapping[str, Any] | None = None
    starts: bool = False
    author_key: str | None = None

    @property
    def may_await_any(self) -> bool:
        """Whether it may wait for any instance: it starts none itself, and nothing shows for which it waits."""
        return self.instance_ids is None and self.business_key is None and not self.starts

    @property
    def iteration(self) -> int | None:
        """The iteration of a task in a loop (Airflow 3.4)."""
        return self.place.position if self.place.region is not None and self.map_index < 0 else None


WAITING_STATES = ("running", "up_for_reschedule", "deferred")
RESUMING_STATES = ("scheduled", "queued", "restarting", "up_for_retry")
"""The states of tasks that may wait soon, in addition to tasks without a state."""


def read_waiting_tasks(session: Any, *, soon: bool = False) -> list[WaitingTask]:
    """Return all task instances that wait for instances.

    :param session: a session of Airflow's database.
    :param soon: whether to include those that may wait soon: that have not begun, or have waited and were cleared.
    """
    found = list(_deferred(session))
    # A task may be deferred between the two queries, or by a trigger that shows nothing.
    known = {one.place for one in found}
    found += (one for one in _by_fields(session, soon=soon) if one.place not in known)
    runs = {one.place.run_id for one in found}
    xcoms = by_place(read_xcoms(session, runs, _XCOMS))
    records = by_place(read_records(session, runs))
    for one in found:
        _add_xcoms(one, xcoms.get(one.place, {}))
        if one.held_by == WORKER:
            _add_record(one, records.get(one.place, {}).get(START_RECORD))
    return found


def _deferred(session: Any) -> Iterator[WaitingTask]:
    from airflow.models.taskinstance import TaskInstance  # noqa: PLC0415
    from airflow.models.trigger import Trigger  # noqa: PLC0415
    from sqlalchemy import select  # noqa: PLC0415
    from sqlalchemy.orm import lazyload  # noqa: PLC0415

    query = (
        select(*place_columns(TaskInstance), map_index_column(), TaskInstance.start_date, Trigger)
        .join(Trigger, TaskInstance.trigger_id == Trigger.id)
        .where(TaskInstance.state == "deferred")
        .options(lazyload("*"))
    )
    for *columns, map_index, began, trigger in session.execute(query):
        try:
            given = trigger.kwargs
        except Exception:  # noqa: BLE001 - encrypted with another key, for example; then nothing is known
            given = {}
        if trigger.classpath not in (INSTANCE_TRIGGER, BATCH_TRIGGER) and CONNECTION_FIELD not in given:
            continue
        since = as_seconds(began or trigger.created_date)
        one = WaitingTask(TaskPlace.of(*columns), map_index, TRIGGERER, since)
        one.is_batch = one.starts = trigger.classpath == BATCH_TRIGGER or "batch_key" in given
        one.conn_id = given.get(CONNECTION_FIELD)
        one.deadline, one.has_deadline = given.get("deadline"), "deadline" in given
        one.seen = given.get("seen")
        one.business_key = given.get("business_key")
        awaited = (one.seen or {}).get("id") or given.get("instance_id")
        if awaited is not None:
            one.instance_ids = (awaited,)
        names = ((one.seen or {}).get("name"), given.get("bpm_name"))
        one.bpm_names = tuple(dict.fromkeys(name for name in names if name))
        yield one


def _by_fields(session: Any, *, soon: bool) -> Iterator[WaitingTask]:
    from airflow.models.dagrun import DagRun  # noqa: PLC0415
    from airflow.models.renderedtifields import RenderedTaskInstanceFields as Fields  # noqa: PLC0415
    from airflow.models.taskinstance import TaskInstance  # noqa: PLC0415
    from sqlalchemy import and_, null, or_, select  # noqa: PLC0415

    columns = (
        TaskInstance.id, TaskInstance.state, TaskInstance.operator, TaskInstance.start_date,
        TaskInstance.dag_version_id, Fields.rendered_fields,
    )  # fmt: skip
    query = join_rendered_fields(select(*place_columns(TaskInstance), map_index_column(), *columns)).join(
        DagRun, and_(DagRun.dag_id == TaskInstance.dag_id, DagRun.run_id == TaskInstance.run_id)
    )
    conditions: list[Any] = [TaskInstance.state.in_(WAITING_STATES)]
    if soon:
        # A cleared task has no state, and has run. It may have lost its fields, and its run may have ended.
        may_run = (
            Fields.rendered_fields.is_not(null()),
            TaskInstance.try_number > 0,
            DagRun.state.not_in(ENDED_RUN_STATES),
        )
        conditions += [
            TaskInstance.state.in_(RESUMING_STATES),
            and_(TaskInstance.state.is_(None), or_(*may_run)),
        ]
    found = session.execute(query.where(or_(*conditions))).all()
    unrendered = [row for row in found if row[-1] is None and row.operator not in _UNRENDERED]
    declared = _declared_fields(session, {row[-2] for row in unrendered} - {None})
    others = _fields_in_other_runs(session, {(row[0], row[2]) for row in unrendered} - declared.keys())
    rows = []
    for *known, operator, began, _, rendered in found:
        task = (known[0], known[2])
        fields = rendered or _UNRENDERED.get(operator) or declared.get(task) or others.get(task)
        if _may_wait(operator, fields):
            rows.append((*known, operator, began, fields))
    first = _first_pokes(session, [row[6] for row in rows])
    for *place, map_index, id_, state, operator, began, fields in rows:
        one = WaitingTask(
            TaskPlace.of(*place),
            map_index,
            {"running": WORKER, "deferred": TRIGGERER}.get(state, NOTHING),
            first.get(id_) or as_seconds(began),
            conn_id=_text(fields, CONNECTION_FIELD),
            is_batch=operator == BATCH_OPERATOR,
        )
        if "instance_id" in fields:  # a sensor
            shown = _text(fields, "instance_id")
            one.instance_ids = None if shown is None else (shown,)
            one.business_key = _text(fields, "business_key")
        else:
            one.starts, one.author_key = True, _text(fields, "business_key")
        name = _text(fields, "bpm_name")
        one.bpm_names = () if name is None else (name,)
        yield one


def _declared_fields(session: Any, versions: Collection[Any]) -> dict[tuple[str, str], dict[str, None]]:
    """Return the names of the template fields of tasks, each without a value, by DAG and task id.

    :param versions: the ids of the versions of DAGs that have the tasks.
    """
    from airflow.models.serialized_dag import SerializedDagModel  # noqa: PLC0415
    from sqlalchemy import select  # noqa: PLC0415

    found: dict[tuple[str, str], dict[str, None]] = {}
    for some in chunks(versions):
        query = select(SerializedDagModel).where(SerializedDagModel.dag_version_id.in_(some))
        for dag in session.scalars(query):
            for task in dag.data["dag"]["tasks"]:
                names = task["__var"].get("template_fields", ())
                found[dag.dag_id, task["__var"]["task_id"]] = dict.fromkeys(names)
    return found


def _fields_in_other_runs(
    session: Any, tasks: Collection[tuple[str, str]]
) -> dict[tuple[str, str], dict[str, None]]:
    """Return the names of the rendered fields that tasks of this provider have in other runs, each without a value.

    :param tasks: the DAG and task ids of the tasks.
    """
    from airflow.models.renderedtifields import RenderedTaskInstanceFields as Fields  # noqa: PLC0415
    from airflow.models.taskinstance import TaskInstance  # noqa: PLC0415
    from sqlalchemy import String, cast, select, tuple_  # noqa: PLC0415

    task = (TaskInstance.dag_id, TaskInstance.task_id)
    query = join_rendered_fields(select(*task, Fields.rendered_fields)).where(
        cast(Fields.rendered_fields, String).contains(CONNECTION_FIELD)
    )
    found: dict[tuple[str, str], dict[str, None]] = {}
    for some in chunks(tasks):
        for dag_id, task_id, fields in session.execute(query.where(tuple_(*task).in_(some))):
            found[dag_id, task_id] = dict.fromkeys(fields)
    return found


def _may_wait(operator: str | None, fields: object) -> bool:
    """Return whether a task is of this provider and may wait, by its rendered fields. Subclasses have other names."""
    return isinstance(fields, dict) and CONNECTION_FIELD in fields and operator not in OPERATORS_WITHOUT_WAIT


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    """Return a rendered field, or ``None`` if it is not set, masked or cut off."""
    value = fields.get(name)
    if not isinstance(value, str) or not value or "***" in value or value.startswith("Truncated. "):
        return None
    return value


def _first_pokes(session: Any, ids: Collection[Any]) -> dict[Any, float | None]:
    from airflow.models.taskreschedule import TaskReschedule  # noqa: PLC0415
    from sqlalchemy import func, select  # noqa: PLC0415

    found: dict[Any, float | None] = {}
    for some in chunks(ids):
        query = select(TaskReschedule.ti_id, func.min(TaskReschedule.start_date))
        for id_, first in session.execute(
            query.where(TaskReschedule.ti_id.in_(some)).group_by(TaskReschedule.ti_id)
        ):
            found[id_] = as_seconds(first)
    return found


def _add_xcoms(one: WaitingTask, xcoms: Mapping[str, Any]) -> None:
    ids, met = xcoms.get(xcom_keys.INSTANCE_IDS), xcoms.get(xcom_keys.SATISFIED_LAUNCHES)
    if isinstance(ids, list):
        one.is_batch = True
        done = set(met) if isinstance(met, list) else set()
        one.instance_ids = tuple(id_ for number, id_ in enumerate(ids, 1) if id_ and number not in done)
    elif one.instance_ids is None and isinstance(id_ := xcoms.get(xcom_keys.INSTANCE_ID), str):
        one.instance_ids = (id_,)
    if isinstance(names := xcoms.get(xcom_keys.BPM_NAMES), list) and not one.bpm_names:
        one.bpm_names = tuple(names)


def _add_record(one: WaitingTask, record: Any) -> None:
    if not isinstance(record, dict):
        return
    if one.instance_ids is None and isinstance(record.get("instance_id"), str):
        one.instance_ids = (record["instance_id"],)
    if record.get("deadline") is not None:
        one.deadline, one.has_deadline = record["deadline"], True
