"""Waits that fail at once and leave their instances open. After a clear they are patient."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG

from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroStartBpmBatchOperator,
    AstroZeroStartBpmInstanceOperator,
)

BPM = "PublishApproval"


def be_patient_after_a_clear(context: Any) -> None:
    """Wait for a long time in the second try; an operator calls this before it runs."""
    if context["ti"].try_number > 1:
        context["task"].timeout = 600.0


COMMON: dict[str, Any] = {
    "task_id": "approve",
    "astro_zero_conn_id": "{{ dag_run.conf.get('connection', 'astro_zero_default') }}",
    "bp_statuses": ["Approved"],
    "poll_interval": 1,
    "deferrable": True,
    "timeout": 0.001,
    "pre_execute": be_patient_after_a_clear,
}
RUNS: dict[str, Any] = {"schedule": None, "catchup": False, "is_paused_upon_creation": False}

ONE: dict[str, Any] = {"bpm_name": BPM, "title": "{{ run_id }}"}

with DAG("fails", **RUNS):
    AstroZeroStartBpmInstanceOperator(**ONE, **COMMON)

with DAG("fails_as_batch", **RUNS):
    AstroZeroStartBpmBatchOperator(launches=[ONE, ONE], **COMMON)

with DAG("fails_with_own_keys", **RUNS):
    AstroZeroStartBpmInstanceOperator(**ONE, business_key="own {{ run_id }}", **COMMON)

with DAG("fails_as_batch_with_own_keys", **RUNS):
    launches = [{**ONE, "business_key": f"own {{{{ run_id }}}} {number}"} for number in range(2)]
    AstroZeroStartBpmBatchOperator(launches=launches, **COMMON)
