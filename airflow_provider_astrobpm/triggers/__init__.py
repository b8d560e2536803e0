"""Triggers, which wait in the triggerer on behalf of a task."""

from __future__ import annotations

from typing import Any

# XCom keys of a try. Airflow removes the XComs when the next try begins.
INSTANCE_ID = "instance_id"
"""The instance that the try started. Published before it waits."""
BATCH_KEY = "batch_key"
"""The prefix of the business keys of the batch that the try started. Published before it waits."""
INSTANCE_IDS = "instance_ids"
"""The instances of the batch, in the order of the launches; ``None`` for a launch without an instance."""
BPM_NAMES = "bpm_names"
"""The names that the BPMs of the batch may show."""
MET = "met"
"""The launches of the batch that the task does not wait for, because they met the condition in an earlier try."""
WAIT_OVER = "wait_over"
"""The instance or batch whose wait has ended, with success or failure."""


def waiter(task_instance: Any) -> str | None:
    """Return the id of a task instance, for every form in which Airflow passes one. Each try has its own id."""
    found = getattr(task_instance, "id", None)
    return None if found is None else str(found)


def awaited_ids(instance_ids: list[str | None], met: list[int] | None) -> list[str]:
    """Return the instances of a batch that the task waits for, from the values of its XComs."""
    done = set(met or ())
    return [one for number, one in enumerate(instance_ids, 1) if one is not None and number not in done]
