"""The tasks of a DAG poll fast while a test runs it, and are restored afterwards."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroStartBpmBatchOperator,
    AstroZeroStartBpmInstanceOperator,
    AstroZeroTerminateBpmInstanceOperator,
)
from airflow_provider_astrobpm.sensors.bpm import AstroZeroBpmInstanceSensor
from airflow_provider_astrobpm.testing.fast_polling import fast_polling

Arguments = dict[str, dict[str, Any]]


class Mine(AstroZeroStartBpmInstanceOperator):
    """A user's subclass of an operator."""

    __module__ = "somewhere.else"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"bpm_name": "P", **kwargs})


@pytest.fixture
def dag() -> DAG:
    with DAG("fast", schedule=None, default_args={"retries": 3}) as dag:
        AstroZeroStartBpmInstanceOperator(task_id="start", bpm_name="P", timeout=timedelta(days=3))
        Mine(task_id="mine", poll_interval=30)
        AstroZeroStartBpmBatchOperator(task_id="batch", bpm_name="P", launches=[{}], timeout=9)
        AstroZeroBpmInstanceSensor(task_id="sensor", instance_id="i", timeout=90, retries=0)
        AstroZeroTerminateBpmInstanceOperator(task_id="terminate", instance_id="i")
        AstroZeroStartBpmInstanceOperator.partial(task_id="mapped", bpm_name="P", timeout=9).expand(
            variables=[{"n": 1}, {"n": 2}]
        )
        AstroZeroStartBpmInstanceOperator.partial(task_id="own_pace", bpm_name="P").expand(
            poll_interval=[5, 6]
        )

        @task.astro_bpm(bpm_name="P", poll_interval=20)
        def function() -> dict[str, Any]:
            return {}

        @task(retries=2)
        def other() -> None: ...

        function()
        other()
    return dag


ARGUMENT_NAMES = ("retries", "poll_interval", "poke_interval", "timeout", "max_poll_failure_time")


def arguments(dag: DAG) -> Arguments:
    """Return the arguments of each task that may change; for a mapped task, the shared ones."""
    return {
        each.task_id: {
            name: value
            for name in ARGUMENT_NAMES
            if (value := getattr(each, "partial_kwargs", vars(each)).get(name)) is not None
        }
        for each in dag.tasks
    }


BEFORE: Arguments = {
    "start": {"retries": 3, "poll_interval": 60, "timeout": 259200, "max_poll_failure_time": 600},
    "mine": {"retries": 3, "poll_interval": 30, "max_poll_failure_time": 600},
    "batch": {"retries": 3, "poll_interval": 60, "timeout": 9, "max_poll_failure_time": 600},
    "sensor": {"retries": 0, "poke_interval": 60, "timeout": 90, "max_poll_failure_time": 600},
    "terminate": {"retries": 3},
    "mapped": {"retries": 3, "timeout": 9},
    "own_pace": {"retries": 3},
    "function": {"retries": 3, "poll_interval": 20, "max_poll_failure_time": 600},
    "other": {"retries": 2},
}
FAST: Arguments = {
    "start": {"poll_interval": 1},
    "mine": {"poll_interval": 1},
    "batch": {"poll_interval": 1},
    "sensor": {"poke_interval": 1},
    "mapped": {"poll_interval": 1},
    "function": {"poll_interval": 1},
}
WITH_TIMEOUT = ("start", "batch", "sensor", "mapped")
WAITING = (*FAST, "own_pace")


def during_the_run(**changes: dict[str, Any]) -> Arguments:
    return {
        name: {**BEFORE[name], "retries": 0, **FAST.get(name, {}), **changes.get(name, {})} for name in BEFORE
    }


def test_tasks_poll_every_second_without_retries(dag: DAG) -> None:
    assert arguments(dag) == BEFORE
    with fast_polling(dag):
        assert arguments(dag) == during_the_run()
    assert arguments(dag) == BEFORE


def test_timeout_applies_only_to_tasks_with_a_timeout(dag: DAG) -> None:
    with fast_polling(dag, timeout=2):
        assert arguments(dag) == during_the_run(**{name: {"timeout": 2} for name in WITH_TIMEOUT})
    assert arguments(dag) == BEFORE


def test_timeout_applies_to_tasks_with_an_execution_timeout() -> None:
    with DAG("limited", schedule=None, default_args={"execution_timeout": timedelta(days=3)}) as dag:
        AstroZeroStartBpmInstanceOperator(task_id="start", bpm_name="P")
        AstroZeroTerminateBpmInstanceOperator(task_id="terminate", instance_id="i")
        AstroZeroStartBpmInstanceOperator.partial(task_id="mapped", bpm_name="P").expand(
            variables=[{"n": 1}, {"n": 2}]
        )
    with fast_polling(dag, timeout=2):
        assert {name: one.get("timeout") for name, one in arguments(dag).items()} == {
            "start": 2,
            "terminate": None,
            "mapped": 2,
        }


def test_max_poll_failure_time_applies_to_all_waiting_tasks(dag: DAG) -> None:
    with fast_polling(dag, max_poll_failure_time=3):
        assert arguments(dag) == during_the_run(**{name: {"max_poll_failure_time": 3} for name in WAITING})
    assert arguments(dag) == BEFORE


def test_tasks_are_restored_after_an_error(dag: DAG) -> None:
    with pytest.raises(RuntimeError, match="during the run"), fast_polling(dag, timeout=2):
        raise RuntimeError("during the run")
    assert arguments(dag) == BEFORE
