"""Triggers, which wait in the triggerer on behalf of a task."""

from __future__ import annotations

from typing import Any


def task_instance_id(task_instance: Any) -> str | None:
    """Return the id of a task instance, for every form in which Airflow passes one. Each try has its own id."""
    found = getattr(task_instance, "id", None)
    return None if found is None else str(found)


def pending_ids(instance_ids: list[str | None], met: list[int] | None) -> list[str]:
    """Return the instances of a batch that the task waits for, from the values of its XComs."""
    done = set(met or ())
    return [one for number, one in enumerate(instance_ids, 1) if one is not None and number not in done]
