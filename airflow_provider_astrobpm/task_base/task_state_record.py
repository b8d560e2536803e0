"""The try of a task, and the record that all tries of the task share."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from airflow_provider_astrobpm._airflow.version_compat import store_for_good, task_state_store
from airflow_provider_astrobpm.batches.batch_record import BatchRecord
from airflow_provider_astrobpm.client import texts
from airflow_provider_astrobpm.client.errors import AstroZeroError
from airflow_provider_astrobpm.starting.business_keys import TaskIdentity, region_of
from airflow_provider_astrobpm.starting.decision import StartRecord
from airflow_provider_astrobpm.starting.try_request import TaskTry

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_astrobpm.starting.try_record import TryRecord

R = TypeVar("R", StartRecord, BatchRecord)

STORE_KEYS: dict[type[Any], str] = {StartRecord: "astro_zero_launch", BatchRecord: "astro_zero_batch"}


def task_try(context: Context, *, retries: int, record: TryRecord | None) -> TaskTry:
    """Return the try that a task context belongs to.

    :param retries: the retries of the task in the current DAG.
    :param record: the record of earlier tries, if there is one.
    """
    ti = context["ti"]
    index = getattr(ti, "map_index", None)
    due = getattr(context.get("dag_run"), "run_after", None)
    return TaskTry.of(
        TaskIdentity(
            ti.dag_id, ti.run_id, ti.task_id, -1 if index is None else index, region_of(ti, context)
        ),
        record,
        try_number=ti.try_number,
        max_tries=ti.max_tries,
        retries=retries,
        now=time.time(),
        due=due.timestamp() if due else None,
        was_rescheduled=bool(context.get("task_reschedule_count")),
    )


@dataclass(frozen=True)
class BegunTry(Generic[R]):
    """A try that has recorded its intent.

    :param state_record: access to the record that the tries of the task share.
    :param this: the try.
    :param record: the record of earlier tries, if there is one.
    """

    state_record: TaskStateRecord[R]
    this: TaskTry
    record: R | None

    @property
    def has_started(self) -> bool:
        """Whether an earlier try of this generation has begun to send starts."""
        return self.record is not None and self.record.has_begun(self.this.generation)


def begin_try(context: Context, kind: type[R], *, retries: int) -> BegunTry[R]:
    """Begin a try: record that it has begun, before it does anything else.

    A later try that finds this and no record of a start knows that no start was sent.

    :param context: the context of the task.
    :param kind: the type of the record.
    :param retries: the retries of the task in the current DAG.
    :raises AstroZeroError: if this version cannot read the record.
    """
    state_record = TaskStateRecord(context, kind)
    record = state_record.read()
    this = task_try(context, retries=retries, record=record)
    intent = this.intent(record, kind)
    if intent != record:
        state_record.write(intent)
    return BegunTry(state_record, this, record)


class TaskStateRecord(Generic[R]):
    """Access to the record that the tries of a task share, in Airflow's task state store. Before Airflow 3.3 there is none.

    :param context: the context of the task.
    :param kind: the type of the record.
    """

    def __init__(self, context: Context, kind: type[R]) -> None:
        store: Any = task_state_store(context)
        self._store = store
        self._kind: type[R] = kind
        self._key = STORE_KEYS[kind]

    def __bool__(self) -> bool:
        return self._store is not None

    def read(self) -> R | None:
        """Return the record, if there is one.

        :raises AstroZeroError: if this version cannot read it.
        """
        written = self._store.get(self._key) if self else None
        try:
            return None if written is None else msgspec.convert(texts.storable(written), self._kind)
        except (msgspec.ValidationError, ValueError, RecursionError) as error:
            raise AstroZeroError(
                f"The record of an earlier try ({self._key!r} in the task state store) cannot be read: {error}"
            ) from None

    def write(self, record: R) -> None:
        """Replace the record. It is kept as long as the DAG run: a wait may take longer than any other limit."""
        if self:
            # The store accepts only plain JSON; to_builtins() would leave tuples as they are.
            plain = msgspec.json.decode(msgspec.json.encode(record))
            store_for_good(self._store, self._key, plain)
