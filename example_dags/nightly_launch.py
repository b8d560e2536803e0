"""Launch one process for each ledger every night, and report when all of them have succeeded.

Each ledger has its own task, so a ledger that breaks can be seen and cleared separately.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.sdk import dag, task

from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator


@dag(
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    tags=["astro_zero", "example"],
    doc_md=__doc__,
)
def nightly_launch() -> None:
    """List the ledgers, launch a process for each, report."""

    @task
    def ledgers(dag_run: Any = None) -> list[dict[str, Any]]:
        business_date = dag_run.run_after.date().isoformat()
        return [{"ledger": ledger, "business_date": business_date} for ledger in ("EU", "US", "CN")]

    launch = AstroZeroStartBpmInstanceOperator.partial(
        task_id="launch",
        bpm_name="NightlyReconciliation",
        poll_interval=timedelta(seconds=5),
        timeout=timedelta(hours=2),
        max_active_tis_per_dag=4,
        map_index_template="{{ task.variables['ledger'] }}",
    ).expand(variables=ledgers())

    @task
    def report(instances: list[dict[str, Any]]) -> None:
        for instance in instances:
            print(instance["id"], instance["state"], instance["bp_status"])

    report(launch.output)


nightly_launch()
