"""Run whenever a process that people started has ended.

A person onboards a supplier in Astro Zero, without a request of a DAG. A watcher notices the end of the process and sends an
event of the asset, and this DAG is scheduled on the asset. It runs once for all suppliers that were onboarded before it starts.
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
