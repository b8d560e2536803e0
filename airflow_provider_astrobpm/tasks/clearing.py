"""What a person has to tick to clear a task so that it knows what it has started.

From Airflow 3.4 on a clear discards the task's state by default, and with it the record that the tries of a task share.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_provider_astrobpm._airflow.version_compat import clear_discards_task_state

if TYPE_CHECKING:
    from airflow_provider_astrobpm.bpm.errors import AmbiguousStartError

BOX = "Keep task state and resume"
"""The label of the box in the dialog that clears a task, in English."""


def advice(otherwise: str) -> str:
    """Return what to tick, as a sentence that is added to others, or nothing where a clear discards nothing.

    :param otherwise: what happens without it, as the end of a sentence without its full stop.
    """
    if not clear_discards_task_state():
        return ""
    return f' On this Airflow, tick "{BOX}" when you clear it (REST API: keep_task_state=true); otherwise {otherwise}.'


def add_advice(error: AmbiguousStartError) -> None:
    """Let an error that asks for a clear say what to tick."""
    if re.search(r"\bclear\b", error.advice):
        error.advice += advice("it cannot know that you have looked, and may refuse again")
