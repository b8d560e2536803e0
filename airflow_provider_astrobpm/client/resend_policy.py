"""Decides when a call is resent and after which delay, with tenacity.

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

import random
import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

import tenacity

from airflow_provider_astrobpm.client.backoff import Backoff
from airflow_provider_astrobpm.client.errors import CallError
from airflow_provider_astrobpm.client.operations import Sleep

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from airflow_provider_astrobpm.client.operations import Operation
    from airflow_provider_astrobpm.client.settings import Settings

S = TypeVar("S")
T = TypeVar("T")

FIRST_RESEND_DELAY_SECONDS = 1.0  # before the second attempt, at most; see ``Backoff``


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
    if (number := value.strip()).isdecimal():  # float() does not accept every blank
        return float(number)
    try:
        when = parsedate_to_datetime(value)
        if when.tzinfo is None:
            when = when.replace(tzinfo=timezone.utc)
        return max(0.0, (when - datetime.fromtimestamp(now, timezone.utc)).total_seconds())
    except (ValueError, OverflowError):
        return None


def resend_pause(error: CallError, failures: int, *, max_wait: float, now: float) -> float:
    """Return the seconds before a call is resent.

    :param error: the error of the last attempt, which says what the server asks for.
    :param failures: how many attempts in a row have failed.
    :param max_wait: the longest pause in seconds, even if ``Retry-After`` asks for more.
    :param now: the time, in seconds since the epoch.
    """
    backoff = Backoff(FIRST_RESEND_DELAY_SECONDS, max_wait)
    return backoff.pause(failures, random.random(), retry_after_seconds(error.retry_after, now))  # noqa: S311 - jitter


def resending(
    attempt: Callable[[], Generator[S, Any, T]],
    operation: Operation[T],
    settings: Settings,
    *,
    on_retry: Callable[[str], None],
    clock: Callable[[], float] = time.time,
) -> Generator[S | Sleep, Any, T]:
    """Run a call, and resend it by the table above. A generator that yields the steps of its attempts, and the pauses between.

    It also records in each error whether this or an earlier attempt may have reached the server or been acted on.

    :param attempt: begins one attempt.
    :param operation: the call.
    :param settings: has the limits ``max_attempts`` and ``max_wait``.
    :param on_retry: called with a message if the first attempt fails and the call is resent.
    :param clock: returns the time, in seconds since the epoch.
    :raises CallError: the error of the last attempt.
    """
    has_reached = may_have_been_processed = False

    def is_resent(error: Any) -> bool:  # a CallError: no other error is caught below
        nonlocal has_reached, may_have_been_processed
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

    def report_first_failure(state: tenacity.RetryCallState) -> None:
        if state.attempt_number == 1:
            on_retry(f"The first of up to {settings.max_attempts} attempts failed. {_error_of(state)}")

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_resent),
        stop=tenacity.stop_after_attempt(settings.max_attempts),
        wait=lambda state: resend_pause(
            _error_of(state), state.attempt_number, max_wait=settings.max_wait, now=clock()
        ),
        before_sleep=report_first_failure,
        reraise=True,
    )
    # Tenacity says what to do next. The driver of this generator sends and sleeps, in a thread or in an event loop.
    state = tenacity.RetryCallState(retrying, None, (), {})
    while True:
        # Begin each time: tenacity keeps statistics per thread, and a long answer resumes this generator in another one.
        retrying.begin()
        step = retrying.iter(retry_state=state)
        if isinstance(step, tenacity.DoAttempt):
            try:
                state.set_result((yield from attempt()))
            except CallError as error:
                state.set_exception((type(error), error, error.__traceback__))
        elif isinstance(step, tenacity.DoSleep):
            state.prepare_for_next_attempt()
            yield Sleep(step)
        else:
            result: T = step
            return result


def _error_of(state: tenacity.RetryCallState) -> CallError:
    """Return the error of the attempt that has just failed."""
    outcome: Any = state.outcome
    error: CallError = outcome.exception()
    return error
