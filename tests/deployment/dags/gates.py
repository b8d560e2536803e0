"""A DAG that publishes only after somebody has approved it; the run's id is the instance's business key."""

from __future__ import annotations

from airflow.sdk import DAG, task

from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator

with DAG("publish_after_approval", schedule=None, catchup=False, is_paused_upon_creation=False):
    approval = AstroZeroStartBpmInstanceOperator(
        task_id="wait",
        bpm_name="PublishApproval",
        business_key="{{ run_id }}",
        failed_bp_statuses=["Rejected"],
        poll_interval=2,
        deferrable=True,
    )

    @task
    def publish() -> str:
        return "published"

    approval >> publish()
