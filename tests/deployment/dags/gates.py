"""DAGs that publish one or several items only after their approval."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task, task_group

from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator

with DAG("publish_after_approval", schedule=None, catchup=False, is_paused_upon_creation=False):
    approval = AstroZeroStartBpmInstanceOperator(
        task_id="wait",
        astro_zero_conn_id="{{ dag_run.conf['connection'] }}",
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

with DAG("publish_each", schedule=None, catchup=False, is_paused_upon_creation=False):

    @task_group
    def item(name: Any) -> None:
        """Publish one thing after its approval."""
        approval = AstroZeroStartBpmInstanceOperator(
            task_id="approval",
            astro_zero_conn_id="{{ dag_run.conf['connection'] }}",
            bpm_name="PublishApproval",
            variables={"dataset": name},
            bp_statuses=["Approved"],
            poll_interval=2,
            deferrable=True,
        )

        @task
        def publish() -> str:
            return "published"

        approval >> publish()

    item.expand(name=["sales", "stock", "staff"])
