"""Triggers: what waits in the triggerer in a task's place."""

from __future__ import annotations

from typing import Any


def waiter(task_instance: Any) -> str | None:
    """Return the id of a task instance, in whichever shape Airflow has it: each try has another one."""
    found = getattr(task_instance, "id", None)
    return None if found is None else str(found)


def awaited_ids(instance_ids: list[str | None], met: list[int] | None) -> list[str]:
    """Return the instances of a batch that are waited for, as its XComs tell."""
    done = set(met or ())
    return [one for number, one in enumerate(instance_ids, 1) if one is not None and number not in done]
