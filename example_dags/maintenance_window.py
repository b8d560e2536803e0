"""Suspend every open instance of a process during maintenance, then resume them.

The DAG suspends only instances that are not suspended yet, and resumes the same ones. So an instance that a person suspended
before stays suspended. The instances are resumed whether or not the work succeeds. If it fails, the run fails.
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
        print("The supplier registry is under maintenance.")

    resume = AstroZeroResumeBpmInstanceOperator.partial(task_id="resume", trigger_rule="all_done").expand(
        instance_id=ids
    )

    @task(trigger_rule="none_failed")
    def window_closed() -> None:
        print("The instances are running again.")

    working = work()
    suspend >> working >> resume
    [working, resume] >> window_closed()


maintenance_window()
