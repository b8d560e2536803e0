"""Ask for an approval, and let no outage use up a retry.

The function of the task reads the numbers for the approval from a warehouse, and the task then starts the approval and waits for
it. So the task may fail because of either system. A chain asks two policies about each failure. The provider's own policy knows
the errors of Astro Zero, and has no opinion about any other error. The second one knows the warehouse: an outage of it
reschedules the task, and a data set that does not exist fails it at once.

A chain of policies needs Airflow 3.4. On older versions this DAG has plain retries.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task

from airflow_provider_astrobpm.policies.bpm import astro_zero_retry_policy

try:
    from airflow.sdk import ChainRetryPolicy, ExceptionRetryPolicy, RetryAction, RetryRule
except ImportError:
    HAS_CHAINS = False
else:
    HAS_CHAINS = True

DATASETS = {"sales_daily": 18_204}


def retry_settings() -> dict[str, Any]:
    """Return the arguments of the task that decide about its retries."""
    plain = {"retries": 3, "retry_delay": timedelta(minutes=1)}
    if not HAS_CHAINS:
        return plain
    warehouse = ExceptionRetryPolicy(
        [
            RetryRule(
                exception=ConnectionError,
                action=RetryAction.RESCHEDULE,
                reschedule_timeout=timedelta(hours=2),
                reason="the warehouse is down",
            ),
            RetryRule(exception=LookupError, action=RetryAction.FAIL, reason="there is no such data set"),
        ]
    )
    return {**plain, "retry_policy": ChainRetryPolicy([astro_zero_retry_policy(), warehouse])}


def count_rows(dataset: str) -> int:
    """Stand for a query of the warehouse."""
    return DATASETS[dataset]


@dag(
    schedule=None,
    catchup=False,
    params={"dataset": "sales_daily"},
    tags=["astro_zero", "example"],
    doc_md=__doc__,
)
def gate_through_outages() -> None:
    """Count, ask, publish."""

    @task.astro_bpm(
        bpm_name="PublishApproval",
        title="Publish {{ params.dataset }} of {{ run_id }}",
        bp_statuses=["Approved"],
        poll_interval=timedelta(seconds=5),
        timeout=timedelta(days=3),
        deferrable=True,
        **retry_settings(),
    )
    def approval(params: dict[str, Any] | None = None) -> dict[str, Any]:
        dataset = (params or {})["dataset"]
        return {"dataset": dataset, "row_count": count_rows(dataset)}

    @task
    def publish(instance: dict[str, Any]) -> None:
        print(f"Published, as {instance['id']} allows.")

    publish(approval())


gate_through_outages()
