"""DAGs of one task whose process dies at one moment of its first try, so that a retry has to find what it has done.

The process dies as the kernel would kill it. The run's id is the title of each instance; the conf of a run names the connection.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroStartBpmBatchOperator,
    AstroZeroStartBpmInstanceOperator,
    AstroZeroTerminateBpmInstanceOperator,
)

BPM = "PublishApproval"
LATE = float(os.environ["MATRIX_LATE"])  # seconds after which a process dies late in its wait
NUMBER_OF_RETRIES = Path(os.environ["AIRFLOW_HOME"], "retries")
"""A file with the ``retries`` of a task."""


def dies(after: Callable[[Any], bool], *, late: float = 0.0, alone: bool = False) -> Callable[[Any], None]:
    """Return a ``pre_execute`` that kills the process of the first try, once a request has been answered.

    Airflow 3.0 retries the task only if its supervisor dies, too.

    :param after: whether it is this request.
    :param late: how long the process lives at least, in seconds.
    :param alone: whether its supervisor stays alive on any line.
    """

    def watch(context: Any) -> None:
        from airflow_provider_astrobpm.client.sync_transport import Transport  # noqa: PLC0415

        if context["ti"].try_number > 1:
            return
        send, began = Transport.send, time.monotonic()

        def last_send(transport: Any, request: Any) -> Any:
            answer = send(transport, request)
            if after(request) and time.monotonic() - began >= late:
                if os.environ["MATRIX_LINE"] == "3.0" and not alone:
                    os.kill(os.getppid(), signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        setattr(Transport, "send", last_send)  # noqa: B010 - the wrapper ignores the types

    return watch


def is_start(request: Any) -> bool:
    return bool(request.method == "POST" and request.target.endswith("/instances"))


def is_poll(request: Any) -> bool:
    return bool(request.method == "GET" and "/instances" in request.target)


def is_action(request: Any) -> bool:
    return "/instances/" in request.target and bool(request.body)


def lowers_retries(context: Any) -> None:
    """Make the next try find fewer retries in its DAG, and die in the wait."""
    if context["ti"].try_number == 1:
        NUMBER_OF_RETRIES.write_text("1")
    dies(is_poll)(context)


ALL: dict[str, Any] = {
    "task_id": "wait",
    "astro_zero_conn_id": "{{ dag_run.conf.get('connection', 'astro_zero_default') }}",
    "retries": 1,
    "retry_delay": timedelta(0),
}
START: dict[str, Any] = {**ALL, "bpm_name": BPM, "title": "{{ run_id }}", "poll_interval": 1}
OWN_KEY: dict[str, Any] = {"business_key": "{{ run_id }}"}

STORIES: dict[str, dict[str, Any]] = {
    "dies_alone": {"pre_execute": dies(is_poll, alone=True)},
    "dies_before_the_answer": {"pre_execute": dies(is_start)},
    "dies_before_the_answer_own_key": {"pre_execute": dies(is_start), **OWN_KEY},
    "dies_in_the_wait_own_key": {"pre_execute": dies(is_poll), **OWN_KEY},
    "dies_late_in_the_wait": {"pre_execute": dies(is_poll, late=LATE), "timeout": 2 * LATE},
    "retries_change": {
        "pre_execute": lowers_retries,
        "retries": int(NUMBER_OF_RETRIES.read_text()) if NUMBER_OF_RETRIES.exists() else 2,
    },
    "refuses_to_guess": {"wait_for_completion": False, "retries": 0},
    "waits_on_worker": {},
    "waits_deferred": {"deferrable": True, "bp_statuses": ["Approved"]},
}

for dag_id, arguments in STORIES.items():
    with DAG(dag_id, schedule=None, catchup=False, is_paused_upon_creation=False, max_active_runs=100):
        AstroZeroStartBpmInstanceOperator(**{**START, **arguments})

with DAG("dies_after_its_action", schedule=None, catchup=False, is_paused_upon_creation=False):
    AstroZeroTerminateBpmInstanceOperator(
        **ALL,
        instance_id="{{ dag_run.conf['instance_id'] }}",
        if_closed="fail",
        pre_execute=dies(is_action),
    )

with DAG(
    "batch_in_one_process", schedule=None, catchup=False, is_paused_upon_creation=False
) as in_one_process:
    AstroZeroStartBpmBatchOperator(
        task_id="wait",
        bpm_name="TakesAWhile",
        launches=[{"title": "{{ run_id }}"} for _ in range(2)],
        poll_interval=1,
        deferrable=True,
    )
