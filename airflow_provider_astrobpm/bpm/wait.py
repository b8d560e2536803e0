"""The plan of a wait: look, judge, pause, look again.

A look that fails is not a wait that fails: the wait goes on until looks have failed for a whole stretch, and a
failed look never changes anything at Astro Zero. What is in none of the states counts as gone only after several
whole looks.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.bpm import checks
from airflow_provider_astrobpm.bpm.api import Pause
from airflow_provider_astrobpm.bpm.condition import Outcome
from airflow_provider_astrobpm.bpm.errors import (
    AuthenticationError,
    CallError,
    InstanceNotFoundError,
    WaitFailedError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from airflow_provider_astrobpm.bpm.api import Plan
    from airflow_provider_astrobpm.bpm.condition import WaitCondition
    from airflow_provider_astrobpm.bpm.instance import BpmInstance

MISSING_LOOKS = 3  # whole looks in a row that find nothing, after which an instance is gone
MISSING_PAUSE = 5.0  # seconds between them where no interval is given
JITTER = 0.1  # share of the interval by which a pause may be shorter


def judged(instance: BpmInstance, condition: WaitCondition) -> bool:
    """Tell whether the wait is over.

    :raises WaitFailedError: if it is over and failed.
    """
    verdict = condition.judge(instance)
    if verdict.outcome is Outcome.FAILED:
        raise WaitFailedError(instance, verdict.reason)
    return verdict.outcome is Outcome.DONE


def find_patiently(
    instance_id: str, *, find: Callable[[str, str | None], Plan[BpmInstance]], last_state: str | None = None
) -> Plan[BpmInstance]:
    """Find an instance that may have been started a moment ago: look several times before it counts as missing.

    :raises InstanceNotFoundError: if several whole looks found nothing.
    """
    for _ in range(MISSING_LOOKS - 1):
        try:
            return (yield from find(instance_id, last_state))
        except InstanceNotFoundError:
            yield Pause(MISSING_PAUSE)
    return (yield from find(instance_id, last_state))


def wait_for(
    instance: BpmInstance,
    condition: WaitCondition,
    *,
    find: Callable[[str, str | None], Plan[BpmInstance]],
    poll_interval: float | timedelta,
    timeout: float | timedelta | None = None,
    max_poll_failure_time: float | timedelta,
    report: Callable[[str], None],
    warn: Callable[[str], None],
    clock: Callable[[], float] = time.time,
    jitter: Callable[[], float] = random.random,
) -> Plan[BpmInstance]:
    """Wait until the condition is met.

    :param instance: the instance as it was seen last, usually in the answer to its start.
    :param condition: what to wait for.
    :param find: a plan that finds an instance by its id, given the state in which it was last seen.
    :param poll_interval: seconds between two looks, at least 1.
    :param timeout: seconds from now after which the wait fails; ``None`` to wait for ever.
    :param max_poll_failure_time: seconds for which looks may fail in a row.
    :param report: is told in words what changed, and nothing while nothing does.
    :param warn: is told in words that looks begin to fail.
    :param clock: the time, in seconds since the epoch.
    :param jitter: a random number from 0 to 1.
    :returns: the instance as it was seen when the condition was met.
    :raises ValueError: for an interval that is none.
    :raises WaitFailedError: if the instance ended, or came to a state, that the condition does not accept.
    :raises WaitTimeoutError: if the deadline passed.
    :raises InstanceNotFoundError: if the instance is gone.
    :raises CallError: if looks failed for too long, or the credentials were refused.
    """
    poll_interval = checks.poll_interval(poll_interval)
    patience = _Patience(checks.seconds(max_poll_failure_time, "max_poll_failure_time"), clock, report, warn)
    timeout = None if timeout is None else checks.seconds(timeout, "timeout")
    deadline = None if timeout is None else clock() + timeout
    while not judged(instance, condition):
        now = clock()
        if deadline is not None and now >= deadline:
            raise WaitTimeoutError(instance, timeout or 0)
        pause = poll_interval * (1 - JITTER * jitter())
        yield Pause(pause if deadline is None else min(pause, deadline - now))
        began = clock()
        try:
            seen = yield from find(instance.id, instance.state)
        except (CallError, InstanceNotFoundError) as error:
            patience.look_failed(error, began)
        else:
            patience.look_succeeded()
            if str(seen) != str(instance):
                report(f"Now {seen}")
            instance = seen
    return instance


class _Patience:
    """How long failed looks are put up with; it speaks when something changes."""

    def __init__(
        self,
        max_poll_failure_time: float,
        clock: Callable[[], float],
        report: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self._max_poll_failure_time = max_poll_failure_time
        self._clock = clock
        self._report = report
        self._warn = warn
        self._failing_since: float | None = None
        self._missing = 0

    def look_succeeded(self) -> None:
        if self._failing_since is not None:
            self._report("Polls succeed again")
        self._failing_since, self._missing = None, 0

    def look_failed(self, error: CallError | InstanceNotFoundError, began: float) -> None:
        """Note a look that began then and failed, or raise its error if that was one too many."""
        if isinstance(error, InstanceNotFoundError):
            self._failing_since = None
            self._missing += 1
            if self._missing >= MISSING_LOOKS:
                raise error
            self._warn(f"{error.problem}; looking again")
            return
        if isinstance(error, AuthenticationError):
            raise error  # Asking again with the same credentials helps nobody.
        if self._failing_since is None:
            self._failing_since = began
            self._warn(f"Polls fail from now on; the wait goes on. {error}")
        stretch = self._clock() - self._failing_since
        if stretch >= self._max_poll_failure_time:
            error.problem += f"; polls have failed for {stretch:.0f} s ('max_poll_failure_time')"
            raise error
