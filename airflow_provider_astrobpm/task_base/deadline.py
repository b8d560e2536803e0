"""The deadline of a wait, from ``timeout`` and Airflow's ``execution_timeout``; the earlier one counts.

Airflow enforces ``execution_timeout`` with an alarm in the process of the task. A deferred task has no process, and each
process that resumes it starts the time again. So the wait includes ``execution_timeout`` in its own deadline. That deadline
is shortly before the alarm, which leaves time for the last poll and for ``on_timeout``.

| the alarm comes                      | then                                                              |
|--------------------------------------|-------------------------------------------------------------------|
| before the deadline, in a long poll  | it ends the wait as the deadline would                            |
| during the action of ``on_timeout``  | the action is repeated, because the alarm comes only once         |
| before the wait has begun            | it ends the try; a retry resumes what the try has started         |
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta

    from airflow_provider_astrobpm.waiting.wait import BaseWait

T = TypeVar("T")

TIMEOUT, EXECUTION_TIMEOUT = "timeout", "execution_timeout"
ALARM_LEAD_SHARE = 0.1  # share of execution_timeout between the deadline and the alarm
MAX_ALARM_LEAD_SECONDS = 5.0


class WaitDeadline(NamedTuple):
    """When a wait fails."""

    at: float | None
    """Seconds since the epoch; ``None`` for never."""
    argument: str
    """The argument that set it."""


@dataclass(frozen=True)
class WaitLimits:
    """How long a wait may take.

    :param timeout: seconds for the wait; ``None`` for no limit.
    :param execution_timeout: Airflow's limit for the task.
    """

    timeout: float | None
    execution_timeout: timedelta | None

    @property
    def _lead(self) -> float:
        return min(MAX_ALARM_LEAD_SECONDS, ALARM_LEAD_SHARE * self._execution) if self._execution else 0.0

    @property
    def _execution(self) -> float | None:
        return None if self.execution_timeout is None else self.execution_timeout.total_seconds()

    @property
    def seconds(self) -> float | None:
        """The maximum duration of a wait, in seconds; ``None`` for no limit."""
        execution = None if self._execution is None else self._execution - self._lead
        return min((one for one in (self.timeout, execution) if one is not None), default=None)

    @property
    def argument(self) -> str:
        """The argument that sets this duration."""
        return TIMEOUT if self.seconds == self.timeout else EXECUTION_TIMEOUT

    def deadline(self, at: float | None, *, now: float, alarm: float | None) -> WaitDeadline:
        """Return the deadline of a wait that continues in this process.

        :param at: when the wait fails according to ``seconds``, in seconds since the epoch.
        :param now: the current time, in seconds since the epoch.
        :param alarm: seconds until the alarm of this process, if one is set.
        """
        by_alarm = None if self._execution is None or alarm is None else now + alarm - self._lead
        if by_alarm is not None and (at is None or by_alarm < at):
            return WaitDeadline(by_alarm, EXECUTION_TIMEOUT)
        return WaitDeadline(at, self.argument)


def seconds_until_alarm() -> float | None:
    """Return the seconds until the alarm of this process, or ``None`` if none is set."""
    seconds, _ = signal.getitimer(signal.ITIMER_REAL)
    return seconds or None


@contextmanager
def alarm_as_deadline(awaited: BaseWait[Any], *, connection: str) -> Iterator[None]:
    """Treat Airflow's alarm as the deadline of a wait that has not ended yet.

    :param connection: the connection id, for the error of the wait.
    """
    try:
        yield
    except AirflowTaskTimeout:
        if awaited.ending is None:
            awaited.deadline_argument = EXECUTION_TIMEOUT
            from airflow_provider_astrobpm.client import moment  # noqa: PLC0415

            now = moment.now()
            error = awaited.timeout_error(now.wall, now)
            error.connection = connection
            awaited.end(error)


def repeat_after_alarm(act: Callable[[], T]) -> T:
    """Return the result of an action. If Airflow's alarm interrupts the action, repeat it; the alarm comes only once."""
    try:
        return act()
    except AirflowTaskTimeout:
        return act()
