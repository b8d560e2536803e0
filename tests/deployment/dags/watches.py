"""DAGs that assets trigger: one by the events of a watcher, and one by events through the REST API.

The watcher has a separate Astro Zero, so that its polls do not count as those of waiting tasks.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmEventTrigger

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

for asset in (ended, Asset("pushed")):
    with DAG(f"on_{asset.name}", schedule=[asset], catchup=False, is_paused_upon_creation=False):

        @task
        def read(triggering_asset_events: dict[Asset, list[Any]] | None = None) -> list[Any]:
            """Return the payloads of the events of this run."""
            return [one.extra for events in (triggering_asset_events or {}).values() for one in events]

        read()
