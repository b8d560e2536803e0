"""What a wait needs before it can poll, and what becomes of it while that cannot be read.

A triggerer restarts, and the secrets backend hiccups: the connection cannot be looked up. That must not end a wait which has
been going on for days. So a failed look-up counts as a failed poll. It has the same patience, the same deadline and the
same line in the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.bpm.errors import AstroZeroError, PreparationError

if TYPE_CHECKING:
    from airflow_provider_astrobpm.bpm.moment import Moment
    from airflow_provider_astrobpm.bpm.wait import AnyWait

FIRST_RETRY_SECONDS = 1.0  # seconds after the first failed look-up, doubled with each further one
MAX_RETRY_SECONDS = 60.0  # seconds


def failed(
    wait: AnyWait[Any],
    what: str,
    error: Exception,
    *,
    connection: str,
    began: float,
    now: Moment,
    jitter: float,
) -> float:
    """Count a failed look-up in the books of a wait, which may end it, and return the seconds until the next one.

    :param wait: the wait.
    :param what: what could not be read, such as ``the connection``.
    :param error: how that failed.
    :param connection: the connection id.
    :param began: when the look-up began, by the steady clock.
    :param now: this moment.
    :param jitter: a random number from 0 to 1. A restart lets a thousand waits look up their connections at once.
    """
    # Only errors of this provider are quoted: what a secrets backend says may hold a secret.
    words = error.problem if isinstance(error, AstroZeroError) else type(error).__name__
    failure = PreparationError(f"{what} could not be read ({words})")
    failure.connection = connection
    wait.record_failed_poll(failure, began, now)
    seconds = min(MAX_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(wait.failed_looks - 1, 16)) * (1 - jitter / 2)
    left = wait.seconds_left(now)
    return seconds if left is None else max(0.0, min(seconds, left))
