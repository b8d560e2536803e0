"""The differences between the Airflow versions that this provider supports, each with the version that brought it.

DAG files import this module at every parse. So each function imports what it needs when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from airflow.providers.common.compat.sdk import Context


def deferral_errors() -> tuple[type[Exception], type[Exception]]:
    """Return Airflow's ``TaskDeferralTimeout`` and ``TaskDeferralError``."""
    try:  # since Airflow 3.2
        from airflow.sdk.exceptions import TaskDeferralError, TaskDeferralTimeout  # noqa: PLC0415
    except ImportError:
        from airflow.exceptions import (  # type: ignore[no-redef]  # noqa: PLC0415
            TaskDeferralError,
            TaskDeferralTimeout,
        )
    return TaskDeferralTimeout, TaskDeferralError


def determine_kwargs(
    function: Callable[..., Any], args: Collection[Any], kwargs: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the keyword arguments that a decorated function takes.

    :param function: the function.
    :param args: its positional arguments.
    :param kwargs: the keyword arguments to choose from, such as the context.
    """
    try:  # since Airflow 3.2
        from airflow.sdk.bases.decorator import determine_kwargs as determine  # noqa: PLC0415
    except ImportError:
        from airflow.utils.operator_helpers import (  # type: ignore[no-redef, attr-defined, unused-ignore]  # noqa: PLC0415
            determine_kwargs as determine,
        )
    chosen: Mapping[str, Any] = determine(function, args, kwargs)
    return chosen


def secrets_masker() -> Any:
    """Return the masker to which Airflow's ``mask_secret`` adds."""
    try:  # since Airflow 3.1
        from airflow.sdk._shared.secrets_masker import _secrets_masker  # noqa: PLC0415
    except ImportError:
        from airflow.sdk.execution_time.secrets_masker import (  # type: ignore[no-redef]  # noqa: PLC0415
            _secrets_masker,
        )
    return _secrets_masker()


async def amask_secret(secret: str) -> None:
    """Mask a secret in Airflow's logs without blocking the event loop.

    :param secret: the text to mask.
    """
    try:  # since Airflow 3.3.2
        from airflow.sdk.log import amask_secret as amask  # noqa: PLC0415
    except ImportError:
        from airflow.sdk.log import mask_secret  # noqa: PLC0415
        from asgiref.sync import sync_to_async  # noqa: PLC0415

        await sync_to_async(mask_secret)(secret)
    else:
        await amask(secret)


def task_state_store(context: Context) -> Any:
    """Return the store of values that the tries of a task share, or ``None`` before Airflow 3.3.

    :param context: the context of the task.
    """
    return context.get("task_state_store")


def store_for_good(store: Any, key: str, value: Any) -> None:
    """Write a value into a task state store, and keep it as long as Airflow keeps the DAG run.

    :param store: the store.
    :param key: the key of the value.
    :param value: the value, as plain JSON.
    """
    from airflow.sdk.execution_time.context import NEVER_EXPIRE  # noqa: PLC0415 - since Airflow 3.3, as the store is

    store.set(key, value, retention=NEVER_EXPIRE)


def asset_state_store(trigger: Any) -> Any:
    """Return the store of values of the asset that a trigger watches, or ``None`` before Airflow 3.3.

    :param trigger: the trigger.
    """
    return getattr(trigger, "asset_state_store", None)


def triggers_have_on_kill() -> bool:
    """Return whether Airflow calls ``on_kill`` of a trigger.

    Airflow does so since 3.3. Before that a trigger is only cancelled, whatever the reason.
    """
    from airflow.triggers.base import BaseTrigger  # noqa: PLC0415

    return hasattr(BaseTrigger, "on_kill")


def has_retry_policies() -> bool:
    """Return whether tasks have a ``retry_policy``, as they do since Airflow 3.3."""
    from airflow import sdk  # noqa: PLC0415

    return hasattr(sdk, "RetryPolicy")


def has_reschedules() -> bool:
    """Return whether a retry policy can reschedule a task without using a retry, as it can since Airflow 3.4."""
    from airflow import sdk  # noqa: PLC0415

    return has_retry_policies() and hasattr(sdk.RetryAction, "RESCHEDULE")


def event_triggers_have_queue() -> bool:
    """Return whether an event trigger can be assigned to a queue of triggerers, as it can since Airflow 3.4."""
    from inspect import signature  # noqa: PLC0415

    from airflow.triggers.base import BaseEventTrigger  # noqa: PLC0415

    return "queue" in signature(BaseEventTrigger.__init__).parameters


def clear_discards_task_state() -> bool:
    """Return whether clearing a task discards its task state by default, as it does since Airflow 3.4."""
    from airflow import __version__  # noqa: PLC0415

    return tuple(int(part) for part in __version__.split(".")[:2]) >= (3, 4)


def attached_file_system(scheme: str, conn_id: str | None) -> Any:
    """Return the fsspec file system of Airflow's object storage for a scheme.

    ``ObjectStoragePath`` is not used. With a new universal-pathlib it refuses every scheme on Airflow 3.0. On Airflow 3.1 it
    reads a relative path as one from the root.

    :param scheme: the scheme, such as ``s3``.
    :param conn_id: the Airflow connection to use; ``None`` for the default one.
    """
    from airflow.sdk.io import attach  # noqa: PLC0415

    return attach(scheme, conn_id).fs


def place_columns(model: Any) -> tuple[Any, ...]:
    """Return the columns of a model that identify the task instance of a row.

    :param model: a model of Airflow's database, such as ``TaskInstance``.
    :returns: the columns of DAG, run, task, index and region. Before Airflow 3.4 there are no regions, so that column is null.
    """
    from sqlalchemy import null  # noqa: PLC0415

    has_regions = hasattr(model, "region_id")
    index = model.region_index if has_regions else model.map_index
    region = model.region_id if has_regions else null()
    return model.dag_id, model.run_id, model.task_id, index, region


def map_index_column() -> Any:
    """Return the map index of a ``TaskInstance`` as Airflow shows it, as an expression for a query."""
    from airflow.models.taskinstance import TaskInstance  # noqa: PLC0415

    try:  # since Airflow 3.4, where the column has the iteration of a task in a loop
        from airflow.models.task_coordinates import (  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415
            public_map_index_expression,
        )
    except ImportError:
        return TaskInstance.map_index
    return public_map_index_expression(TaskInstance)


def task_state_model() -> Any:
    """Return the model of the task state store, or ``None`` before Airflow 3.3."""
    try:
        from airflow.models.task_state_store import TaskStateStoreModel  # noqa: PLC0415
    except ImportError:
        return None
    return TaskStateStoreModel


def join_rendered_fields(query: Any) -> Any:
    """Join the rendered fields of a task instance to a query, or nulls if it has none.

    :param query: a query of ``TaskInstance`` and ``RenderedTaskInstanceFields``.
    """
    from airflow.models.renderedtifields import RenderedTaskInstanceFields as Fields  # noqa: PLC0415
    from airflow.models.taskinstance import TaskInstance  # noqa: PLC0415
    from sqlalchemy import and_  # noqa: PLC0415

    if hasattr(Fields, "task_instance_id"):  # since Airflow 3.4
        return query.outerjoin(Fields, Fields.task_instance_id == TaskInstance.id)
    names = ("dag_id", "run_id", "task_id", "map_index")
    same = and_(*(getattr(Fields, name) == getattr(TaskInstance, name) for name in names))
    return query.outerjoin(Fields, same)
