"""Decides when a call is resent and after which delay, as tenacity policies.

| the call failed with                    | resent?                                  | an operation that must not run twice (start, delete) |
|-----------------------------------------|------------------------------------------|------------------------------------------------------|
| the server was never reached            | yes                                      | yes                                                  |
| throttling (429)                        | yes                                      | yes                                                  |
| a fresh token was refused               | yes                                      | yes                                                  |
| an interruption or server error (5xx)   | yes                                      | no: the server may have acted on it                  |
| a malformed answer (2xx)                | if it only reads, or requests a token    | no: the server may have acted on it                  |
| TLS, credentials, a refusal, a redirect,| no                                       | no                                                   |
| an answer that is too long              |                                          |                                                      |
"""

from __future__ import annotations

import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import tenacity

from airflow_provider_astrobpm.client.errors import CallError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.client.operations import Operation

FIRST_RESEND_DELAY_SECONDS = (
    0.5  # seconds before the second attempt, doubled for each further one; jitter adds up to the same amount
)


def may_resend(
    error: BaseException, *, resend_if_in_doubt: bool = False, resend_if_malformed: bool = False
) -> bool:
    """Return whether a call that failed with this error may be resent. For the parameters see ``Operation``."""
    if not isinstance(error, CallError) or error.failed_fetching_token:
        return False
    if error.is_malformed:
        return error.was_processed is False or resend_if_malformed
    return error.is_transient and (error.was_processed is False or resend_if_in_doubt)


def retry_after_seconds(value: str | None, now: float) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for, as seconds or as an HTTP date. ``None`` if it is neither.

    :param value: the header.
    :param now: the time, in seconds since the epoch.
    """
    if not value:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
        if when.tzinfo is None:
            when = when.replace(tzinfo=timezone.utc)
        return max(0.0, (when - datetime.fromtimestamp(now, timezone.utc)).total_seconds())
    except (ValueError, OverflowError):
        return None


def policy(
    operation: Operation[Any], *, max_attempts: int, max_wait: float, clock: Callable[[], float] = time.time
) -> dict[str, Any]:
    """Return the arguments for one use of ``tenacity.Retrying`` or ``tenacity.AsyncRetrying``.

    They also record in each error whether this or an earlier attempt may have reached the server or been acted on.

    :param operation: the call.
    :param max_attempts: the maximum number of attempts.
    :param max_wait: the maximum seconds between two attempts, even if ``Retry-After`` asks for more.
    :param clock: the time, in seconds since the epoch.
    """
    backoff = tenacity.wait_exponential(
        multiplier=FIRST_RESEND_DELAY_SECONDS, max=max_wait
    ) + tenacity.wait_random(0, FIRST_RESEND_DELAY_SECONDS)

    has_reached = may_have_been_processed = False

    def is_resent(error: BaseException) -> bool:
        nonlocal has_reached, may_have_been_processed
        if isinstance(error, CallError):
            error.earlier_attempt_sent = error.earlier_attempt_sent or has_reached
            error.earlier_attempt_in_doubt = may_have_been_processed
            has_reached = has_reached or not error.never_reached
            may_have_been_processed = error.may_have_been_processed
            error.never_reached = not has_reached
        return may_resend(
            error,
            resend_if_in_doubt=operation.resend_if_in_doubt,
            resend_if_malformed=operation.resend_if_malformed,
        )

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = retry_after_seconds(error.retry_after, clock()) if isinstance(error, CallError) else None
        return min(max_wait, asked if asked is not None else backoff(state))

    return {
        "retry": tenacity.retry_if_exception(is_resent),
        "stop": tenacity.stop_after_attempt(max_attempts),
        "wait": wait,
        "reraise": True,
    }
