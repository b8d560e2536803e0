"""The XComs that a try of a batch publishes before it waits: for people, for its trigger, and for itself when it resumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from airflow_provider_astrobpm._airflow.user_action import TaskInstanceRef
from airflow_provider_astrobpm._airflow.xcom_keys import (
    BATCH_KEY,
    BPM_NAMES,
    INSTANCE_IDS,
    LAUNCH_IDS,
    LAUNCH_TITLES,
    LAUNCH_VARIABLES,
    REFUSED_LAUNCHES,
    RESULT,
    SATISFIED_LAUNCHES,
    WAIT_FINISHED,
)
from airflow_provider_astrobpm.batches.batch_input import AuthorFields
from airflow_provider_astrobpm.client.errors import AstroZeroError
from airflow_provider_astrobpm.triggers import pending_ids

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_astrobpm.batches.batch_run import BatchStartResult


class PublishedBatch(NamedTuple):
    """What a try has published about its batch."""

    task: TaskInstanceRef
    """The task instance."""
    key: str
    """The prefix of the business keys, with the oldest generation that this one resumes."""
    ids: Sequence[str | None] = ()
    """The instance id of each launch; ``None`` for a launch without an instance."""
    awaited: Sequence[str] = ()
    """The ids of the instances to wait for."""
    refusals: Mapping[int, str] = {}
    """The reasons of refused launches, by launch number."""
    names: Sequence[str] = ()
    """The names that the BPMs of these instances may show; empty if any name may show."""
    author_fields: Sequence[AuthorFields] = ()
    """The id, title and variables that the author gave to each launch."""

    @property
    def trigger_arguments(self) -> dict[str, Any]:
        """The trigger arguments that identify the batch."""
        return {"task_key": self.task.trigger_arguments, "batch_key": self.key}


def unpublished(context: Context) -> PublishedBatch:
    """Return the state of a try that has published nothing yet."""
    return PublishedBatch(TaskInstanceRef.of(context["ti"]), "")


def publish_key(context: Context, key: str) -> PublishedBatch:
    """Publish the batch key. By it a trigger of an earlier try recognizes whether this try resumes its batch."""
    context["ti"].xcom_push(key=BATCH_KEY, value=key)
    return unpublished(context)._replace(key=key)


def publish(context: Context, launched: BatchStartResult, *, bpm_name: str | None = None) -> PublishedBatch:
    """Publish the started instances.

    :param bpm_name: the requested name. Lists may show it instead of the name in the responses to the starts.
    """
    numbers = range(1, launched.total + 1)
    refusals: dict[str, list[int]] = {}
    for number, error in launched.refused.items():
        refusals.setdefault(str(error), []).append(number)
    seen: dict[str, Any] = {
        INSTANCE_IDS: [one.id if (one := launched.instances.get(number)) else None for number in numbers],
        REFUSED_LAUNCHES: refusals,
        BPM_NAMES: sorted(
            {one.name for one in launched.instances.values()} | ({bpm_name} if bpm_name else set())
        ),
        **({SATISFIED_LAUNCHES: sorted(launched.met)} if launched.met else {}),
        LAUNCH_IDS: [one.id for one in launched.author_fields],
    }
    if any(one.title is not None for one in launched.author_fields):
        seen[LAUNCH_TITLES] = [one.title for one in launched.author_fields]
    if any(one.variables is not None for one in launched.author_fields):
        seen[LAUNCH_VARIABLES] = [one.variables for one in launched.author_fields]
    for name, value in seen.items():
        context["ti"].xcom_push(key=name, value=value)
    return published(context)


def published(context: Context) -> PublishedBatch:
    """Return what this try has published.

    :raises AstroZeroError: if the XComs are gone.
    """
    try:
        ids = _read(context, INSTANCE_IDS, list[str | None])
        refusals = _read(context, REFUSED_LAUNCHES, dict[str, list[int]])
        key = _read(context, BATCH_KEY, str)
        met = _read(context, SATISFIED_LAUNCHES, list[int] | None)
        names = _read(context, BPM_NAMES, list[str] | None)
    except (msgspec.ValidationError, ValueError):
        raise AstroZeroError(
            f"XComs {INSTANCE_IDS!r}, {REFUSED_LAUNCHES!r} and {BATCH_KEY!r} do not say what this try has started"
        ) from None
    reasons = {number: reason for reason, numbers in refusals.items() for number in numbers}
    awaited = pending_ids(ids, met)
    return PublishedBatch(
        TaskInstanceRef.of(context["ti"]), key, ids, awaited, reasons, names or (), _said(context, len(ids))
    )


def _said(context: Context, count: int) -> list[AuthorFields]:
    """Return what was published about the launches; empty if an older version of this provider published it."""
    try:
        columns = (
            _read(context, LAUNCH_IDS, list[str | int]),
            _read(context, LAUNCH_TITLES, list[str | None] | None) or [None] * count,
            _read(context, LAUNCH_VARIABLES, list[dict[str, Any] | None] | None) or [None] * count,
        )
    except (msgspec.ValidationError, ValueError):
        return []
    if any(len(column) != count for column in columns):
        return []
    return [AuthorFields(*each) for each in zip(*columns, strict=True)]


def publish_result(context: Context, result: dict[str, Any]) -> None:
    """Publish the result of the batch."""
    context["ti"].xcom_push(key=RESULT, value=result)


def publish_wait_over(context: Context) -> None:
    """Publish that the wait is over. If Airflow then cancels the trigger of this try, it recognizes that this is no kill."""
    context["ti"].xcom_push(key=WAIT_FINISHED, value=_pulled(context, BATCH_KEY))


def _read(context: Context, name: str, kind: Any) -> Any:
    return msgspec.convert(_pulled(context, name), kind)


def _pulled(context: Context, name: str) -> Any:
    ti = context["ti"]
    return ti.xcom_pull(task_ids=ti.task_id, key=name, map_indexes=ti.map_index)
