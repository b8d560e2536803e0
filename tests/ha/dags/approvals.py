"""DAGs of one task, mapped over a few data sets: each starts an instance and waits for it, without a worker.

The title of an instance names the task that started it. The operator chooses its business key.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator

DATA_SETS = 5
# A rejection fails a try like any other failure, and a retry would ask the people again.
RETRIES = {"approvals": 2, "rejections": 0}

for dag_id, retries in RETRIES.items():
    with DAG(dag_id, schedule=None, catchup=False, is_paused_upon_creation=False, max_active_runs=100):
        AstroZeroStartBpmInstanceOperator.partial(
            task_id="wait",
            bpm_name="PublishApproval",
            title="{{ run_id }} {{ ti.map_index }}",
            failed_bp_statuses=["Rejected"],
            deferrable=True,
            poll_interval=2,
            retries=retries,
            retry_delay=timedelta(seconds=1),
        ).expand(variables=[{"dataset": f"data set {number}"} for number in range(DATA_SETS)])
