"""Operators for BPM instances: start, suspend, resume, terminate, set variables, delete, query.

DAG files import this package at every parse, so the client and its libraries are imported only when a task runs.
"""

from airflow_provider_astrobpm.operators.bpm.batch import AstroZeroStartBpmBatchOperator
from airflow_provider_astrobpm.operators.bpm.change import (
    AstroZeroDeleteBpmInstanceOperator,
    AstroZeroResumeBpmInstanceOperator,
    AstroZeroSetBpmVariablesOperator,
    AstroZeroSuspendBpmInstanceOperator,
    AstroZeroTerminateBpmInstanceOperator,
)
from airflow_provider_astrobpm.operators.bpm.query import AstroZeroQueryBpmInstancesOperator
from airflow_provider_astrobpm.operators.bpm.start import AstroZeroStartBpmInstanceOperator

__all__ = [
    "AstroZeroDeleteBpmInstanceOperator",
    "AstroZeroQueryBpmInstancesOperator",
    "AstroZeroResumeBpmInstanceOperator",
    "AstroZeroSetBpmVariablesOperator",
    "AstroZeroStartBpmBatchOperator",
    "AstroZeroStartBpmInstanceOperator",
    "AstroZeroSuspendBpmInstanceOperator",
    "AstroZeroTerminateBpmInstanceOperator",
]
