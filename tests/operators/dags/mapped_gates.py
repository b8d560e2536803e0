"""DAGs whose gates are mapped: one approval for each item, and what each form of a gate does about a rejected one."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import DAG, task, task_group

from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator

BPM = "PublishApproval"
ITEMS = ["sales", "stock", "staff"]

DAGS: dict[str, DAG] = {}


def approval(item: Any, **arguments: Any) -> AstroZeroStartBpmInstanceOperator:
    """Ask for the approval of an item."""
    return AstroZeroStartBpmInstanceOperator(
        task_id="approval", bpm_name=BPM, variables={"dataset": item}, poll_interval=1, **arguments
    )


def _named(dag_id: str) -> DAG:
    DAGS[dag_id] = globals()[dag_id] = DAG(dag_id, schedule=None)
    return DAGS[dag_id]


def add_gates(where: str, *, deferrable: bool) -> None:  # noqa: C901 - four DAGs in one file
    """Add the DAGs whose gates wait on a worker or are deferred."""
    with _named(f"branch_{where}"):

        @task_group
        def branch_item(item: Any) -> None:
            asked = approval(item, deferrable=deferrable)

            @task.branch
            def decide(instance: Any) -> str:
                chosen = "publish" if instance["bp_status"] == "Approved" else "roll_back"
                return f"branch_item.{chosen}"

            @task
            def publish() -> None:
                pass

            @task
            def roll_back() -> None:
                pass

            decide(asked.output) >> [publish(), roll_back()]

        branch_item.expand(item=ITEMS)

    with _named(f"statuses_{where}"):

        @task_group
        def item(item: Any) -> None:
            asked = approval(item, bp_statuses=["Approved"], deferrable=deferrable)

            @task
            def publish() -> None:
                pass

            asked >> publish()

        item.expand(item=ITEMS)

    with _named(f"skip_{where}"):

        @task_group
        def skip_item(item: Any) -> None:
            asked = approval(item, deferrable=deferrable)

            @task
            def gate(instance: Any) -> None:
                if instance["bp_status"] != "Approved":
                    raise AirflowSkipException(f"{instance['bp_status']!r} is not 'Approved'")

            @task
            def publish() -> None:
                pass

            gate(asked.output) >> publish()

        skip_item.expand(item=ITEMS)

    with _named(f"circuit_{where}"):

        @task_group
        def circuit_item(item: Any) -> None:
            asked = approval(item, deferrable=deferrable)

            @task.short_circuit
            def gate(instance: Any) -> bool:
                return bool(instance["bp_status"] == "Approved")

            @task
            def publish() -> None:
                pass

            gate(asked.output) >> publish()

        circuit_item.expand(item=ITEMS)


for on_worker in (True, False):
    add_gates("on_worker" if on_worker else "deferred", deferrable=not on_worker)

for rule in ("all_success", "none_failed", "none_failed_min_one_success"):
    with _named(f"empty_{rule}"):

        @task
        def items() -> list[dict[str, Any]]:
            return []

        gate = AstroZeroStartBpmInstanceOperator.partial(
            task_id="approval", bpm_name=BPM, bp_statuses=["Approved"], poll_interval=1
        ).expand(variables=items())

        @task(trigger_rule=rule)
        def publish() -> None:
            pass

        gate >> publish()

    with _named(f"empty_group_{rule}"):

        @task
        def items() -> list[str]:
            return []

        @task_group
        def item(item: Any) -> None:
            approval(item, bp_statuses=["Approved"])

        @task(trigger_rule=rule)
        def publish() -> None:
            pass

        item.expand(item=items()) >> publish()
