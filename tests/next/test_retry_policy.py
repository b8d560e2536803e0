"""What the retry policy reschedules, when it comes back, and how it combines with other policies."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from airflow.sdk import ChainRetryPolicy, ExceptionRetryPolicy, RetryAction, RetryDecision, RetryRule

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.policies.bpm import astro_zero_retry_policy
from tests.support.retry_policies import call_error
from tests.support.retry_policies import judged_for_task as judged

pytestmark = pytest.mark.next


@pytest.fixture(autouse=True)
def _no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.0)


def seconds_of(decision: RetryDecision) -> float:
    assert decision.action is RetryAction.RESCHEDULE
    assert decision.retry_delay is not None
    return decision.retry_delay.total_seconds()


OUTAGES = (
    errors.NotSentError,
    errors.InterruptedCallError,
    errors.ThrottledError,
    errors.ServerError,
    errors.PreparationError,
)


@pytest.mark.parametrize("kind", OUTAGES)
def test_an_outage_is_rescheduled_within_limits(kind: type[errors.CallError]) -> None:
    decision = judged(call_error(kind))
    assert decision == RetryDecision.reschedule(
        timedelta(seconds=30),
        reschedule_timeout=timedelta(hours=12),
        reason=f"{kind.__name__}: an outage uses up no retry",
    )
    limited = judged(call_error(kind), max_reschedules=7, reschedule_timeout=None)
    assert (limited.max_reschedules, limited.reschedule_timeout) == (7, None)
    never = judged(call_error(kind), reschedule_timeout=None)
    assert never.action is RetryAction.RETRY


@pytest.mark.parametrize(
    ("past", "retry_delay", "pause"),
    [(0, 0, 30), (1, 0, 60), (4, 0, 480), (5, 0, 600), (5000, 0, 600), (0, 300, 300), (0, 7200, 7200)],
)
def test_pauses_grow_and_are_at_least_the_delay_of_the_task(
    past: int, retry_delay: float, pause: float
) -> None:
    assert seconds_of(judged(call_error(errors.ServerError), past=past, retry_delay=retry_delay)) == pause


def test_comes_back_no_earlier_than_the_server_asks() -> None:
    for asked, pause in (("0", 30), ("120", 120), ("86400", 3600)):
        decision = judged(call_error(errors.ThrottledError, retry_after=asked))
        assert seconds_of(decision) == pause
        assert f"the server asks to wait {asked} s" in str(decision.reason)
    assert seconds_of(judged(call_error(errors.ServerError), max_delay=5)) == 5


def test_tasks_that_failed_together_come_back_at_different_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 1.0)
    assert seconds_of(judged(call_error(errors.ServerError))) == 15


def test_a_start_in_doubt_is_rescheduled_soon_if_an_outage_caused_the_doubt() -> None:
    lost = errors.AmbiguousStartError(call_error(errors.InterruptedCallError), "key")
    assert seconds_of(judged(lost, retry_delay=300)) == 10
    assert seconds_of(judged(lost, past=2)) == 40
    for doubt in (call_error(errors.UnexpectedAnswerError), call_error(errors.TokenRefusedError), "unclear"):
        assert judged(errors.AmbiguousStartError(doubt, "key")).action is RetryAction.RETRY


def test_a_refused_token_is_no_outage() -> None:
    assert judged(call_error(errors.TokenRefusedError)).action is RetryAction.RETRY


def test_final_and_other_errors_are_not_rescheduled() -> None:
    assert judged(call_error(errors.RefusedError)).action is RetryAction.FAIL
    assert judged(errors.BatchChangedError("launch 3")).action is RetryAction.DEFAULT
    assert judged(call_error(errors.TlsError)).action is RetryAction.DEFAULT


def test_without_a_context_only_its_own_pause_counts() -> None:
    decision = astro_zero_retry_policy().evaluate(call_error(errors.ServerError), 1, 5)
    assert seconds_of(decision) == 30


def test_a_chain_asks_the_next_policy_about_errors_of_others() -> None:
    others = ExceptionRetryPolicy([RetryRule(exception=KeyError, action=RetryAction.FAIL)])
    chain = ChainRetryPolicy([astro_zero_retry_policy(), others])
    assert chain.evaluate(call_error(errors.ServerError), 1, 5).action is RetryAction.RESCHEDULE
    assert chain.evaluate(KeyError("rows"), 1, 5).action is RetryAction.FAIL
    assert chain.evaluate(RuntimeError("other"), 1, 5).action is RetryAction.DEFAULT
