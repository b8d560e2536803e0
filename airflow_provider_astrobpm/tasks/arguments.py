"""The arguments of a task: what of them is checked while its DAG is parsed, and what only ``default_args`` have given.

DAG files import this module at every parse.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.bpm import variables as values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PLAIN = (str, int, float, list, tuple, dict)
"""Types whose values are compared by what they are; any other is compared by which one it is."""


@contextmanager
def task_named(task_id: str | None) -> Iterator[None]:
    """Let an error over an argument name the task, for one DAG file may have hundreds."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"Task {task_id!r}: {error}" if task_id else str(error)) from None


def is_default(defaults: Mapping[str, Any] | None, argument: str, value: object) -> bool:
    """Return whether a value is the one that ``default_args`` give, of the DAG, a task group or the task.

    Airflow fills it in before the operator sees it, so one that an author has given and that equals it counts too.

    :param defaults: the ``default_args`` that Airflow hands to the operator, merged.
    """
    if not defaults or argument not in defaults:
        return False
    # A duration counts in seconds: the operator may have taken it as those already.
    value, default = (
        one.total_seconds() if isinstance(one, timedelta) else one for one in (value, defaults[argument])
    )
    return value is default or (isinstance(value, PLAIN) and isinstance(default, PLAIN) and value == default)


def one_of(task: Any, defaults: Mapping[str, Any] | None, first: str, second: str) -> None:
    """Check that a task has one of two arguments. Where ``default_args`` give the other one too, that is left out.

    :raises ValueError: if it has none of them, or both of its own.
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
    """The attribute ``variables`` of an operator: what can be sent in no case is refused whenever it is set.

    That is while the DAG is parsed, and when Airflow has rendered its templates. Without it a ``NaN`` fails in between, where
    Airflow stores what was rendered, with an error that names nothing. The value itself stays as it is: Airflow must know again
    what comes from an upstream task, so that it does not render that.
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
        with task_named(getattr(task, "task_id", None)):
            self.check(value)
        task.__dict__[self._name] = value

    def check(self, value: Any) -> None:
        """Refuse variables that can be sent in no case."""
        values.check_written(value)


class CheckedLaunches(CheckedVariables):
    """The attribute ``launches`` of a batch: the same, for the variables of each that is written out."""

    def check(self, value: Any) -> None:
        """Refuse launches of which one has variables that can be sent in no case."""
        if not isinstance(value, (list, tuple)):
            return
        for number, launch in enumerate(value, 1):
            if isinstance(launch, dict) and isinstance(launch.get("variables"), dict):
                try:
                    values.check_written(launch["variables"])
                except ValueError as error:
                    raise ValueError(f"launch {number}: {error}") from None
