"""Reconcile the books every night, and ask people to review a failed run.

A failed run starts an incident process, once, however often the failure is reported. On Airflow 3.3 a retry policy
fails the task at once if a retry would fail in the same way.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.sdk import dag

from airflow_provider_astrobpm.notifications.bpm import AstroZeroStartBpmNotifier
from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator
from airflow_provider_astrobpm.policies.bpm import astro_zero_retry_policy

RETRIES: dict[str, Any] = {"retries": 3, "retry_delay": timedelta(minutes=5)}
with suppress(RuntimeError):  # before Airflow 3.3
    RETRIES["retry_policy"] = astro_zero_retry_policy()


@dag(
    schedule="0 3 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    on_failure_callback=AstroZeroStartBpmNotifier(
        bpm_name="IncidentReview",
        title="{{ dag.dag_id }} has failed",
        variables={"source": "{{ dag.dag_id }}", "run": "{{ run_id }}", "detail": "{{ reason }}"},
    ),
    tags=["astro_zero", "example"],
    doc_md=__doc__,
)
def incident_on_failure() -> None:
    """Reconcile the ledger."""
    AstroZeroStartBpmInstanceOperator(
        task_id="reconcile",
        bpm_name="NightlyReconciliation",
        variables={"ledger": "EU"},
        poll_interval=timedelta(seconds=5),
        timeout=timedelta(hours=2),
        deferrable=True,
        **RETRIES,
    )


incident_on_failure()
