"""Checks the arguments of a task while its DAG is parsed, and recognizes values that come from ``default_args``.

DAG files import this module at every parse.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.client import variables as values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

COMPARED_BY_VALUE = (str, int, float, list, tuple, dict)
"""Types that are compared with ``==``; values of other types are compared with ``is``."""


@contextmanager
def errors_name_task(task_id: str | None) -> Iterator[None]:
    """Add the task id to a ``ValueError``. A DAG file may have hundreds of tasks."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"Task {task_id!r}: {error}" if task_id else str(error)) from None


def is_default(defaults: Mapping[str, Any] | None, argument: str, value: object) -> bool:
    """Return whether a value equals the one in the ``default_args`` of the DAG, a task group or the task.

    Airflow fills in the default before the operator sees it. So a value that the author gave and that equals the default
    counts as the default.

    :param defaults: the merged ``default_args`` that Airflow passes to the operator.
    """
    if not defaults or argument not in defaults:
        return False
    # Compare durations in seconds, because the operator may have converted the value already.
    value, default = (
        one.total_seconds() if isinstance(one, timedelta) else one for one in (value, defaults[argument])
    )
    return value is default or (
        isinstance(value, COMPARED_BY_VALUE) and isinstance(default, COMPARED_BY_VALUE) and value == default
    )


def require_exactly_one(task: Any, defaults: Mapping[str, Any] | None, first: str, second: str) -> None:
    """Check that a task has exactly one of two arguments.

    If one argument was given to the task and the other one comes from ``default_args``, the default is dropped.

    :raises ValueError: if the task has neither of them, or both were given to it.
    """
    given = [name for name in (first, second) if getattr(task, name) is not None]
    if len(given) > 1:
        of_default = [name for name in given if is_default(defaults, name, getattr(task, name))]
        if len(of_default) == 1:
            setattr(task, of_default[0], None)
            given.remove(of_default[0])
    if len(given) != 1:
        raise ValueError(f"give exactly one of {first} and {second}")


class CheckedVariables:
    """The attribute ``variables`` of an operator. Setting it refuses values that can never be sent.

    It is set while the DAG is parsed, and again when Airflow has rendered the templates. Without this check a ``NaN`` fails
    between the two, when Airflow stores the rendered fields, with an error that names neither task nor variable. The value itself
    is not changed: Airflow must recognize a value that comes from an upstream task, to leave it unrendered.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, task: Any, owner: type | None = None) -> Any:
        if task is None:
            return self
        try:
            return task.__dict__[self._name]
        except KeyError:
            raise AttributeError(self._name) from None

    def __set__(self, task: Any, value: Any) -> None:
        with errors_name_task(getattr(task, "task_id", None)):
            self.check(value)
        task.__dict__[self._name] = value

    def check(self, value: Any) -> None:
        """Refuse variables that can never be sent."""
        values.check_unrendered(value)


class CheckedLaunches(CheckedVariables):
    """The attribute ``launches`` of a batch. Setting it checks the variables of each launch in a list."""

    def check(self, value: Any) -> None:
        """Refuse launches if the variables of one of them can never be sent."""
        if not isinstance(value, (list, tuple)):
            return
        for number, launch in enumerate(value, 1):
            if isinstance(launch, dict) and isinstance(launch.get("variables"), dict):
                try:
                    values.check_unrendered(launch["variables"])
                except ValueError as error:
                    raise ValueError(f"launch {number}: {error}") from None
