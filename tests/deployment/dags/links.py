"""DAGs of one task that waits for an instance, on a connection with an ``instance_url``.

The run's id is the instance's business key, which identifies the instance of a run.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator
from airflow_provider_astrobpm.sensors.bpm import AstroZeroBpmInstanceSensor

COMMON: dict[str, Any] = {"schedule": None, "catchup": False, "is_paused_upon_creation": False}
WAIT: dict[str, Any] = {
    "task_id": "wait",
    "astro_zero_conn_id": "{{ dag_run.conf['connection'] }}_with_link",
    "business_key": "{{ run_id }}",
    "deferrable": True,
}

with DAG("link_of_operator", **COMMON):
    AstroZeroStartBpmInstanceOperator(**WAIT, bpm_name="PublishApproval", poll_interval=2)

with DAG("link_of_sensor", **COMMON):
    AstroZeroBpmInstanceSensor(**WAIT, poke_interval=2)

with DAG("link_of_decorated", **COMMON):

    @task.astro_bpm(**WAIT, bpm_name="PublishApproval", poll_interval=2)
    def publish() -> dict[str, Any]:
        return {"dataset": "{{ 7 * 6 }}", "row_count": 3}

    publish()
