"""Start the same launches with mapped tasks of the http provider, and with one task of this provider; neither waits."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from airflow.providers.http.operators.http import HttpOperator
from airflow.sdk import DAG

from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmBatchOperator

LAUNCHES = [json.loads(line) for line in Path(os.environ["LAUNCHES"]).read_text().splitlines()]
COMMON: dict[str, Any] = {"schedule": None, "catchup": False, "is_paused_upon_creation": False}


def body(number: int, launch: dict[str, Any]) -> str:
    """Return the body of a start; the business key identifies the sender."""
    variables = {**launch["variables"], operations.BUSINESS_KEY_VARIABLE: f"mapped-{number}"}
    return json.dumps({"name": launch["bpm_name"], "variables": variables})


with DAG("mapped", **COMMON):
    HttpOperator.partial(
        task_id="start", endpoint=operations.INSTANCES_PATH, headers={"Content-Type": "application/json"}
    ).expand(data=[body(*each) for each in enumerate(LAUNCHES, 1)])

with DAG("batch", **COMMON):
    AstroZeroStartBpmBatchOperator(task_id="start", launches=LAUNCHES, wait_for_completion=False)
