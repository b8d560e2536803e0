"""What the tries of a task tell each other about the one action that it takes on an instance.

Where the answer to an action was lost and the instance could not be read, the try fails, though the action may have been taken. Its
retry then finds the instance as the action leaves it. Whether that is this task's own doing only a record can tell. It is kept in
Airflow's task state store, from before the action is sent until what came of it is known; before Airflow 3.3 there is none.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm._airflow.version_compat import store_for_good, task_state_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_astrobpm.bpm.change import Intent

KEY = "astro_zero_change"


@contextmanager
def intent_of(context: Context, action: str, instance_id: str, *, counts: bool) -> Iterator[Intent]:
    """Provide what earlier tries say about an action, and forget it when what came of it is known.

    :param context: the context of the task.
    :param action: the action.
    :param instance_id: the instance's id.
    :param counts: whether anything depends on it; if not, nothing is read or written.
    """
    from airflow_provider_astrobpm.bpm.change import FIRST_TRY, Intent  # noqa: PLC0415 - a DAG file needs no client
    from airflow_provider_astrobpm.bpm.errors import (  # noqa: PLC0415
        CallError,
        InstanceClosedError,
        InstanceNotFoundError,
    )

    store: Any = task_state_store(context) if counts else None
    if store is None:
        yield FIRST_TRY
        return
    # Which instance: an upstream task, or a changed DAG, may name another one to a later try.
    sign = {"action": action, "instance_id": instance_id}
    written = False

    def begin() -> None:
        nonlocal written
        store_for_good(store, KEY, sign)
        written = True

    begun = store.get(KEY) == sign
    try:
        yield Intent(begun, begin)
    except (InstanceClosedError, InstanceNotFoundError):
        if begun or written:
            store.delete(KEY)
        raise
    except CallError as failure:
        if written and not begun and not failure.may_be_done:
            store.delete(KEY)
        raise
    if begun or written:
        store.delete(KEY)
