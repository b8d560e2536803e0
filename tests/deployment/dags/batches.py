"""DAGs of one task, which starts a batch and waits for it; they differ in where they wait.

The run's id is the title of each instance, which identifies the instances of a run.
"""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmBatchOperator

LAUNCHES = 200

for dag_id, deferrable in {"batch_deferred": True, "batch_on_worker": False}.items():
    with DAG(dag_id, schedule=None, catchup=False, is_paused_upon_creation=False, max_active_runs=100):
        AstroZeroStartBpmBatchOperator(
            task_id="wait",
            astro_zero_conn_id="{{ dag_run.conf['connection'] }}",
            bpm_name="PublishApproval",
            launches=[{"title": "{{ run_id }}", "variables": {"row_count": n}} for n in range(LAUNCHES)],
            rate_limit=None if deferrable else 10,  # it takes Airflow a while to stop a worker
            poll_interval=2,
            deferrable=deferrable,
        )
