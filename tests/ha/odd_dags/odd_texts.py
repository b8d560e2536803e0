"""DAGs that wait for instances with odd texts, in every way in which this provider passes texts to Airflow."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroStartBpmBatchOperator,
    AstroZeroStartBpmInstanceOperator,
)
from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmEventTrigger

WAITS = 51
PATIENCE = 60  # seconds for which an instance whose name cannot be read may be polled for
SETTINGS: dict[str, Any] = {"schedule": None, "catchup": False, "is_paused_upon_creation": False}
GATE: dict[str, Any] = {
    "task_id": "wait",
    "bpm_name": "PublishApproval",
    "title": "{{ run_id }} {{ ti.map_index }}",
    "bp_statuses": ["Approved"],
    "poll_interval": 2,
    "max_poll_failure_time": PATIENCE,
}

with DAG("many", **SETTINGS):
    AstroZeroStartBpmInstanceOperator.partial(**GATE, deferrable=True).expand(
        variables=[{"dataset": f"data set {number}"} for number in range(WAITS)]
    )

with DAG("impatient", **SETTINGS):
    AstroZeroStartBpmInstanceOperator(**{**GATE, "max_poll_failure_time": 0}, deferrable=True)

with DAG("on_a_worker", **SETTINGS):
    AstroZeroStartBpmInstanceOperator(**GATE, deferrable=False)

with DAG("batch", **SETTINGS):
    AstroZeroStartBpmBatchOperator(
        task_id="wait",
        launches=[{"bpm_name": "PublishApproval", "title": f"batch {number}"} for number in range(2)],
        bp_statuses=["Approved"],
        poll_interval=2,
        deferrable=True,
    )

watched = Asset(
    "watched",
    watchers=[
        AssetWatcher(
            name="watched",
            trigger=AstroZeroBpmEventTrigger(bpm_name="SupplierOnboarding", poll_interval=2),
        )
    ],
)

with DAG("on_watched", **{**SETTINGS, "schedule": [watched]}):

    @task(task_id="read")
    def read(triggering_asset_events: dict[Asset, list[Any]] | None = None) -> list[Any]:
        """Return the payloads of the events of this run."""
        return [one.extra["payload"] for events in (triggering_asset_events or {}).values() for one in events]

    read()
