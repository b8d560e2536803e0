"""Triggers: what waits in the triggerer in a task's place."""

from __future__ import annotations

from typing import Any

# The XComs of a try. Airflow removes them when the next one begins.
INSTANCE_ID = "instance_id"
"""The instance that it started, published before it waits."""
WAIT_OVER = "wait_over"
"""The instance for which it waits no more, well or badly."""


def waiter(task_instance: Any) -> str | None:
    """Return the id of a task instance, in whichever shape Airflow has it: each try has another one."""
    found = getattr(task_instance, "id", None)
    return None if found is None else str(found)
