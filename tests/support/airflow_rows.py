"""Puts task instances, with their triggers, XComs and rendered fields, into Airflow's database, through Airflow's own models."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from airflow.models.dag import DagModel
from airflow.models.dag_version import DagVersion
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState

from airflow_provider_astrobpm._airflow import version_compat


def moment(seconds_ago: float) -> datetime:
    return datetime.fromtimestamp(time.time() - seconds_ago, timezone.utc)


def serialized(dag: Any) -> Any:
    """Return a DAG as Airflow stores it."""
    try:  # since Airflow 3.2
        from airflow.serialization.serialized_objects import DagSerialization  # noqa: PLC0415
    except ImportError:
        from airflow.serialization.serialized_objects import (  # type: ignore[assignment, attr-defined, unused-ignore]  # noqa: PLC0415
            SerializedDAG as DagSerialization,
        )
    return DagSerialization.to_dict(dag)


class AirflowRows:
    """Adds rows to Airflow's database.

    :param session: a session of the database.
    """

    def __init__(self, session: Any) -> None:
        self.session = session
        self._runs: set[tuple[str, str]] = set()

    def task(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        state: str | None,
        *,
        operator: str = "AstroZeroStartBpmInstanceOperator",
        map_index: int = -1,
        seconds_ago: float = 3600,
        changed_ago: float | None = None,
        trigger: Any = None,
        xcoms: Mapping[str, Any] | None = None,
        fields: Mapping[str, Any] | None = None,
        record: Mapping[str, Any] | None = None,
        run_state: str | None = None,
        try_number: int = 1,
    ) -> None:
        """Add a task instance.

        :param seconds_ago: when it began.
        :param changed_ago: when it changed last; by default when it began.
        :param trigger: the trigger for which it is deferred.
        :param xcoms: its XComs.
        :param fields: its rendered fields.
        :param record: its record in the task state store (Airflow 3.3).
        :param run_state: the state of its run, if this is the run's first task; by default the run has failed if the task has ended.
        :param try_number: the number of its last try; 0 if it has not run.
        """
        ended = state in {"failed", "success", "skipped", "upstream_failed", "removed"}
        self._add_run(dag_id, run_id, run_state or ("failed" if ended else "running"))
        row = None
        if trigger is not None:
            row = Trigger.from_object(trigger)
            self.session.add(row)
            self.session.flush()
        changed = moment(seconds_ago if changed_ago is None else changed_ago)
        values: dict[str, Any] = {
            "dag_id": dag_id,
            "run_id": run_id,
            "task_id": task_id,
            "map_index": map_index,
            "region_index": map_index,
            "state": state,
            "operator": operator,
            "pool": "default_pool",
            "try_number": try_number,
            "max_tries": 0,
            "start_date": moment(seconds_ago),
            "end_date": changed if ended else None,
            "updated_at": changed,
            "trigger_id": None if row is None else row.id,
        }
        table = TaskInstance.__table__
        shown = {name: value for name, value in values.items() if name in table.c}
        self.session.execute(table.insert(), [shown])  # the type of its id depends on the version of Airflow
        same = (table.c[name] == shown[name] for name in ("dag_id", "run_id", "task_id"))
        index = table.c.get("map_index", table.c.get("region_index"))
        values["id"] = self.session.execute(table.select().where(*same, index == map_index)).one().id
        for key, value in (xcoms or {}).items():
            XComModel.set(
                key,
                value,
                dag_id=dag_id,
                run_id=run_id,
                task_id=task_id,
                map_index=map_index,
                session=self.session,
            )
        if fields is not None:
            self._add_fields(values, dict(fields))
        if record is not None:
            model = version_compat.task_state_model()
            self.session.execute(model.__table__.insert(), [self._record(model, values, record)])

    def version(self, dag: Any) -> None:
        """Add a version of a DAG, which all of its task instances so far get."""
        name = "tests"
        version = DagVersion(dag_id=dag.dag_id, bundle_name=name, version_number=1)
        dag_model: Any = DagModel
        for row in (DagBundleModel(name=name), dag_model(dag_id=dag.dag_id, bundle_name=name), version):
            self.session.add(row)
            self.session.flush()
        stored = {
            "id": uuid.uuid4(), "dag_id": dag.dag_id, "dag_version_id": version.id, "data": serialized(dag),
            "dag_hash": "", "created_at": moment(0), "last_updated": moment(0),
        }  # fmt: skip
        self.session.execute(SerializedDagModel.__table__.insert(), [stored])
        own = TaskInstance.dag_id == dag.dag_id
        self.session.execute(TaskInstance.__table__.update().where(own).values(dag_version_id=version.id))

    def _add_run(self, dag_id: str, run_id: str, state: str) -> None:
        if (dag_id, run_id) in self._runs:
            return
        self._runs.add((dag_id, run_id))
        run = DagRun(
            dag_id=dag_id,
            run_id=run_id,
            run_type="manual",
            state=DagRunState(state),
            logical_date=None,
            run_after=moment(0),
        )
        self.session.add(run)
        self.session.flush()

    def _add_fields(self, values: Mapping[str, Any], fields: dict[str, Any]) -> None:
        table = RenderedTaskInstanceFields.__table__
        row = {**values, "task_instance_id": values["id"], "id": uuid.uuid4(), "rendered_fields": fields}
        self.session.execute(
            table.insert(), [{name: value for name, value in row.items() if name in table.c}]
        )

    def _record(self, model: Any, values: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
        run = (
            self.session.query(DagRun.id).filter_by(dag_id=values["dag_id"], run_id=values["run_id"]).scalar()
        )
        row = {**values, "dag_run_id": run, "key": "astro_zero_launch", "value": json.dumps(record)}
        row["updated_at"] = moment(0)
        return {name: value for name, value in row.items() if name in model.__table__.c and name != "id"}


@contextmanager
def airflow_rows() -> Iterator[AirflowRows]:
    """Provide an empty set of rows, and remove all runs and triggers at the beginning and at the end."""

    def clear() -> None:
        with create_session() as session:
            session.execute(DagRun.__table__.delete())
            for model in (Trigger, DagModel, DagBundleModel):
                session.execute(model.__table__.delete())

    clear()
    try:
        with create_session() as session:
            yield AirflowRows(session)
    finally:
        clear()
