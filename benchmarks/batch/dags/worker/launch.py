"""Tasks that report the cost of the operator, with launches from an upstream task's list and from a file."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmBatchOperator
from benchmarks.batch.process_cost import COST, Cost, cpu, memory, peak

if TYPE_CHECKING:
    from airflow.sdk import Context


class MeasuredOperator(AstroZeroStartBpmBatchOperator):
    """The operator with an additional XCom for its cost and its trigger."""

    def execute(self, context: Context) -> dict[str, Any]:
        """Execute the operator and measure it."""
        began, cpu_before, trigger = time.monotonic(), cpu(), None
        try:
            return super().execute(context)
        except TaskDeferred as deferred:
            trigger = list(deferred.trigger.serialize())
            raise
        finally:
            cost = Cost(time.monotonic() - began, cpu() - cpu_before, IDLE, peak())
            context["ti"].xcom_push(key=COST, value={"cost": asdict(cost), "trigger": trigger})


with DAG("launch", schedule=None):
    common: dict[str, Any] = {"deferrable": True, "poll_interval": 5}
    launches: Any = EmptyOperator(task_id="launches").output  # the API server has its return value
    MeasuredOperator(task_id="list", launches=launches, **common)
    MeasuredOperator(task_id="file", launches_path=os.environ["LAUNCHES"], **common)

IDLE = memory()
