"""A DAG for each way to wait, whose approval fails. ``errors`` has what their callbacks got."""

from __future__ import annotations

from datetime import datetime, timezone

from airflow.sdk import DAG

from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator

errors: list[BaseException] = []
dags: dict[str, DAG] = {}

for mode in ("worker", "deferred"):
    with DAG(f"recorded_{mode}", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)) as dag:
        AstroZeroStartBpmInstanceOperator(
            task_id="approval",
            bpm_name="SupplierOnboarding",
            variables={"supplier": "Anna Miller Ltd", "amount": 48151623},
            deferrable=mode == "deferred",
            on_failure_callback=lambda context: errors.append(context["exception"]),
        )
    dags[mode] = dag
