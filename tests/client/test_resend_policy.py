"""When a call is resent, and after which delay."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from airflow_provider_astrobpm.client import operations, resend_policy
from airflow_provider_astrobpm.client.drivers import drive
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
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings

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


def resend(
    operation: operations.Operation[Any],
    outcomes: list[Any],
    *,
    max_attempts: int = 10,
    max_wait: float = 8,
    said: list[str] | None = None,
) -> tuple[Any, list[float]]:
    """Run a call whose attempts have these outcomes. Return its result and its pauses; the last error raises."""
    attempts, pauses = iter(outcomes), []

    def attempt() -> Generator[None, Any, Any]:
        outcome = next(attempts)
        yield None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    settings = Settings(
        "c", "https://x", ClientCredentials("id", "secret"), max_attempts=max_attempts, max_wait=max_wait
    )
    result = drive(
        resend_policy.resending(
            attempt,
            operation,
            settings,
            on_retry=(said if said is not None else []).append,
            clock=lambda: 0,
        ),
        lambda step: pauses.append(step.seconds) if step is not None else None,
    )
    return result, pauses


@pytest.mark.parametrize(
    ("errors", "never_reached"),
    [
        ([NotSentError("x"), NotSentError("x")], True),
        ([ThrottledError("x"), NotSentError("x")], False),
        ([NotSentError("x"), ThrottledError("x"), NotSentError("x"), TlsError("x")], False),
    ],
)
def test_never_reached_covers_all_attempts(errors: list[CallError], never_reached: bool) -> None:
    with pytest.raises(CallError) as caught:
        resend(operations.start("A"), errors, max_attempts=len(errors))
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
    with pytest.raises(CallError) as caught:
        resend(operations.change_state("1", "terminate"), errors, max_attempts=len(errors))
    assert caught.value.earlier_attempt_sent is earlier_attempt_sent
    assert caught.value.earlier_attempt_in_doubt is earlier_attempt_in_doubt


def test_an_attempt_may_itself_have_sent_the_request_twice() -> None:
    """After a refused token it is sent once more within one attempt (``protocol``)."""
    error = RefusedError("x")
    error.earlier_attempt_sent = True
    with pytest.raises(RefusedError) as caught:
        resend(operations.change_state("1", "terminate"), [error])
    assert caught.value.earlier_attempt_sent


@pytest.mark.parametrize(("was_processed", "only_once"), [(False, True), (None, False), (True, False)])
def test_a_malformed_answer_is_resent_if_the_call_only_reads(
    was_processed: bool | None, only_once: bool
) -> None:
    error = UnexpectedAnswerError("x")
    error.was_processed = was_processed
    assert resend_policy.may_resend(error, resend_if_malformed=True)
    assert resend_policy.may_resend(error) is only_once


@pytest.mark.parametrize(
    ("operation", "attempts"),
    [
        (operations.query("Running"), 2),
        (operations.change_state("1", "terminate"), 1),
        (operations.start("A"), 1),
    ],
)
def test_only_a_read_is_resent_after_a_malformed_answer(
    operation: operations.Operation[Any], attempts: int
) -> None:
    errors = [UnexpectedAnswerError("x"), UnexpectedAnswerError("y")]
    with pytest.raises(UnexpectedAnswerError) as caught:
        resend(operation, errors, max_attempts=2)
    assert caught.value is errors[attempts - 1]


@pytest.mark.parametrize("error", [ServerError, InterruptedCallError, TokenRefusedError])
def test_by_default_a_call_may_have_to_run_only_once(error: type[CallError]) -> None:
    assert resend_policy.may_resend(error("x")) is (error is TokenRefusedError)


def test_any_other_exception_of_an_attempt_is_raised_at_once() -> None:
    with pytest.raises(KeyError):
        resend(operations.query("Running"), [KeyError("x"), "done"])


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
        ("1\x1e", 1),
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


def pauses_of(error: CallError, *, failures: int = 3, max_wait: float = 8) -> list[float]:
    """Return the pauses of a call that fails some times and then succeeds."""
    result, pauses = resend(operations.query("Running"), [*[error] * failures, "done"], max_wait=max_wait)
    assert result == "done"
    return pauses


def test_pauses_grow_with_jitter_up_to_max_wait() -> None:
    pauses = pauses_of(ServerError("x"), failures=6, max_wait=8)
    assert len(pauses) == 6
    for position, pause in enumerate(pauses):
        most = min(8.0, 2.0**position)
        assert most / 2 <= pause <= most
    assert pauses != pauses_of(ServerError("x"), failures=6, max_wait=8)


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [("5", 5, 5.5), ("0", 0.5, 1), ("3600", 8, 8), ("Thu, 01 Jan 1970 00:00:05 GMT", 5, 5.5)],
)
def test_retry_after_is_respected_up_to_max_wait(asked: str, least: float, most: float) -> None:
    error = ThrottledError("x")
    error.retry_after = asked
    (pause,) = pauses_of(error, failures=1)
    assert least <= pause <= most


def test_last_attempt_fails_without_a_pause() -> None:
    errors = [ServerError("1"), ServerError("2")]
    said: list[str] = []
    with pytest.raises(ServerError) as caught:
        resend(operations.query("Running"), errors, max_attempts=2, said=said)
    assert caught.value is errors[1]
    assert said == [f"The first of up to 2 attempts failed. {errors[0]}"]


def test_single_attempt_is_neither_resent_nor_announced() -> None:
    said: list[str] = []
    with pytest.raises(ServerError):
        resend(operations.query("Running"), [ServerError("x")], max_attempts=1, said=said)
    assert said == []
