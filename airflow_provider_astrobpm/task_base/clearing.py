"""Advice for clearing a task on Airflow 3.4, so that it still knows what it has started.

Since Airflow 3.4 a clear discards the task state by default, and with it the record that the tries of a task share.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_provider_astrobpm._airflow.version_compat import clear_discards_task_state

if TYPE_CHECKING:
    from airflow_provider_astrobpm.client.errors import AmbiguousStartError

BOX = "Keep task state and resume"
"""The English label of the box in Airflow's dialog for clearing a task."""


def advice(otherwise: str) -> str:
    """Return a sentence that says what to tick, or an empty text where a clear discards nothing.

    :param otherwise: what happens without the tick, as the end of the sentence, without a full stop.
    """
    if not clear_discards_task_state():
        return ""
    return f' On this Airflow, tick "{BOX}" when you clear it (REST API: keep_task_state=true); otherwise {otherwise}.'


def add_clear_advice(error: AmbiguousStartError) -> None:
    """Add what to tick to the advice of an error that asks for a clear."""
    if re.search(r"\bclear\b", error.advice):
        error.advice += advice("it does not know that you have checked, and may refuse again")
