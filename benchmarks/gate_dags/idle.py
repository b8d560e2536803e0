"""Airflow alone: a task that defers and resumes, and does nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

from benchmarks.batch.process_cost import DAG_ID

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow.sdk import Context


class IdleTrigger(BaseTrigger):
    """A trigger that fires at once."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return "benchmarks.gate_dags.idle.IdleTrigger", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire."""
        yield TriggerEvent({})  # type: ignore[no-untyped-call]


class IdleOperator(BaseOperator):
    """A task that only defers."""

    def execute(self, context: Context) -> None:
        """Defer."""
        trigger = IdleTrigger()  # type: ignore[no-untyped-call]
        self.defer(trigger=trigger, method_name="execute_complete")

    def execute_complete(self, context: Context, event: Any = None) -> None:
        """Resume, and do nothing."""


with DAG(DAG_ID, schedule=None):
    IdleOperator(task_id="gate")
