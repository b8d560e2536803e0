"""Let a pipeline wait for a process that this DAG did not start.

The DAG knows only the instance's business key. The instance need not exist yet: the sensor waits until it appears, and then
until it succeeds. An instance that has already succeeded opens the gate at once, because a supplier is onboarded only once.
The task holds no worker slot while it waits.
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
        print("Loading the data of", instance["business_key"])

    load_supplier(onboarded.output)


gate_on_instance()
