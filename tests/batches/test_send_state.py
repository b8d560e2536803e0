"""Tests of what a batch does with each result of a start: by a table, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_astrobpm.batches.batch_input import Launch
from airflow_provider_astrobpm.batches.send_state import MIN_DOUBTS_TO_STOP, SendState
from airflow_provider_astrobpm.client.errors import (
    AuthenticationError,
    CallError,
    InterruptedCallError,
    NotSentError,
    RefusedError,
    ServerError,
    ThrottledError,
    TlsError,
)
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.starting.lost_start import Recovery

NOW = 1000.0
FIRST, SECOND = Launch(1, "Approval", id="order 1"), Launch(2, "Approval", business_key="mine")
INSTANCE = BpmInstance(id="7", name="Approval", state="Running")


def throttled(retry_after: str) -> ThrottledError:
    error = ThrottledError("it was throttled")
    error.retry_after = retry_after
    return error


def state_of(**fields: Any) -> SendState:
    return SendState(**{"max_concurrency": 1, "max_attempts": 3, "max_wait": 30.0, "total": 2, **fields})


def fail(state: SendState, error: CallError, at: float = NOW, launch: Launch = FIRST) -> float | None:
    """Send a start that fails, and return the pause."""
    state.sending(at)
    return state.failed(launch, f"key-{launch.number}", error, sent_at=at, now=at)


@pytest.mark.parametrize(
    ("error", "pause", "stops", "counted"),
    [
        (NotSentError("x"), 1.0, False, {}),
        (throttled(""), 1.0, False, {}),
        (throttled("7"), 7.0, False, {}),
        (throttled("604"), 30.0, False, {}),
        (throttled("Thu, 01 Jan 1970 00:16:47 GMT"), 7.0, False, {}),
        (RefusedError("x"), None, False, {"refused": 1}),
        (AuthenticationError("x"), None, True, {}),
        (TlsError("x"), None, True, {}),
        (ServerError("x"), None, False, {"in_doubt": 1}),
        (InterruptedCallError("x"), None, False, {"in_doubt": 1}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_decides_by_the_failure_of_a_start(
    error: CallError, pause: float | None, stops: bool, counted: dict[str, int]
) -> None:
    state = state_of()
    assert fail(state, error) == pause
    assert state.delay(NOW) == (pause or -NOW)
    assert state.stopped_by is (error if stops else None)
    assert {name: getattr(state.counts, name) for name in ("refused", "in_doubt")} == {
        "refused": 0,
        "in_doubt": 0,
        **counted,
    }
    assert state.under_way == 0
    assert state.has_reached_server is (not isinstance(error, NotSentError))
    assert state.refused == ({1: error} if "refused" in counted else {})


def test_counts_the_starts_under_way() -> None:
    state = state_of(max_concurrency=9)
    for _ in range(3):
        state.sending(NOW)
    state.succeeded(FIRST, INSTANCE)
    assert (state.under_way, state.has_reached_server, state.instances) == (2, True, {1: INSTANCE})
    state.failed(SECOND, "key-2", ServerError("x"), sent_at=NOW, now=NOW)
    assert state.under_way == 1


def test_pauses_are_longer_each_time_and_stop_the_batch_at_last() -> None:
    state = state_of()
    pauses: list[float | None] = []
    for number in range(3):
        assert state.stopped_by is None
        pauses.append(fail(state, throttled(""), at=NOW + 100 * number))
    assert pauses == [1.0, 2.0, None]
    assert isinstance(state.stopped_by, ThrottledError)


def test_starts_sent_before_a_pause_do_not_count() -> None:
    state = state_of()
    assert fail(state, throttled(""), at=NOW) == 1.0
    for sent_at in (NOW - 1, NOW):
        assert [state.failed(FIRST, "key-1", throttled(""), sent_at=sent_at, now=NOW) for _ in range(9)] == [
            0.0
        ] * 9
    assert state.stopped_by is None


def test_an_answer_ends_the_series_of_failures() -> None:
    state = state_of()
    for number in range(20):
        fail(state, throttled(""), at=NOW + 100 * number)
        fail(state, ServerError("x"))
        state.sending(NOW)
        state.succeeded(SECOND, INSTANCE)
    assert state.stopped_by is None


def test_after_an_answer_failures_are_counted_from_the_first() -> None:
    state = state_of()
    for begun in (NOW, NOW + 1000):
        assert [fail(state, throttled(""), at=begun + 100 * number) for number in (1, 2)] == [1.0, 2.0]
        for _ in range(MIN_DOUBTS_TO_STOP - 1):
            fail(state, ServerError("x"))
        assert state.stopped_by is None
        state.sending(NOW)
        state.succeeded(SECOND, INSTANCE)


@pytest.mark.parametrize(("max_concurrency", "most"), [(1, MIN_DOUBTS_TO_STOP), (9, 9)])
def test_stops_after_many_lost_answers(max_concurrency: int, most: int) -> None:
    state = state_of(max_concurrency=max_concurrency)
    for _ in range(most):
        assert state.stopped_by is None
        fail(state, ServerError("x"))
    assert isinstance(state.stopped_by, ServerError)


@pytest.mark.parametrize("is_input_over", [True, False])
def test_lost_answers_are_forgotten_if_all_instances_were_found(is_input_over: bool) -> None:
    state = state_of(taken=1)
    for _ in range(MIN_DOUBTS_TO_STOP):
        fail(state, ServerError("the server failed"))
    assert state.recovered(Recovery({"key-1": INSTANCE}, {})) is None
    ending = state.ending(is_input_over=lambda: is_input_over)
    if is_input_over:
        assert ending is None
    else:
        assert ending is state.stopped_by
        assert "2 launches: 1 started (1 of them found" in str(ending)
        assert "the lost answers are launch 1 (id 'order 1', instance '7'): the server failed" in str(ending)


def test_a_refused_launch_needs_no_instance_for_lost_answers_to_be_forgotten() -> None:
    state = state_of(taken=2)
    fail(state, RefusedError("x"), launch=SECOND)
    for _ in range(MIN_DOUBTS_TO_STOP):
        fail(state, ServerError("the server failed"))
    state.recovered(Recovery({"key-1": INSTANCE}, {}))
    assert state.ending(is_input_over=lambda: True) is None


def test_another_failure_is_not_blamed_on_lost_answers() -> None:
    state, reason = state_of(taken=2), AuthenticationError("the secret is wrong")
    fail(state, ServerError("the server failed"))
    fail(state, reason, launch=SECOND)
    state.recovered(Recovery({"key-1": INSTANCE}, {}))
    assert state.ending(is_input_over=lambda: True) is reason
    assert reason.problem.startswith("the secret is wrong; of 2 launches: 1 started (1 of them found")
    assert "lost answers are" not in reason.problem


def test_any_other_reason_to_stop_says_more_than_lost_answers() -> None:
    state, reason = state_of(taken=1), RuntimeError("another try is running")
    for _ in range(MIN_DOUBTS_TO_STOP):
        fail(state, ServerError("x"))
    state.stop(reason)
    state.stop(RuntimeError("later"))
    assert state.recovered(Recovery({"key-1": INSTANCE}, {})) is None
    assert state.ending(is_input_over=lambda: True) is reason


def test_names_the_starts_in_doubt() -> None:
    state = state_of()
    fail(state, ServerError("the server failed"))
    error = state.recovered(Recovery({}, {"key-1": "no instance shows its business key"}))
    assert "1 in doubt, 1 not sent; in doubt are launch 1 (id 'order 1', business key 'key-1')" in str(error)
    assert "the server failed; no instance shows its business key" in str(error)


def test_only_a_custom_key_leaves_a_refusal_unproven() -> None:
    state = state_of()
    fail(state, RefusedError("x"))
    assert not state.is_unproven
    fail(state, NotSentError("x"), launch=SECOND)
    assert not state.is_unproven
    fail(state, RefusedError("x"), launch=SECOND)
    assert state.is_unproven


def test_keeps_to_the_interval() -> None:
    state = state_of(interval=0.1)
    assert state.delay(NOW) < 0
    state.sending(NOW)
    assert state.delay(NOW) == pytest.approx(0.1)
