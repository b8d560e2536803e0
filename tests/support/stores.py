"""Airflow's state stores in memory. Values go through JSON, as Airflow's own stores have it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk.execution_time import context

HAS_TASK_STATE_STORE = hasattr(context, "NEVER_EXPIRE")  # since Airflow 3.3
needs_task_state_store = pytest.mark.skipif(
    not HAS_TASK_STATE_STORE, reason="Airflow has no task state store before 3.3"
)
WITH_AND_WITHOUT_STORE = [
    pytest.param(True, id="a store", marks=needs_task_state_store),
    pytest.param(False, id="no store"),
]
"""The params of a fixture that makes a task with a task state store, and one without."""

MAX_VALUE_CHARACTERS = 65_535


class TaskStateStore(dict[str, Any]):
    """The store that the tries of a task share."""

    def set(self, key: str, value: Any, *, retention: Any) -> None:
        """Write a value that never expires."""
        assert retention.days > 1e6, "a wait may take longer than any other limit"
        written = json.dumps(value)
        assert len(written) < MAX_VALUE_CHARACTERS
        self[key] = json.loads(written)

    def delete(self, key: str) -> None:
        """Delete a value, if there is one."""
        self.pop(key, None)


class AssetStateStore:
    """The store of one asset, as a trigger uses it."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.fails = False
        self.failures = 0

    async def aget(self, key: str) -> Any:
        """Return a value; ``None`` if there is none."""
        self._check()
        return json.loads(self.values.get(key, "null"))

    async def aset(self, key: str, value: Any) -> None:
        """Write a value."""
        self._check()
        assert value is not None
        self.values[key] = json.dumps(value)

    async def adelete(self, key: str) -> None:
        """Delete a value, if there is one."""
        self._check()
        self.values.pop(key, None)

    def _check(self) -> None:
        if self.fails:
            self.failures += 1
            raise RuntimeError("the API server failed")
