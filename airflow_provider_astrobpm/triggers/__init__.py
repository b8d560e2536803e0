"""Triggers: what waits in the triggerer in a task's place."""

from __future__ import annotations

from typing import Any

# The XComs of a try. Airflow removes them when the next one begins.
INSTANCE_ID = "instance_id"
"""The instance that it started, published before it waits."""
LEFT_OPEN = "left_open"
"""The instance that its wait left open when it failed."""
RETURN_VALUE = "return_value"
"""What it returned: Airflow's own name."""


def waiter(task_instance: Any) -> str | None:
    """Return the id of a task instance, in whichever shape Airflow has it: each try has another one."""
    found = getattr(task_instance, "id", None)
    return None if found is None else str(found)
