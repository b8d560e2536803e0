"""DAGs that fail and report it, and tasks with a retry policy whose start fails.

Each notifier is there twice, because it must not matter how often the same failure is reported.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_astrobpm.notifications.bpm import AstroZeroStartBpmNotifier
from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator
from airflow_provider_astrobpm.policies.bpm import astro_zero_retry_policy

COMMON: dict[str, Any] = {"schedule": None, "catchup": False, "is_paused_upon_creation": False}
INCIDENT: dict[str, Any] = {
    "astro_zero_conn_id": "astro_zero_with_link",
    "bpm_name": "SupplierOnboarding",
    "variables": {"supplier": "{{ run_id }}", "country": "{{ ti.task_id }}"},
}
TWICE: list[Any] = [AstroZeroStartBpmNotifier(**INCIDENT) for _ in range(2)]

with DAG("report_run", **COMMON, on_failure_callback=TWICE):

    @task(task_id="wait")
    def fail_the_run() -> None:
        raise RuntimeError("the run fails over this")

    fail_the_run()

with DAG("report_task", **COMMON):

    @task(
        task_id="wait",
        retries=1,
        retry_delay=timedelta(0),
        on_failure_callback=TWICE,
        on_retry_callback=TWICE,
    )
    def fail_the_task(_index: int) -> None:
        raise RuntimeError("the task fails over this")

    fail_the_task.expand(_index=[0, 1])

MISSED: dict[str, Any] = {
    **INCIDENT,
    "variables": {"supplier": "{{ dag_run.dag_run_id }}", "country": "{{ deadline.id }}"},
}
DEADLINES: dict[str, Any] = {}
with suppress(ImportError, ValueError):  # before Airflow 3.3 there are no deadlines, or none of both kinds
    from airflow.sdk.definitions.callback import AsyncCallback, SyncCallback
    from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

    DEADLINES["deadline"] = [
        DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=timedelta(seconds=1),
            callback=kind(AstroZeroStartBpmNotifier, kwargs={**MISSED, "title": kind.__name__}),
        )
        for kind in (AsyncCallback, SyncCallback)
    ]

with DAG("report_deadline", **COMMON, **DEADLINES):
    AstroZeroStartBpmInstanceOperator(
        task_id="wait",
        bpm_name="PublishApproval",
        business_key="{{ run_id }}",
        poll_interval=2,
        deferrable=True,
    )

POLICY: dict[str, Any] = {}
with suppress(RuntimeError):  # before Airflow 3.3
    POLICY["retry_policy"] = astro_zero_retry_policy(max_delay=2)
KINDS: dict[str, dict[str, Any]] = {
    "policy_refused": {"bpm_name": "NoSuch"},
    "policy_in_doubt": {"bpm_name": "PublishApproval", "wait_for_completion": False},
}

for dag_id, arguments in KINDS.items():
    with DAG(dag_id, **COMMON):
        AstroZeroStartBpmInstanceOperator(
            task_id="wait",
            astro_zero_conn_id="{{ dag_run.conf['connection'] }}_with_link",
            retries=3,
            retry_delay=timedelta(hours=1),
            **POLICY,
            **arguments,
        )
