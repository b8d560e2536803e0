"""One gate with the http provider: a task for the token, one that starts the instance, and a sensor that waits for its end."""

from __future__ import annotations

import json
import os
from typing import Any

from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from airflow.sdk import DAG

from benchmarks.batch.process_cost import DAG_ID

TOKEN_PATH = "/baas/auth/v1.0/oauth2/token"  # noqa: S105 - a path
INSTANCES_PATH = "/u-route/baas/bp/v2.0/runtime/instances"
TOKEN = {"access-token": "{{ ti.xcom_pull('token') }}"}
VARIABLES = {"dataset": "sales.daily", "row_count": 1000, "comment": "as ordered"}


def access_token(answer: Any) -> str:
    """Return the token in an answer."""
    token: str = answer.json()["access_token"]
    return token


def instance_id(answer: Any) -> str:
    """Return the id of the started instance in an answer."""
    started: str = answer.json()["result"]["id"]
    return started


with DAG(DAG_ID, schedule=None):
    token = HttpOperator(
        task_id="token",
        endpoint=TOKEN_PATH,
        data={
            "grant_type": "client_credentials",
            "client_id": os.environ["CLIENT_ID"],
            "client_secret": os.environ["CLIENT_SECRET"],
        },
        response_filter=access_token,
    )
    start = HttpOperator(
        task_id="start",
        endpoint=INSTANCES_PATH,
        headers={"Content-Type": "application/json", **TOKEN},
        data=json.dumps({"name": "PublishApproval", "variables": VARIABLES}),
        response_filter=instance_id,
    )
    wait = HttpSensor(
        task_id="wait",
        endpoint=f"{INSTANCES_PATH}/{{{{ ti.xcom_pull('start') }}}}",
        headers=TOKEN,
        deferrable=True,
        poke_interval=1,
    )
    token >> start >> wait
