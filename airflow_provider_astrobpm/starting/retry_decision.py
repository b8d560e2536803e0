"""Decides whether and when a failed task is retried, based on its error. No I/O.

| the try failed because of                                             | decision                                              |
|-----------------------------------------------------------------------|-------------------------------------------------------|
| settings, credentials, a refusal, a bad argument, a closed instance   | fail: a retry would end in the same way               |
| throttling, an outage, no answer                                      | retry when the server asks, or after ``retry_delay``  |
| a start in doubt                                                      | retry soon to search for it, each time twice as late  |
| anything else                                                         | follow the task's ``retries`` and ``retry_delay``     |

A failed wait is in the last row. If its instance has failed, a retry starts another one, which costs people's time; only the
author knows whether that is worth it. A failed TLS handshake and an unreadable answer are there too, because each may be a
transient outage or a mistake.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from airflow_provider_astrobpm.client.backoff import Backoff
from airflow_provider_astrobpm.client.errors import (
    AmbiguousStartError,
    AuthenticationError,
    CallError,
    InstanceClosedError,
    NotSentError,
    RefusedError,
    SettingsError,
    TlsError,
    UnknownVariablesError,
)
from airflow_provider_astrobpm.client.resend_policy import retry_after_seconds

DOUBT_RETRY_SECONDS = 10.0  # before the first retry of a start in doubt, at most


class FailureAction(Enum):
    """Whether to retry a failed task."""

    FAIL = "fail"
    RETRY = "retry"
    AS_THE_TASK_SAYS = "default"


class FailureDecision(NamedTuple):
    """Whether and when to retry a failed task, and why."""

    action: FailureAction
    reason: str | None = None
    delay: float | None = None
    """Seconds before the retry; ``None`` for the task's own delay."""


def decide_retry(
    error: BaseException,
    *,
    is_bad_argument: bool,
    try_number: int,
    max_delay: float,
    now: float,
    chance: float,
) -> FailureDecision:
    """Decide whether and when to retry, by the table above.

    :param error: the error of the failed try.
    :param is_bad_argument: whether the error refuses an argument.
    :param try_number: the number of this try, from 1.
    :param max_delay: the longest delay in seconds; the task's own delay is not limited.
    :param now: the current time, in seconds since the epoch.
    :param chance: a random number from 0 to 1. An outage fails many tasks at once.
    """
    name = type(error).__name__
    backoff = Backoff(DOUBT_RETRY_SECONDS, max_delay)
    if is_bad_argument or _is_final(error):
        return FailureDecision(FailureAction.FAIL, f"{name}: a retry would end in the same way")
    if isinstance(error, AmbiguousStartError):
        return FailureDecision(
            FailureAction.RETRY,
            f"{name}: the retry searches for the instance",
            backoff.pause(try_number, chance),
        )
    if isinstance(error, CallError) and error.is_transient:
        asked = retry_after_seconds(error.retry_after, now)
        if asked is None:
            return FailureDecision(FailureAction.RETRY, f"{name}: it may be transient")
        return FailureDecision(
            FailureAction.RETRY,
            f"{name}: the server asks to wait {asked:g} s",
            backoff.asked_pause(asked, chance),
        )
    return FailureDecision(FailureAction.AS_THE_TASK_SAYS)


def _is_final(error: BaseException) -> bool:
    """Return whether a retry would fail with the same error."""
    if isinstance(error, NotSentError):
        return not error.is_transient and not isinstance(error, TlsError)
    final = (SettingsError, AuthenticationError, RefusedError, InstanceClosedError, UnknownVariablesError)
    return isinstance(error, final)
