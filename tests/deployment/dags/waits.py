"""DAGs of one task, which starts an instance and waits for it; they differ in how they wait.

The run's id is the instance's business key, which identifies the instance of a run.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator

KINDS: dict[str, dict[str, Any]] = {
    "wait_for_person": {},
    "wait_and_leave": {"terminate_on_kill": False},
    # Its wait ends while the instance is still open.
    "wait_for_status": {"bp_statuses": ["Checked"]},
    "wait_on_worker": {"deferrable": False},
    "wait_with_execution_timeout": {
        "execution_timeout": timedelta(seconds=20),
        "on_timeout": "terminate",
    },
}

for dag_id, arguments in KINDS.items():
    with DAG(dag_id, schedule=None, catchup=False, is_paused_upon_creation=False, max_active_runs=100):
        AstroZeroStartBpmInstanceOperator(
            task_id="wait",
            astro_zero_conn_id="{{ dag_run.conf['connection'] }}",
            bpm_name="PublishApproval",
            business_key="{{ run_id }}",
            poll_interval=2,
            **{"deferrable": True, **arguments},
        )
