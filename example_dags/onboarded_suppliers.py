"""Run whenever a process has ended that people started.

Somebody onboards a supplier in Astro Zero, and no DAG has asked for it. A watcher sees the process end and lets the asset
have an event; this DAG is scheduled on the asset. It runs once for all the suppliers that were onboarded before it starts.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, AssetWatcher, dag, task

from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmEventTrigger

supplier_onboarded = Asset(
    "supplier_onboarded",
    watchers=[
        AssetWatcher(
            name="onboarding_ended",
            trigger=AstroZeroBpmEventTrigger(
                bpm_name="SupplierOnboarding",
                states=["Completed OK"],
                poll_interval=timedelta(seconds=10),
            ),
        )
    ],
)


@dag(schedule=[supplier_onboarded], catchup=False, tags=["astro_zero", "example"], doc_md=__doc__)
def onboarded_suppliers() -> None:
    """Load the data of suppliers that have been onboarded."""

    @task
    def load_suppliers(triggering_asset_events: dict[Asset, list[Any]] | None = None) -> list[str]:
        suppliers = []
        for event in (triggering_asset_events or {}).get(supplier_onboarded, []):
            instance = event.extra["payload"]
            if instance["bp_status"] == "Onboarded":
                print("Loading what belongs to", instance["business_key"])
                suppliers.append(instance["business_key"])
        return suppliers

    load_suppliers()


onboarded_suppliers()
