"""Fast polling: make the tasks of a DAG poll every second, and disable their retries.

Recognizes tasks by their attributes, and imports nothing from Airflow.
"""

from __future__ import annotations

import inspect
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from airflow_provider_astrobpm.client.validation import MIN_POLL_INTERVAL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGE = __name__.partition(".")[0]


@contextmanager
def fast_polling(
    dag: Any, *, timeout: float | None = None, max_poll_failure_time: float | None = None
) -> Iterator[None]:
    """Make the tasks of a DAG poll fast while the block runs, and restore them afterwards.

    :param dag: the DAG.
    :param timeout: the ``timeout`` in seconds of this provider's tasks that have a ``timeout`` or an
        ``execution_timeout``; ``None`` keeps their own.
    :param max_poll_failure_time: seconds for all waiting tasks of this provider; ``None`` keeps their own.
    """
    with ExitStack() as changes:
        for task in dag.tasks:
            for argument, value in _changes(task, timeout, max_poll_failure_time).items():
                changes.enter_context(_changed(task, argument, value))
        yield


def _changes(task: Any, timeout: float | None, max_poll_failure_time: float | None) -> dict[str, Any]:
    """Return the arguments to change in a task, by name."""
    wanted: dict[str, float] = {"retries": 0}
    if not _is_ours(task):
        return wanted
    wanted |= {"poll_interval": MIN_POLL_INTERVAL_SECONDS, "poke_interval": MIN_POLL_INTERVAL_SECONDS}
    if timeout is not None and any(
        _given(task, limit) is not None for limit in ("timeout", "execution_timeout")
    ):
        wanted["timeout"] = timeout
    if max_poll_failure_time is not None:
        wanted["max_poll_failure_time"] = max_poll_failure_time
    return {argument: value for argument, value in wanted.items() if _takes(task, argument)}


def _changed(task: Any, argument: str, value: Any) -> Any:
    shared = _shared_arguments(task)
    return patch.object(task, argument, value) if shared is None else patch.dict(shared, {argument: value})


def _given(task: Any, argument: str) -> Any:
    shared = _shared_arguments(task)
    return getattr(task, argument, None) if shared is None else shared.get(argument)


def _takes(task: Any, argument: str) -> bool:
    """Return whether a task accepts an argument, and the argument is not mapped over."""
    mapped_over = getattr(getattr(task, "expand_input", None), "value", None)
    if isinstance(mapped_over, dict) and argument in mapped_over:
        return False
    own = (vars(base)["__init__"] for base in _class_of(task).__mro__ if "__init__" in vars(base))
    return any(argument in inspect.signature(init).parameters for init in own)


def _is_ours(task: Any) -> bool:
    return any(base.__module__.partition(".")[0] == _PACKAGE for base in _class_of(task).__mro__)


def _class_of(task: Any) -> type:
    """Return the operator class. A mapped task creates its operators later."""
    found: type = getattr(task, "operator_class", None) or type(task)
    return found


def _shared_arguments(task: Any) -> dict[str, Any] | None:
    """Return the arguments that all instances of a mapped task share; ``None`` if the task is not mapped."""
    found: dict[str, Any] | None = getattr(task, "partial_kwargs", None)
    return found
