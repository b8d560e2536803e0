"""Tests of the decision table of the retry policy, row by row."""

from __future__ import annotations

import inspect
import random
import time
from datetime import timedelta

import pytest

from airflow_provider_astrobpm._airflow.version_compat import has_reschedules
from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.policies.bpm import astro_zero_retry_policy
from tests.support.retry_policies import call_error

try:
    from airflow.sdk import RetryAction, RetryDecision
except ImportError:
    pytest.skip("tasks have no retry_policy before Airflow 3.3", allow_module_level=True)

INSTANCE = BpmInstance(id="002N1", name="Approval", state="Broken", is_closed=True)


def judged(
    error: BaseException, *, try_number: int = 1, max_delay: float = 3600.0, chance: float = 0.0
) -> RetryDecision:
    policy = astro_zero_retry_policy(max_delay=max_delay, reschedule_timeout=None)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(random, "random", lambda: chance)
        patched.setattr(time, "time", lambda: 1_000_000_000.0)
        decision: RetryDecision = policy.evaluate(error, try_number, max_tries=5)
    return decision


def seconds_of(decision: RetryDecision) -> float | None:
    return None if decision.retry_delay is None else decision.retry_delay.total_seconds()


ENDS_ALIKE = (
    errors.SettingsError("host is empty", "conn"),
    call_error(errors.AuthenticationError),
    call_error(errors.RefusedError),
    call_error(errors.NotSentError, is_transient=False),
    errors.InstanceClosedError(INSTANCE),
    errors.UnknownVariablesError("BPM 'A'", {"contry": "country"}, ["country"]),
)
MAY_PASS = (
    call_error(errors.NotSentError),
    call_error(errors.InterruptedCallError),
    call_error(errors.ThrottledError),
    call_error(errors.TokenRefusedError),
    call_error(errors.ServerError),
    call_error(errors.TokenRefusedError),
    call_error(errors.PreparationError),
)
NOBODY_KNOWS = (
    call_error(errors.TlsError),
    call_error(errors.UnexpectedAnswerError),
    call_error(errors.CallError),
    errors.AstroZeroError("the trigger failed"),
    errors.OpenInstanceExistsError(INSTANCE),
    errors.InstanceNotFoundError("instance '002N1'"),
    errors.SeveralInstancesError("business key 'k'", [INSTANCE]),
    errors.KeysNotShownError("k", "Approval", 3),
    errors.EffectNotShownError("002N1", "terminate", "accepted", INSTANCE),
    errors.NoInstancesError(["Running"], "bpm_name 'Approval'"),
    errors.AnotherInstanceError(INSTANCE, "another process"),
    errors.WaitFailedError(INSTANCE, "it broke"),
    errors.WaitTimeoutError("instance '002N1'", 5.0, INSTANCE),
    errors.BatchChangedError("launch 3 is another"),
    errors.BatchFailedError("3 of 5 failed"),
    errors.UnknownEventError({}, "it is empty"),
    ValueError("of someone else"),
    RuntimeError("of someone else"),
    KeyboardInterrupt(),
)
IN_DOUBT = errors.AmbiguousStartError("no answer came", "key")


def kind(error: BaseException) -> str:
    return type(error).__name__


@pytest.mark.parametrize("error", ENDS_ALIKE, ids=kind)
def test_fails_after_a_final_error(error: BaseException) -> None:
    assert judged(error) == RetryDecision.fail(f"{kind(error)}: a retry would end in the same way")


def test_fails_after_a_bad_argument() -> None:
    with pytest.raises(ValueError, match="max_delay must be a number of seconds") as refused:
        astro_zero_retry_policy(max_delay=-1)
    assert judged(refused.value).action is RetryAction.FAIL


@pytest.mark.parametrize("error", MAY_PASS, ids=kind)
def test_retries_a_transient_error_after_the_delay_of_the_task(error: BaseException) -> None:
    assert judged(error) == RetryDecision.retry(None, f"{kind(error)}: it may be transient")


@pytest.mark.parametrize(
    ("asked", "delay"),
    [
        ("120", 120),
        ("0", 0),
        ("86400", 3600),
        ("Sun, 09 Sep 2001 01:48:20 GMT", 100),
        ("Sun, 09 Sep 2001 01:40:00 GMT", 0),
        ("soon", None),
    ],
)
def test_retries_when_the_server_asks_for_it(asked: str, delay: float | None) -> None:
    for error in (errors.ThrottledError, errors.ServerError):
        after = judged(call_error(error, retry_after=asked))
        assert (after.action, seconds_of(after)) == (RetryAction.RETRY, delay)


def test_fails_after_a_refusal_with_retry_after() -> None:
    assert judged(call_error(errors.RefusedError, retry_after="5")).action is RetryAction.FAIL


@pytest.mark.parametrize(
    ("try_number", "delay"), [(0, 10), (1, 10), (2, 20), (3, 40), (4, 80), (10, 3600), (5000, 3600)]
)
def test_retries_a_start_in_doubt_with_growing_delays(try_number: int, delay: float) -> None:
    after = judged(IN_DOUBT, try_number=try_number)
    assert after == RetryDecision.retry(
        timedelta(seconds=delay), "AmbiguousStartError: the retry searches for the instance"
    )
    assert seconds_of(judged(IN_DOUBT, try_number=try_number, max_delay=1)) == 1


def test_tasks_that_failed_together_are_retried_at_different_moments() -> None:
    assert [seconds_of(judged(IN_DOUBT, chance=chance)) for chance in (0, 0.5, 1)] == [10, 7.5, 5]
    throttled = call_error(errors.ThrottledError, retry_after="120")
    assert [seconds_of(judged(throttled, chance=chance)) for chance in (0, 0.5, 1)] == [120, 122.5, 125]


def test_reschedules_by_default_where_airflow_can() -> None:
    """``tests/next`` has the details, because only Airflow 3.4 can."""
    decision = astro_zero_retry_policy().evaluate(call_error(errors.ServerError), 1, max_tries=5)
    assert decision.action.value == ("reschedule" if has_reschedules() else "retry")


@pytest.mark.parametrize("error", NOBODY_KNOWS, ids=kind)
def test_follows_the_settings_of_the_task_after_any_other_error(error: BaseException) -> None:
    assert judged(error) == RetryDecision.default()


def test_every_error_is_in_the_table() -> None:
    known = {each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, Exception)}
    assert known <= {type(error) for error in (*ENDS_ALIKE, *MAY_PASS, *NOBODY_KNOWS, IN_DOUBT)}
