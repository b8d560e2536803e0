"""The connection of the operator tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer


@pytest.fixture
def make_conn(emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put extras into the connection."""

    def make(**extra: Any) -> None:
        connection = {**json.loads(emulator_server.connection_json()), "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))

    return make
