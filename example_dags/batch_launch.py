"""Reconcile every account in its own process, and publish the books when nearly all of them have succeeded.

One task starts all processes, and one trigger waits for them. A retry of the task starts only the failed ones again.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.sdk import dag, task

from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmBatchOperator


@dag(
    schedule="0 1 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    params={"accounts": 200},
    tags=["astro_zero", "example"],
    doc_md=__doc__,
)
def batch_launch() -> None:
    """List the accounts, launch a process for each, publish."""

    @task
    def accounts(params: Any = None, dag_run: Any = None) -> list[dict[str, Any]]:
        business_date = dag_run.run_after.date().isoformat()
        return [
            {
                "id": f"account-{number}",
                "title": f"Account {number} on {business_date}",
                "variables": {"ledger": f"account-{number}", "business_date": business_date},
            }
            for number in range(params["accounts"])
        ]

    reconcile = AstroZeroStartBpmBatchOperator(
        task_id="reconcile",
        bpm_name="NightlyReconciliation",
        launches=accounts(),
        max_failures=0.01,
        poll_interval=timedelta(seconds=5),
        timeout=timedelta(hours=4),
        retries=2,
        deferrable=True,
    )

    @task
    def publish(result: dict[str, Any]) -> None:
        print(f"{result['succeeded']} of {result['total']} accounts are reconciled.")
        for launch in result["launches"]:  # failed launches come first
            if launch["outcome"] != "succeeded":
                print(f"{launch['id']} is not: {launch['reason']}")

    publish(reconcile.output)


batch_launch()
