"""Publish data only after a person has approved it.

The pipeline prepares the data, starts an approval in Astro Zero, and waits. A rejected approval also ends as ``Completed OK``,
because the process itself completed. The decision is in the business status, so the business status selects the branch.
Only ``Approved`` publishes. Any other status rolls back. An approval that breaks or is cancelled rolls back too, and the run fails.
The task is deferred while people decide, so it holds no worker slot.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task

from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator


@dag(schedule=None, catchup=False, tags=["astro_zero", "example"], doc_md=__doc__)
def approval_gate() -> None:
    """Prepare, ask, then publish or roll back."""

    @task
    def prepare_data() -> dict[str, Any]:
        return {"dataset": "sales_daily", "row_count": 18_204}

    request_approval = AstroZeroStartBpmInstanceOperator(
        task_id="request_approval",
        bpm_name="PublishApproval",
        variables=prepare_data(),
        title="Publish sales_daily of {{ run_id }}",
        poll_interval=timedelta(seconds=5),
        timeout=timedelta(days=3),
        deferrable=True,
    )

    @task.branch
    def decide(instance: dict[str, Any]) -> str:
        return "publish" if instance["bp_status"] == "Approved" else "roll_back"

    @task
    def publish() -> None:
        print("Published.")

    @task(trigger_rule="all_done")
    def roll_back() -> None:
        print("Rolled back.")

    decide(request_approval.output) >> [publish(), roll_back()]


approval_gate()
