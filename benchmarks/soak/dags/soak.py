"""The DAG to which all waits of the soak belong. Nothing runs its task."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG("soak", schedule=None):
    EmptyOperator(task_id="wait")
