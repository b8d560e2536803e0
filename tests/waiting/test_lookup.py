"""A failed read of a connection counts as a failed poll: same time limit, same deadline, one log line."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_astrobpm.client.errors import PreparationError, SettingsError, WaitTimeoutError
from airflow_provider_astrobpm.client.moment import Moment
from airflow_provider_astrobpm.waiting import lookup
from airflow_provider_astrobpm.waiting.condition import WaitCondition
from airflow_provider_astrobpm.waiting.wait import InstanceWait


def wait(**arguments: Any) -> InstanceWait:
    return InstanceWait(WaitCondition(), instance_id="1", **arguments)


def fail(awaited: InstanceWait, now: float, error: Exception | None = None, jitter: float = 0) -> float:
    return lookup.record_failed_read(
        awaited,
        "the connection",
        error or RuntimeError("s.3cret"),
        connection="my_conn",
        now=Moment(now, now),
        jitter=jitter,
    )


def test_pauses_grow_up_to_a_minute() -> None:
    awaited = wait()
    assert [fail(awaited, 0) for _ in range(9)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize(("jitter", "pause"), [(0, 8), (0.5, 6), (1, 4)])
def test_jitter_spreads_retries(jitter: float, pause: float) -> None:
    awaited = wait()
    for _ in range(3):
        fail(awaited, 0)
    assert fail(awaited, 0, jitter=jitter) == pause


def test_repeated_failures_are_logged_once_and_end_the_wait() -> None:
    awaited = wait(max_poll_failure_time=100)
    for now in range(0, 100, 10):
        pause = fail(awaited, now)
        assert awaited.ending is None
        assert now + pause <= 100, "the last read comes when max_poll_failure_time ends"
    fail(awaited, 100)
    assert isinstance(awaited.ending, PreparationError)
    assert str(awaited.ending) == (
        "On connection 'my_conn': the connection could not be read (RuntimeError); polls have failed for 100 s "
        "('max_poll_failure_time'). Check that the connection exists, and that Airflow's database and secrets backend "
        "are available."
    )
    (note,) = awaited.notes
    assert note.warning
    assert "the connection could not be read (RuntimeError)" in note.text


def test_the_deadline_still_counts() -> None:
    awaited = wait(deadline=30)
    assert fail(awaited, 29.5) == 0.5
    fail(awaited, 30)
    assert isinstance(awaited.ending, WaitTimeoutError)


def test_quotes_errors_in_settings_but_no_others() -> None:
    for error, words in (
        (SettingsError("host is empty", "my_conn"), "host is empty"),
        (RuntimeError("s.3cret"), "RuntimeError"),
    ):
        awaited = wait(max_poll_failure_time=0)
        fail(awaited, 0, error)
        assert words in str(awaited.ending)
        assert "s.3cret" not in str(awaited.ending)


def test_a_wait_for_a_lookup_tolerates_failures_for_its_time() -> None:
    awaited = lookup.LookupWait(600)
    failure = PreparationError("no answer")
    awaited.record_failed_poll(failure, Moment(0, 0))
    awaited.record_failed_poll(failure, Moment(0, 599))
    assert awaited.ending is None
    awaited.record_failed_poll(failure, Moment(0, 600))
    assert isinstance(awaited.ending, PreparationError)
