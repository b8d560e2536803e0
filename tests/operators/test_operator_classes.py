"""What all operator classes have in common."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_astrobpm.operators import bpm
from airflow_provider_astrobpm.task_base.waiting_operator import WaitingOperator
from airflow_provider_astrobpm.triggers.base import WaitingTrigger
from airflow_provider_astrobpm.waiting.wait import BaseWait

OPERATORS = [
    getattr(bpm, name) for name in dir(bpm) if name.startswith("AstroZero") and name.endswith("Operator")
]


def made(operator: Any) -> Any:
    """Make a task with its required arguments."""
    arguments = {"bpm_name": "A", "instance_id": "1", "variables": {"a": 1}, "launches": [{"title": "T"}]}
    return operator(
        task_id="t", **{name: value for name, value in arguments.items() if name in operator.template_fields}
    )


@pytest.mark.parametrize("operator", OPERATORS)
def test_template_fields_are_arguments(operator: Any) -> None:
    with DAG("d", schedule=None):
        task = made(operator)
    for field in operator.template_fields:
        assert hasattr(task, field)
    assert "astro_zero_conn_id" in operator.template_fields


@pytest.mark.parametrize("operator", OPERATORS)
def test_constructor_does_not_look_up_the_connection(operator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", raising=False)
    made(operator)


@pytest.mark.parametrize("operator", OPERATORS)
def test_deep_copy_keeps_the_template_fields(operator: Any) -> None:
    task = made(operator)
    again = copy.deepcopy(task)
    for field in operator.template_fields:
        assert getattr(again, field) == getattr(task, field)


@pytest.mark.parametrize("base", [WaitingOperator, WaitingTrigger, BaseWait])
def test_what_a_subclass_must_define_is_abstract(base: type) -> None:
    assert inspect.isabstract(base)
