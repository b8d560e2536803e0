"""Tasks whose policy reschedules them after an outage of their own emulator, which no other DAG uses.

Each callback says so in the log of the task. The pauses are short, and ``retries`` is 1.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroStartBpmBatchOperator,
    AstroZeroStartBpmInstanceOperator,
)
from airflow_provider_astrobpm.policies.bpm import astro_zero_retry_policy

BPM = "PublishApproval"


def say_so(_context: Any) -> None:
    """Stand for a notification of people."""
    logging.getLogger(__name__).info("A callback was called")


class Killable(AstroZeroStartBpmInstanceOperator):
    """Says so in its log when Airflow kills it."""

    def on_kill(self) -> None:
        """Say so, and terminate the instance."""
        self.log.info("on_kill was called")
        super().on_kill()


COMMON: dict[str, Any] = {
    "task_id": "approve",
    "astro_zero_conn_id": "astro_zero_outage",
    "bp_statuses": ["Approved"],
    "poll_interval": 1,
    "max_poll_failure_time": 1,
    "deferrable": True,
    "retries": 1,
    "retry_delay": timedelta(0),
    "retry_policy": astro_zero_retry_policy(max_delay=1),
    "on_retry_callback": say_so,
    "on_failure_callback": say_so,
}
RUNS: dict[str, Any] = {"schedule": None, "catchup": False, "is_paused_upon_creation": False}
ONE: dict[str, Any] = {"bpm_name": BPM, "title": "{{ run_id }}"}

with DAG("outage", **RUNS) as outage:
    Killable(**ONE, **COMMON)

with DAG("outage_on_worker", **RUNS) as outage_on_worker:
    Killable(**ONE, **{**COMMON, "deferrable": False})

with DAG("outage_of_batch", **RUNS) as outage_of_batch:
    AstroZeroStartBpmBatchOperator(launches=[ONE, ONE], **COMMON)

with DAG("outage_too_long", **RUNS) as outage_too_long:
    limited = astro_zero_retry_policy(max_delay=1, max_reschedules=1, reschedule_timeout=None)
    Killable(**ONE, **{**COMMON, "retry_policy": limited})
