"""Triggers: what waits in the triggerer in a task's place."""

from __future__ import annotations

from typing import Any

# The XComs of a try. Airflow removes them when the next one begins.
INSTANCE_ID = "instance_id"
"""The instance that it started, published before it waits."""
BATCH_KEY = "batch_key"
"""What the business keys of the batch begin with that it has started, published before it waits."""
INSTANCE_IDS = "instance_ids"
"""The instances of the batch, in the order of the launches; ``None`` for a launch that has none."""
BPM_NAMES = "bpm_names"
"""The names that the BPMs of the batch may show."""
MET = "met"
"""The launches of the batch that are not awaited, because they have met the condition in an earlier try."""
WAIT_OVER = "wait_over"
"""The instance or the batch for which it waits no more, well or badly."""


def waiter(task_instance: Any) -> str | None:
    """Return the id of a task instance, in whichever shape Airflow has it: each try has another one."""
    found = getattr(task_instance, "id", None)
    return None if found is None else str(found)


def awaited_ids(instance_ids: list[str | None], met: list[int] | None) -> list[str]:
    """Return the instances of a batch that are waited for, as its XComs tell."""
    done = set(met or ())
    return [one for number, one in enumerate(instance_ids, 1) if one is not None and number not in done]
