"""Hooks on the emulator, with the extras that a test wants and a clock that nobody waits for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_astrobpm.emulator.remote import EmulatorControl
from airflow_provider_astrobpm.emulator.running import EmulatorServer
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook

HookMaker = Callable[..., AstroZeroHook]


@pytest.fixture
def make_hook(
    emulator: EmulatorControl, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HookMaker]:
    """Make a hook on connection ``my_conn``; whenever it waits, the emulator's clock moves instead."""
    hooks: list[AstroZeroHook] = []

    def make(extra: dict[str, Any] | None = None, **fields: Any) -> AstroZeroHook:
        connection = {**json.loads(emulator_server.connection_json()), **fields}
        connection["extra"] = json.dumps({"max_attempts": 2, "max_wait": 1, **(extra or {})})
        monkeypatch.setenv("AIRFLOW_CONN_MY_CONN", json.dumps(connection))
        hook = AstroZeroHook("my_conn")
        hooks.append(hook)
        hook.client._sleep = emulator.advance
        return hook

    yield make
    for hook in hooks:
        hook.client.close()


@pytest.fixture
def hook(make_hook: HookMaker) -> AstroZeroHook:
    return make_hook()
