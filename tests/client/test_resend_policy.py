"""When a call is resent, and after which delay."""

from __future__ import annotations

from typing import Any

import pytest
import tenacity

from airflow_provider_astrobpm.client import operations, resend_policy
from airflow_provider_astrobpm.client.errors import (
    AuthenticationError,
    CallError,
    InterruptedCallError,
    NotSentError,
    RefusedError,
    ServerError,
    ThrottledError,
    TlsError,
    TokenRefusedError,
    UnexpectedAnswerError,
)

TABLE: list[tuple[type[CallError], bool, bool]] = [
    # error, whether a harmless call is resent, whether a call that must not run twice is resent
    (NotSentError, True, True),
    (ThrottledError, True, True),
    (TokenRefusedError, True, True),
    (InterruptedCallError, True, False),
    (ServerError, True, False),
    (TlsError, False, False),
    (AuthenticationError, False, False),
    (RefusedError, False, False),
    (UnexpectedAnswerError, False, False),
]


@pytest.mark.parametrize(("error", "harmless", "only_once"), TABLE)
def test_may_resend_follows_the_table(error: type[CallError], harmless: bool, only_once: bool) -> None:
    assert resend_policy.may_resend(error("x"), resend_if_in_doubt=True) is harmless
    assert resend_policy.may_resend(error("x"), resend_if_in_doubt=False) is only_once


def test_other_exceptions_are_not_resent() -> None:
    assert not resend_policy.may_resend(KeyError("x"), resend_if_in_doubt=True)


@pytest.mark.parametrize(
    ("errors", "never_reached"),
    [
        ([NotSentError("x"), NotSentError("x")], True),
        ([ThrottledError("x"), NotSentError("x")], False),
        ([NotSentError("x"), ThrottledError("x"), NotSentError("x"), TlsError("x")], False),
    ],
)
def test_never_reached_covers_all_attempts(errors: list[CallError], never_reached: bool) -> None:
    sends = iter(errors)

    def send() -> None:
        raise next(sends)

    policy = resend_policy.policy(operations.start("A"), max_attempts=len(errors), max_wait=0)
    with pytest.raises(CallError) as caught:
        tenacity.Retrying(**policy, sleep=lambda _seconds: None)(send)
    assert caught.value is errors[-1]
    assert caught.value.never_reached is never_reached


@pytest.mark.parametrize(
    ("errors", "earlier_attempt_sent", "earlier_attempt_in_doubt"),
    [
        ([RefusedError("x")], False, False),
        ([NotSentError("x"), RefusedError("x")], False, False),
        ([ThrottledError("x"), RefusedError("x")], True, False),
        ([ServerError("x"), RefusedError("x")], True, True),
        ([InterruptedCallError("x"), NotSentError("x"), NotSentError("x")], True, True),
        ([ServerError("x"), ThrottledError("x")], True, True),
    ],
)
def test_error_records_the_possible_effect_of_earlier_attempts(
    errors: list[CallError], earlier_attempt_sent: bool, earlier_attempt_in_doubt: bool
) -> None:
    for error in errors:
        error.never_reached = isinstance(error, NotSentError)
    sends = iter(errors)

    def send() -> None:
        raise next(sends)

    policy = resend_policy.policy(
        operations.change_state("1", "terminate"), max_attempts=len(errors), max_wait=0
    )
    with pytest.raises(CallError) as caught:
        tenacity.Retrying(**policy, sleep=lambda _seconds: None)(send)
    assert caught.value.earlier_attempt_sent is earlier_attempt_sent
    assert caught.value.earlier_attempt_in_doubt is earlier_attempt_in_doubt


@pytest.mark.parametrize(
    ("operation", "resent"),
    [
        (operations.start("A"), False),
        (operations.delete("1"), False),
        (operations.change_state("1", "terminate"), True),
        (operations.set_variables("1", {"a": 1}), True),
        (operations.query("Running"), True),
        (operations.get_token("c", "s"), True),
    ],
)
def test_operations_that_may_run_twice(operation: operations.Operation[Any], resent: bool) -> None:
    assert operation.resend_if_in_doubt is resent


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        ("0", 0),
        ("Thu, 01 Jan 1970 00:01:30 GMT", 30),
        ("Thu, 01 Jan 1970 00:00:30 GMT", 0),
        ("Thu, 01 Jan 1970 00:01:30", 30),
        ("soon", None),
        ("-1", None),
        ("²", None),
        ("Wed, 21 Oct 2015 07:28:00 +99999999999999", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert resend_policy.retry_after_seconds(value, now=60) == seconds


def attempts(error: CallError, *, max_attempts: int = 4, max_wait: float = 8) -> list[float]:
    """Make every attempt of a call fail, and return the delays between the attempts."""
    waits: list[float] = []

    def call() -> None:
        raise error

    policy = resend_policy.policy(
        operations.query("Running"), max_attempts=max_attempts, max_wait=max_wait, clock=lambda: 0
    )
    with pytest.raises(type(error)):
        tenacity.Retrying(**policy, sleep=waits.append)(call)
    return waits


def test_delays_grow_with_jitter_up_to_max_wait() -> None:
    waits = attempts(ServerError("x"), max_attempts=7, max_wait=8)
    assert len(waits) == 6
    for position, wait in enumerate(waits):
        least = min(8.0, 0.5 * 2**position)
        assert least <= wait <= min(8.0, least + 0.5)


def test_retry_after_is_respected_up_to_max_wait() -> None:
    error = ThrottledError("x")
    error.retry_after = "5"
    assert attempts(error) == [5, 5, 5]
    error.retry_after = "3600"
    assert attempts(error) == [8, 8, 8]


def test_single_attempt_has_no_delay() -> None:
    assert attempts(ServerError("x"), max_attempts=1) == []
