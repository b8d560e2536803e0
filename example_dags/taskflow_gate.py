"""Publish data only after a person has approved it, with TaskFlow.

The function returns the variables of the approval. Its task starts the approval and waits for it, deferred while people decide.
The task succeeds when the approval shows the business status ``Approved``. Any other end fails it, and nothing is published.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task


@dag(schedule=None, catchup=False, tags=["astro_zero", "example"], doc_md=__doc__)
def taskflow_gate() -> None:
    """Count, ask, publish."""

    @task
    def count_rows() -> int:
        return 18_204

    @task.astro_bpm(
        bpm_name="PublishApproval",
        title="Publish sales_daily of {{ run_id }}",
        bp_statuses=["Approved"],
        poll_interval=timedelta(seconds=5),
        timeout=timedelta(days=3),
        deferrable=True,
    )
    def approval(row_count: int) -> dict[str, Any]:
        return {"dataset": "sales_daily", "row_count": row_count}

    @task
    def publish(instance: dict[str, Any]) -> None:
        print(f"Published, as {instance['id']} allows.")

    publish(approval(count_rows()))


taskflow_gate()
