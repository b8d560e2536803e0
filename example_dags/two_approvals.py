"""Ask an engineer in Airflow, then the owner of the data in Astro Zero.

The engineer looks at the run in Airflow's own page and decides whether the numbers are worth a review. That is one question to
a person who works with Airflow, so Airflow asks it. The owner of the data does not use Airflow, and may hand the review on, so
Astro Zero asks. Nothing is published unless both approve. Needs Airflow 3.1 or newer.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import dag, task

from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator


@dag(schedule=None, catchup=False, tags=["astro_zero", "example"], doc_md=__doc__)
def two_approvals() -> None:
    """Count, ask twice, publish."""

    @task
    def count_rows() -> int:
        return 18_204

    counted = count_rows()
    # Reject skips what follows. Without ``defaults``, silence is no yes: the task fails after a day.
    look_at_the_numbers = ApprovalOperator(
        task_id="look_at_the_numbers",
        subject="Are the numbers of {{ run_id }} worth a review?",
        body="Rows: {{ ti.xcom_pull(task_ids='count_rows') }}",
        response_timeout=timedelta(days=1),
    )
    request_approval = AstroZeroStartBpmInstanceOperator(
        task_id="request_approval",
        bpm_name="PublishApproval",
        variables={"dataset": "sales_daily", "row_count": counted},
        title="Publish sales_daily of {{ run_id }}",
        bp_statuses=["Approved"],
        poll_interval=timedelta(seconds=5),
        timeout=timedelta(days=3),
        deferrable=True,
    )

    @task
    def publish() -> None:
        print("Published.")

    counted >> look_at_the_numbers >> request_approval >> publish()


two_approvals()
