"""Records that a task has sent its action on an instance, for later tries of the task.

If the response to an action is lost and the instance cannot be read, the try fails, although the action may have been taken. The
retry then finds the instance as the action leaves it. Only a record shows whether this task did that. The record is in Airflow's
task state store from before the action is sent until its effect is known. Before Airflow 3.3 there is no record.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm._airflow.version_compat import store_for_good, task_state_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_astrobpm.client.actions import Intent

STORE_KEY = "astro_zero_change"


@contextmanager
def recorded_action(context: Context, action: str, instance_id: str, *, counts: bool) -> Iterator[Intent]:
    """Provide the record of an action from earlier tries, and delete it when the effect of the action is known.

    :param context: the context of the task.
    :param action: the action.
    :param instance_id: the instance's id.
    :param counts: whether the outcome depends on the record; if not, nothing is read or written.
    """
    from airflow_provider_astrobpm.client.actions import FIRST_TRY, Intent  # noqa: PLC0415 - a DAG file needs no client
    from airflow_provider_astrobpm.client.errors import (  # noqa: PLC0415
        CallError,
        InstanceClosedError,
        InstanceNotFoundError,
    )

    store: Any = task_state_store(context) if counts else None
    if store is None:
        yield FIRST_TRY
        return
    # The instance is part of the record, because an upstream task or a changed DAG may give a later try another one.
    record = {"action": action, "instance_id": instance_id}
    written = False

    def begin() -> None:
        nonlocal written
        store_for_good(store, STORE_KEY, record)
        written = True

    begun = store.get(STORE_KEY) == record
    try:
        yield Intent(begun, begin)
    except (InstanceClosedError, InstanceNotFoundError):
        if begun or written:
            store.delete(STORE_KEY)
        raise
    except CallError as failure:
        if written and not begun and not failure.may_have_been_processed:
            store.delete(STORE_KEY)
        raise
    if begun or written:
        store.delete(STORE_KEY)
