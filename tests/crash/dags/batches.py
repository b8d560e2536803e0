"""DAGs of one task that starts a batch of instances and waits for them. Files list its processes for the killer."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmBatchOperator

LAUNCHES = 1000
LATE = 25  # every LATE-th launch ends only when the test finishes it

KINDS: dict[str, dict[str, Any]] = {
    "batch_on_worker": {"deferrable": False},
    "batch_deferred": {"deferrable": True},
    "batch_own_keys_on_worker": {"deferrable": False},
    # Its logger is quiet by the deployment's settings: a log that the supervisor reads breaks when that is dead.
    "batch_orphaned_on_worker": {"deferrable": False, "logger_name": "quiet"},
}


def note_process(context: Any) -> None:
    """Record which process is about to run the task, and which one supervises it."""
    ti = context["ti"]
    leg = "resumed" if ti._ti_context_from_server.next_method else "first"
    path = Path(os.environ["AIRFLOW_HOME"], "effects", ti.run_id, f"{ti.try_number:02}-{leg}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"at": time.time(), "pid": os.getpid(), "supervisor": os.getppid()}) + "\n")


def launches(*, own_keys: bool) -> list[dict[str, Any]]:
    """Return the launches; the variable ``n`` identifies their instances."""
    return [
        {
            "bpm_name": "ReconcileLate" if n % LATE == 0 else "Reconcile",
            "variables": {"n": n},
            **({"business_key": f"account-{n}"} if own_keys else {}),
        }
        for n in range(1, LAUNCHES + 1)
    ]


for kind, arguments in KINDS.items():
    with DAG(kind, schedule=None, catchup=False, is_paused_upon_creation=False):
        AstroZeroStartBpmBatchOperator(
            task_id="wait",
            launches=launches(own_keys="own_keys" in kind),
            astro_zero_conn_id="{{ dag_run.conf['connection'] }}",
            poll_interval=1,
            retries=30,
            retry_delay=1,
            pre_execute=note_process,
            **arguments,
        )
