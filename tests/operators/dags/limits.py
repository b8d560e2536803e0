"""DAGs whose task has an ``execution_timeout`` and waits for a person who never comes, in every mode."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroStartBpmBatchOperator,
    AstroZeroStartBpmInstanceOperator,
)
from airflow_provider_astrobpm.sensors.bpm import AstroZeroBpmInstanceSensor

BPM = "SupplierOnboarding"
KEY = "order-4711"

DAGS: dict[str, DAG] = {}

MODES: dict[str, dict[str, Any]] = {"on_worker": {"deferrable": False}, "deferred": {"deferrable": True}}
SENSOR_MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke", "deferrable": False},
    "reschedule": {"mode": "reschedule", "deferrable": False},
    "deferred": {"deferrable": True},
}

for on_timeout in ("leave", "suspend", "terminate"):
    limits: dict[str, Any] = {
        "task_id": "wait",
        "execution_timeout": timedelta(seconds=4),
        "on_timeout": on_timeout,
    }
    for where, how in MODES.items():
        with DAG(f"start_{where}_{on_timeout}", schedule=None) as dag:
            AstroZeroStartBpmInstanceOperator(bpm_name=BPM, poll_interval=1, **limits, **how)
        DAGS[dag.dag_id] = dag

        with DAG(f"decorated_{where}_{on_timeout}", schedule=None) as dag:

            @task.astro_bpm(bpm_name=BPM, poll_interval=1, **limits, **how)
            def wait() -> dict[str, Any]:
                return {}

            wait()
        DAGS[dag.dag_id] = dag

        with DAG(f"batch_{where}_{on_timeout}", schedule=None) as dag:
            AstroZeroStartBpmBatchOperator(
                bpm_name=BPM, launches=[{}, {}, {}], max_concurrency=1, poll_interval=1, **limits, **how
            )
        DAGS[dag.dag_id] = dag

    for where, how in SENSOR_MODES.items():
        with DAG(f"sensor_{where}_{on_timeout}", schedule=None) as dag:
            AstroZeroBpmInstanceSensor(business_key=KEY, poke_interval=1, timeout=3600, **limits, **how)
        DAGS[dag.dag_id] = dag

globals().update(DAGS)
