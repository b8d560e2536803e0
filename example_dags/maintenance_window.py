"""Hold every open instance of a process while something is being worked on, then let them go on.

Only instances that run are suspended, and the same ones are resumed, so one that a person had suspended before stays
so. They are resumed whether the work succeeded or not; the run fails if it did not.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, task

from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroQueryBpmInstancesOperator,
    AstroZeroResumeBpmInstanceOperator,
    AstroZeroSuspendBpmInstanceOperator,
)


@dag(schedule=None, catchup=False, tags=["astro_zero", "example"], doc_md=__doc__)
def maintenance_window() -> None:
    """Suspend, work, resume."""
    open_instances = AstroZeroQueryBpmInstancesOperator(
        task_id="open_instances", bpm_name="SupplierOnboarding"
    )

    @task
    def running_ids(instances: list[dict[str, Any]]) -> list[str]:
        return [instance["id"] for instance in instances if not instance["suspended"]]

    ids = running_ids(open_instances.output)
    suspend = AstroZeroSuspendBpmInstanceOperator.partial(task_id="suspend").expand(instance_id=ids)

    @task(trigger_rule="none_failed")
    def work() -> None:
        print("The supplier registry is being worked on.")

    resume = AstroZeroResumeBpmInstanceOperator.partial(task_id="resume", trigger_rule="all_done").expand(
        instance_id=ids
    )

    @task(trigger_rule="none_failed")
    def window_closed() -> None:
        print("Everything goes on.")

    working = work()
    suspend >> working >> resume
    [working, resume] >> window_closed()


maintenance_window()
