"""The differences between Airflow versions. Each test holds on every supported version."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import airflow.sdk.log
import pytest
from airflow.providers.common.compat.sdk import AirflowException, TaskDeferred

from airflow_provider_astrobpm._airflow import version_compat
from tests.support.stores import TaskStateStore


def test_import_loads_nothing_of_airflow() -> None:
    code = (
        "import sys, airflow_provider_astrobpm._airflow.version_compat; assert 'airflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_deferral_errors_are_airflows_exceptions() -> None:
    timeout, error = version_compat.deferral_errors()
    assert (timeout.__name__, error.__name__) == ("TaskDeferralTimeout", "TaskDeferralError")
    assert issubclass(timeout, AirflowException)
    assert not issubclass(error, TaskDeferred)


def test_determine_kwargs_chooses_what_the_function_takes() -> None:
    def load(ledger: str, run_id: Any = None) -> None:
        raise AssertionError((ledger, run_id))

    context = {"run_id": "run", "ds": "2026-01-01"}
    assert version_compat.determine_kwargs(load, ["EU"], context) == {"run_id": "run"}


@pytest.mark.parametrize("has_async_form", [True, False])
def test_amask_secret_masks_with_or_without_the_async_form(
    has_async_form: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked: list[str] = []

    async def amask_secret(secret: str) -> None:
        masked.append(secret)

    monkeypatch.setattr(airflow.sdk.log, "mask_secret", masked.append)
    monkeypatch.delattr(airflow.sdk.log, "amask_secret", raising=False)
    if has_async_form:
        monkeypatch.setattr(airflow.sdk.log, "amask_secret", amask_secret, raising=False)
    asyncio.run(version_compat.amask_secret("the-secret"))
    assert masked == ["the-secret"]


def test_task_state_store_is_none_before_airflow_3_3() -> None:
    store = TaskStateStore()
    with_store: Any = {"task_state_store": store}
    without_store: Any = {}
    assert version_compat.task_state_store(with_store) is store
    assert version_compat.task_state_store(without_store) is None


def test_asset_state_store_is_none_before_airflow_3_3() -> None:
    assert version_compat.asset_state_store(SimpleNamespace(asset_state_store="store")) == "store"
    assert version_compat.asset_state_store(SimpleNamespace()) is None


@pytest.mark.parametrize(
    ("version", "discards"),
    [("3.0.6", False), ("3.3.2", False), ("3.4.0b2", True), ("3.10.1", True), ("4.0.0", True)],
)
def test_clear_discards_task_state_since_airflow_3_4(
    version: str, discards: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(airflow, "__version__", version)
    assert version_compat.clear_discards_task_state() is discards
