"""Reads the values of tasks from Airflow's database. Only the command line may read it; tasks and triggers must not."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_astrobpm._airflow.version_compat import place_columns, task_state_model
from airflow_provider_astrobpm.client.errors import AstroZeroError
from airflow_provider_astrobpm.starting.business_keys import Region, TaskIdentity

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from datetime import datetime

START_RECORD = "astro_zero_launch"
"""The key of the record that the tries of a start operator share."""
ENDED_RUN_STATES = ("success", "failed")
_CHUNK = 400  # values in one condition; databases have limits


class TaskPlace(NamedTuple):
    """Where the database keeps what belongs to a task instance.

    :param position: the map index; on Airflow 3.4 in a loop the iteration.
    :param region: the region (Airflow 3.4); ``None`` if there is none.
    """

    dag_id: str
    run_id: str
    task_id: str
    position: int
    region: str | None

    @classmethod
    def of(cls, dag_id: str, run_id: str, task_id: str, index: int, region: Any) -> TaskPlace:
        """Return the place in a row of ``place_columns``."""
        return cls(dag_id, run_id, task_id, index, str(region) if region is not None and region.int else None)

    @property
    def identities(self) -> tuple[TaskIdentity, ...]:
        """The identities that the task may have: the row does not show whether a mapped task is also in a loop."""
        own = (self.dag_id, self.run_id, self.task_id)
        if self.region is None:
            return (TaskIdentity(*own, self.position),)
        region = Region(self.region, self.position)
        return (
            TaskIdentity(*own, -1, region),
            TaskIdentity(*own, self.position, region),
            TaskIdentity(*own, self.position),
        )


@contextmanager
def database_session() -> Iterator[Any]:
    """Provide a session of Airflow's database.

    :raises AstroZeroError: if the database cannot be read.
    """
    from airflow.utils.session import create_session  # noqa: PLC0415
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    try:
        with create_session() as session:
            yield session
    except SQLAlchemyError as error:
        raise AstroZeroError(
            f"Airflow's database cannot be read here ({type(error).__name__}). Run the command where Airflow's own commands "
            "work, such as 'airflow tasks states-for-dag-run'"
        ) from error


def read_xcoms(
    session: Any, run_ids: Collection[str], keys: Collection[str]
) -> Iterator[tuple[TaskPlace, str, Any]]:
    from airflow.models.xcom import XComModel  # noqa: PLC0415
    from sqlalchemy import select  # noqa: PLC0415

    for some in chunks(run_ids):
        query = select(*place_columns(XComModel), XComModel.key, XComModel.value)
        for *place, key, value in session.execute(
            query.where(XComModel.key.in_(keys), XComModel.run_id.in_(some))
        ):
            yield TaskPlace.of(*place), key, _plain(value)


def read_records(session: Any, run_ids: Collection[str]) -> Iterator[tuple[TaskPlace, str, Any]]:
    """Yield the records that tasks keep in Airflow's task state store; none before Airflow 3.3."""
    from sqlalchemy import select  # noqa: PLC0415

    model = task_state_model()
    if model is None:
        return
    for some in chunks(run_ids):
        query = select(*place_columns(model), model.key, model.value)
        for *place, key, value in session.execute(
            query.where(model.key.in_((START_RECORD,)), model.run_id.in_(some))
        ):
            yield TaskPlace.of(*place), key, _plain(value)


def by_place(rows: Iterable[tuple[TaskPlace, str, Any]]) -> dict[TaskPlace, dict[str, Any]]:
    found: dict[TaskPlace, dict[str, Any]] = {}
    for place, key, value in rows:
        found.setdefault(place, {})[key] = value
    return found


def _plain(value: Any) -> Any:
    """Return a stored value. Airflow stores it as JSON within JSON; a custom XCom backend may store anything."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return None


def as_seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def chunks(values: Iterable[Any]) -> Iterator[list[Any]]:
    each = list(values)
    for at in range(0, len(each), _CHUNK):
        yield each[at : at + _CHUNK]
