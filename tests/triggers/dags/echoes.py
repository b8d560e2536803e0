"""Tasks whose server repeats every secret. Each has its own connection, and so its own place of the secrets."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG

from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroQueryBpmInstancesOperator,
    AstroZeroStartBpmBatchOperator,
    AstroZeroStartBpmInstanceOperator,
)
from airflow_provider_astrobpm.sensors.bpm import AstroZeroBpmInstanceSensor

BPM = "SupplierOnboarding"
SOON: dict[str, Any] = {"poll_interval": 1, "max_poll_failure_time": 0.1}
PLACES: dict[str, tuple[str, str]] = {
    "started_on_worker": ("row", "start"),
    "started_deferred": ("list", "query"),
    "refused_on_worker": ("refused", "start"),
    "failed_deferred": ("failed", "query"),
    "cut_off": ("status_line", "query"),
    "batch": ("row", "start"),
    "queried": ("list", "query"),
    "sensed": ("header", "query"),
    "told": ("row", "start"),
}
"""The place of the secrets and the kind of call, for each task."""

ended: list[BaseException] = []
"""The errors of failed tasks."""


def keep(context: Any) -> None:
    ended.append(context["exception"])


with DAG("echoes", schedule=None, default_args={"on_failure_callback": keep}) as dag:
    AstroZeroStartBpmInstanceOperator(
        task_id="started_on_worker", bpm_name=BPM, astro_zero_conn_id="started_on_worker", **SOON
    )
    AstroZeroStartBpmInstanceOperator(
        task_id="started_deferred",
        bpm_name=BPM,
        deferrable=True,
        astro_zero_conn_id="started_deferred",
        **SOON,
    )
    AstroZeroStartBpmInstanceOperator(
        task_id="refused_on_worker", bpm_name=BPM, astro_zero_conn_id="refused_on_worker", **SOON
    )
    AstroZeroStartBpmInstanceOperator(
        task_id="failed_deferred", bpm_name=BPM, deferrable=True, astro_zero_conn_id="failed_deferred", **SOON
    )
    AstroZeroStartBpmInstanceOperator(task_id="cut_off", bpm_name=BPM, astro_zero_conn_id="cut_off", **SOON)
    AstroZeroStartBpmBatchOperator(
        task_id="batch",
        bpm_name=BPM,
        launches=[{}, {}],
        wait_for_completion=False,
        astro_zero_conn_id="batch",
    )
    AstroZeroQueryBpmInstancesOperator(task_id="queried", states=["Running"], astro_zero_conn_id="queried")
    AstroZeroBpmInstanceSensor(
        task_id="sensed",
        instance_id="002N00000000001",
        poke_interval=1,
        max_poll_failure_time=0.1,
        astro_zero_conn_id="sensed",
    )
    for task in tuple(dag.tasks)[:4]:
        task >> AstroZeroStartBpmInstanceOperator(
            task_id=f"told_{task.task_id}",
            bpm_name=BPM,
            variables={"of": f"{{{{ ti.xcom_pull(task_ids='{task.task_id}') }}}}"},
            title=f"{{{{ ti.xcom_pull(task_ids='{task.task_id}', key='instance_id') }}}}",
            wait_for_completion=False,
            trigger_rule="all_done",
            astro_zero_conn_id="told",
        )
