"""A DAG that runs for the events of a watcher whose trigger is assigned to a queue of its own."""

from __future__ import annotations

from airflow.sdk import Asset, AssetWatcher, dag, task

from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmEventTrigger

onboarded = Asset(
    "onboarded",
    watchers=[
        AssetWatcher(
            name="onboarding_ended",
            trigger=AstroZeroBpmEventTrigger(
                bpm_name="SupplierOnboarding", poll_interval=1, include_existing=True, queue="people"
            ),
        )
    ],
)


@dag(schedule=[onboarded], catchup=False, is_paused_upon_creation=False)
def watched() -> None:
    """Run for each event."""

    @task
    def load() -> None:
        """Stand for the work."""

    load()


watched()
