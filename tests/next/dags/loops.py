"""Loops whose iterations each start a process and wait for it, with a gate after each loop.

The ``dies_in`` of a run names the iteration in which the process of the first try dies before it does anything.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task, task_group

from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroStartBpmBatchOperator,
    AstroZeroStartBpmInstanceOperator,
)

BPM = "PublishApproval"


def dies_once(context: Any) -> None:
    """Kill this process if the run says so; an operator calls this before it runs."""
    if context["loop"].index == context["params"]["dies_in"] and context["ti"].try_number == 1:
        os.kill(os.getpid(), signal.SIGKILL)


COMMON: dict[str, Any] = {
    "task_id": "approve",
    "bp_statuses": ["Approved"],
    "poll_interval": 1,
    "deferrable": True,
    "retries": 1,
    "retry_delay": timedelta(0),
    "pre_execute": dies_once,
}


def one() -> Any:
    return AstroZeroStartBpmInstanceOperator(bpm_name=BPM, title="{{ run_id }}", **COMMON)


def on_worker() -> Any:
    return AstroZeroStartBpmInstanceOperator(
        bpm_name=BPM, title="{{ run_id }}", **{**COMMON, "deferrable": False}
    )


def batch() -> Any:
    launches = [{"bpm_name": BPM, "title": "{{ run_id }}"} for _ in range(2)]
    return AstroZeroStartBpmBatchOperator(launches=launches, **COMMON)


def mapped() -> Any:
    return AstroZeroStartBpmInstanceOperator.partial(title="{{ run_id }}", **COMMON).expand(
        bpm_name=[BPM, BPM]
    )


KINDS: dict[str, Callable[[], Any]] = {
    "loop_of_one": one,
    "loop_on_worker": on_worker,
    "loop_of_batches": batch,
    "loop_of_mapped": mapped,
}


def make(dag_id: str, body: Callable[[], Any]) -> DAG:
    with DAG(
        dag_id,
        schedule=None,
        catchup=False,
        is_paused_upon_creation=False,
        max_active_runs=100,
        params={"dies_in": -1},
    ) as dag:

        @task
        def collect() -> None:
            """End an iteration."""

        @task
        def publish() -> None:
            """Stand for the step that needs the approvals."""

        @task_group(group_id="review")
        def review() -> None:
            body() >> collect()

        passes: Any = review
        loop = passes.loop(max_iterations=3, until=lambda **context: context["loop"].index >= 1)
        loop >> publish()
    return dag


for name, kind in KINDS.items():
    globals()[name] = make(name, kind)
