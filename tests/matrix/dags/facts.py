"""DAGs for what a task finds in its Airflow, a gate, a retry policy, deadlines and a watcher."""

from __future__ import annotations

import importlib
import platform
import sys
from contextlib import suppress
from datetime import timedelta
from importlib import metadata
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

import airflow_provider_astrobpm
from airflow_provider_astrobpm.notifications.bpm import AstroZeroStartBpmNotifier
from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator
from airflow_provider_astrobpm.policies.bpm import astro_zero_retry_policy
from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmEventTrigger

COMMON: dict[str, Any] = {"schedule": None, "catchup": False, "is_paused_upon_creation": False}
CONNECTION = "{{ dag_run.conf.get('connection', 'astro_zero_default') }}"
BPM = "PublishApproval"

POLICY: dict[str, Any] = {}
POLICY_ERROR: str | None = None
try:
    POLICY["retry_policy"] = astro_zero_retry_policy(max_delay=2)
except RuntimeError as error:
    POLICY_ERROR = type(error).__name__


def error_of_queue() -> str | None:
    """Return the class of the error that refuses a queue for an asset watcher's trigger."""
    try:
        AstroZeroBpmEventTrigger(bpm_name=BPM, queue="people")
    except ValueError as error:
        return type(error).__name__
    return None


def place_of_deadlines() -> str | None:
    """Return the module from which a DAG imports deadline alerts."""
    for name in ("airflow.sdk", "airflow.sdk.definitions.deadline"):
        with suppress(ImportError, AttributeError):
            module = importlib.import_module(name)
            module.DeadlineAlert  # noqa: B018 - a lazy import
            return name
    return None


with DAG("facts", **COMMON):

    @task(multiple_outputs=False)  # Airflow 3.0 cannot store a value of None by itself
    def find(**context: Any) -> dict[str, Any]:
        from airflow.configuration import conf  # noqa: PLC0415

        declared = metadata.metadata("apache-airflow").get_all("Classifier") or []
        return {
            "airflow": metadata.version("apache-airflow"),
            "python": platform.python_version(),
            "installed in": airflow_provider_astrobpm.__file__,
            "prefix": sys.prefix,
            "pythons": [each.rpartition(":: ")[2] for each in declared if ":: Python :: 3." in each],
            "record": context.get("task_state_store") is not None,
            "policy": POLICY_ERROR,
            "queue": error_of_queue(),
            "alerts": place_of_deadlines(),
            "metrics": conf.has_option("metrics", "legacy_names_on"),
        }

    find()

with DAG("gate", **COMMON, max_active_runs=100):
    gate = AstroZeroStartBpmInstanceOperator(
        task_id="wait",
        astro_zero_conn_id=CONNECTION,
        bpm_name=BPM,
        title="{{ run_id }}",
        failed_bp_statuses=["Rejected"],
        poll_interval=1,
        deferrable=True,
    )

    @task
    def publish() -> str:
        return "published"

    gate >> publish()

with DAG("policy", **COMMON):
    AstroZeroStartBpmInstanceOperator(
        task_id="wait",
        astro_zero_conn_id=CONNECTION,
        bpm_name="NoSuch",
        retries=3,
        retry_delay=timedelta(hours=1),
        **POLICY,
    )

with DAG("outage", **COMMON):
    AstroZeroStartBpmInstanceOperator(
        task_id="wait",
        astro_zero_conn_id=CONNECTION,
        bpm_name=BPM,
        retries=3,
        retry_delay=timedelta(hours=1),
        **POLICY,
    )

DEADLINES: dict[str, Any] = {}
with suppress(ImportError, ValueError):  # before Airflow 3.2 there are no deadlines, or none of both kinds
    from airflow.sdk.definitions.callback import AsyncCallback, SyncCallback
    from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

    DEADLINES["deadline"] = [
        DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=timedelta(seconds=1),
            callback=kind(
                AstroZeroStartBpmNotifier,
                kwargs={
                    "astro_zero_conn_id": "late_zero",
                    "bpm_name": "SupplierOnboarding",
                    "title": kind.__name__,
                },
            ),
        )
        for kind in (AsyncCallback, SyncCallback)
    ]

with DAG("late", **COMMON, **DEADLINES):
    AstroZeroStartBpmInstanceOperator(
        task_id="wait",
        astro_zero_conn_id=CONNECTION,
        bpm_name=BPM,
        title="{{ run_id }}",
        poll_interval=1,
        deferrable=True,
    )

ended = Asset(
    "ended",
    watchers=[
        AssetWatcher(
            name="ended",
            trigger=AstroZeroBpmEventTrigger(
                bpm_name="SupplierOnboarding", poll_interval=2, astro_zero_conn_id="watched_zero"
            ),
        )
    ],
)

with DAG("watching", schedule=[ended], catchup=False, is_paused_upon_creation=False):

    @task
    def read() -> None:
        """Stand for the step that needs the events."""

    read()
