"""Waits that fail at once and leave their instances open. A run with ``patient`` in its conf waits for a long time."""

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
    "bp_statuses": ["Approved"],
    "poll_interval": 1,
    "deferrable": True,
    "timeout": 0.001,
    "pre_execute": be_patient_after_a_clear,
}
RUNS: dict[str, Any] = {"schedule": None, "catchup": False, "is_paused_upon_creation": False}

with DAG("fails", **RUNS):
    AstroZeroStartBpmInstanceOperator(bpm_name=BPM, title="{{ run_id }}", **COMMON)

with DAG("fails_as_batch", **RUNS):
    AstroZeroStartBpmBatchOperator(
        launches=[{"bpm_name": BPM, "title": "{{ run_id }}"} for _ in range(2)], **COMMON
    )
