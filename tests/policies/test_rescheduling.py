"""What the retry policy asks Airflow to reschedule, and when. Airflow's decision is played; ``tests/next`` has the real one."""

from __future__ import annotations

import random
import time
from datetime import timedelta
from typing import Any, NamedTuple

import pytest

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.policies.bpm import astro_zero_retry_policy
from tests.support.retry_policies import call_error
from tests.support.retry_policies import judged_for_task as judged

try:
    from airflow.sdk import RetryAction, RetryDecision

    from airflow_provider_astrobpm.policies import retry
except ImportError:
    pytest.skip("tasks have no retry_policy before Airflow 3.3", allow_module_level=True)


class Rescheduled(NamedTuple):
    """What Airflow was asked for."""

    pause: float
    reason: str
    max_reschedules: int | None = None
    timeout: float | None = 43_200.0


class Decisions(RetryDecision):  # type: ignore[misc, unused-ignore]
    """Airflow 3.4's decisions."""

    @classmethod
    def reschedule(
        cls,
        retry_delay: timedelta,
        *,
        max_reschedules: int | None,
        reschedule_timeout: timedelta | None,
        reason: str,
    ) -> Any:
        limit = None if reschedule_timeout is None else reschedule_timeout.total_seconds()
        return Rescheduled(retry_delay.total_seconds(), reason, max_reschedules, limit)


@pytest.fixture(autouse=True)
def _airflow_3_4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "has_reschedules", lambda: True)
    monkeypatch.setattr(retry, "RetryDecision", Decisions)
    monkeypatch.setattr(random, "random", lambda: 0.0)
    monkeypatch.setattr(time, "time", lambda: 1_000_000_000.0)


DOWN = call_error(errors.ServerError)
LOST = errors.AmbiguousStartError(call_error(errors.InterruptedCallError), "key")
OUTAGE, DOUBT = "ServerError: an outage uses up no retry", "AmbiguousStartError: an outage uses up no retry"


@pytest.mark.parametrize(
    ("limits", "decision"),
    [
        ({}, Rescheduled(30, OUTAGE)),
        ({"reschedule_timeout": 60}, Rescheduled(30, OUTAGE, None, 60)),
        ({"max_reschedules": 7}, Rescheduled(30, OUTAGE, 7)),
        ({"max_reschedules": 7, "reschedule_timeout": None}, Rescheduled(30, OUTAGE, 7, None)),
        ({"reschedule_timeout": None}, Decisions.retry(None, "ServerError: it may be transient")),
    ],
)
def test_reschedules_within_the_limits(limits: dict[str, Any], decision: Any) -> None:
    assert judged(DOWN, **limits) == decision


@pytest.mark.parametrize(
    ("error", "past", "retry_delay", "limits", "pause"),
    [
        (DOWN, 0, 0, {}, 30),
        (DOWN, None, 0, {}, 30),
        (DOWN, 1, 0, {}, 60),
        (DOWN, 4, 0, {}, 480),
        (DOWN, 5, 0, {}, 600),
        (DOWN, 5000, 0, {}, 600),
        (DOWN, 0, 300, {}, 300),
        (DOWN, 0, 7200, {}, 7200),
        (DOWN, 5, 0, {"max_delay": 100}, 100),
        (LOST, 0, 0, {}, 10),
        (LOST, 0, 300, {}, 10),  # the search for its instance does not wait for the delay of the task
        (LOST, 2, 0, {}, 40),
        (LOST, 9, 0, {}, 600),
    ],
)
def test_pauses_grow_and_are_at_least_the_delay_of_the_task(
    error: BaseException, past: int | None, retry_delay: float, limits: dict[str, Any], pause: float
) -> None:
    assert judged(error, past=past, retry_delay=retry_delay, **limits).pause == pause


@pytest.mark.parametrize(
    ("asked", "pause", "words"),
    [
        ("0", 30, "0 s"),
        ("120", 120, "120 s"),
        ("86400", 3600, "86400 s"),
        ("Sun, 09 Sep 2001 01:48:20 GMT", 100, "100 s"),
    ],
)
def test_comes_back_no_earlier_than_the_server_asks(asked: str, pause: float, words: str) -> None:
    decision = judged(call_error(errors.ThrottledError, retry_after=asked))
    assert decision == Rescheduled(
        pause, f"ThrottledError: an outage uses up no retry, and the server asks to wait {words}"
    )


def test_tasks_that_failed_together_come_back_at_different_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 1.0)
    assert judged(DOWN).pause == 15
    assert judged(call_error(errors.ThrottledError, retry_after="120")).pause == 135
    assert judged(LOST).pause == 5


def test_without_a_context_only_its_own_pause_counts() -> None:
    decision: Any = astro_zero_retry_policy().evaluate(DOWN, 1, 5)
    assert decision == Rescheduled(30, OUTAGE)


def test_a_lost_start_is_rescheduled_only_if_an_outage_caused_the_doubt() -> None:
    assert judged(LOST) == Rescheduled(10, DOUBT)
    for doubt in (call_error(errors.UnexpectedAnswerError), call_error(errors.TokenRefusedError), "unclear"):
        assert judged(errors.AmbiguousStartError(doubt, "key")).action is RetryAction.RETRY


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (call_error(errors.TokenRefusedError), RetryAction.RETRY),
        (call_error(errors.RefusedError), RetryAction.FAIL),
        (call_error(errors.TlsError), RetryAction.DEFAULT),
        (errors.BatchChangedError("launch 3"), RetryAction.DEFAULT),
        (KeyError("rows"), RetryAction.DEFAULT),
    ],
)
def test_other_errors_are_no_outages(error: BaseException, action: RetryAction) -> None:
    assert judged(error).action is action


def test_a_policy_is_restored_from_json() -> None:
    policy = astro_zero_retry_policy(max_delay=60, max_reschedules=3)
    plain = policy.serialize()
    assert plain == {
        "__type": "AstroZeroRetryPolicy",
        "max_delay": 60,
        "max_reschedules": 3,
        "reschedule_timeout": 43_200,
    }
    assert type(policy).deserialize(plain).serialize() == plain
