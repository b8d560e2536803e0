"""The connection and the tasks of the batch tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_astrobpm._airflow import user_action
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from tests.operators.batch.batch_task import (
    Fire,
    Task,
)
from tests.support.stores import (
    WITH_AND_WITHOUT_STORE,
)


@pytest.fixture(autouse=True)
def short_grace(
    emulator: EmulatorControl, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    del emulator
    extra = {
        "start_grace": 0.3,
        "max_attempts": 3,
        "max_wait": 0.05,
        "instance_url": "https://{host}/x/{instance_id}",
    }
    connection = {**json.loads(emulator_server.connection_json()), "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))


@pytest.fixture(params=WITH_AND_WITHOUT_STORE)
def task(request: pytest.FixtureRequest, make_task: Callable[..., Task]) -> Callable[..., Task]:
    return lambda **arguments: make_task(has_store=request.param, **arguments)


@pytest.fixture
def make_task(fire: Fire, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Task]:
    def make(**arguments: Any) -> Task:
        made = Task(fire, **arguments)
        monkeypatch.setattr(user_action, "published_xcom", lambda _task, key: made.xcoms.get(key))
        return made

    return make
