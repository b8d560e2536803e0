"""Let a pipeline wait for a process that something else started.

The instance is known by its business key alone. It need not exist yet: the sensor waits for it to appear, then for it to
come to a good end. One that has ended well already opens the gate at once: a supplier is onboarded only once. While
it waits the task holds no worker slot.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, task

from airflow_provider_astrobpm.sensors.bpm import AstroZeroBpmInstanceSensor


@dag(
    schedule=None,
    catchup=False,
    params={"supplier": Param("ACME", type="string", minLength=1)},
    tags=["astro_zero", "example"],
    doc_md=__doc__,
)
def gate_on_instance() -> None:
    """Wait for the supplier to be onboarded, then load its data."""
    onboarded = AstroZeroBpmInstanceSensor(
        task_id="onboarded",
        business_key="supplier-{{ params.supplier }}",
        bpm_name="SupplierOnboarding",
        states=["Completed OK"],
        bp_statuses=["Onboarded"],
        deferrable=True,
        poke_interval=timedelta(minutes=1),
        timeout=timedelta(days=7),
    )

    @task
    def load_supplier(instance: dict[str, Any]) -> None:
        print("Loading what belongs to", instance["business_key"])

    load_supplier(onboarded.output)


gate_on_instance()
