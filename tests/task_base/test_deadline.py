"""The deadline from ``timeout`` and ``execution_timeout``, and Airflow's alarm."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.client.errors import AstroZeroError, WaitTimeoutError
from airflow_provider_astrobpm.task_base.deadline import (
    MAX_ALARM_LEAD_SECONDS,
    WaitLimits,
    alarm_as_deadline,
    repeat_after_alarm,
    seconds_until_alarm,
)
from airflow_provider_astrobpm.waiting.condition import WaitCondition
from airflow_provider_astrobpm.waiting.wait import InstanceWait

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("timeout", "execution_timeout", "seconds", "argument"),
    [
        (None, None, None, "timeout"),
        (60, None, 60, "timeout"),
        (0, None, 0, "timeout"),
        (None, HOUR, 3595, "execution_timeout"),
        (60, HOUR, 60, "timeout"),
        (3598, HOUR, 3595, "execution_timeout"),
        (7200, HOUR, 3595, "execution_timeout"),
        (None, timedelta(seconds=10), 9, "execution_timeout"),
        (0, timedelta(seconds=10), 0, "timeout"),
    ],
)
def test_earlier_deadline_counts(
    timeout: float | None, execution_timeout: timedelta | None, seconds: float | None, argument: str
) -> None:
    limits = WaitLimits(timeout, execution_timeout)
    assert (limits.seconds, limits.argument) == (seconds, argument)


@pytest.mark.parametrize(
    ("limits", "at", "alarm", "deadline"),
    [
        (WaitLimits(None, None), None, None, (None, "timeout")),
        (WaitLimits(60, None), 1060, None, (1060, "timeout")),
        # Without execution_timeout an alarm is not Airflow's.
        (WaitLimits(60, None), 1060, 10, (1060, "timeout")),
        # A deferred task has no alarm; the time still counts from the start.
        (WaitLimits(None, HOUR), 1500, None, (1500, "execution_timeout")),
        # The start took a while, and the alarm was set before it.
        (WaitLimits(None, HOUR), 4595, 3540, (4535, "execution_timeout")),
        (WaitLimits(3590, HOUR), 4590, 3540, (4535, "execution_timeout")),
        # A retry after a crash: the alarm starts again, the deadline does not.
        (WaitLimits(None, HOUR), 1200, 3600, (1200, "execution_timeout")),
        (WaitLimits(600, HOUR), 1200, 3600, (1200, "timeout")),
        # A record of an earlier version does not include the execution_timeout.
        (WaitLimits(None, HOUR), None, 3600, (4595, "execution_timeout")),
    ],
)
def test_deadline_with_and_without_an_alarm(
    limits: WaitLimits, at: float | None, alarm: float | None, deadline: tuple[float | None, str]
) -> None:
    assert tuple(limits.deadline(at, now=1000, alarm=alarm)) == deadline


@given(
    timeout=st.none() | st.floats(0, 1e6),
    execution=st.floats(0.001, 1e6),
    launched=st.floats(0, 1e4),
)
def test_deadline_is_before_the_alarm(timeout: float | None, execution: float, launched: float) -> None:
    """The last poll and ``on_timeout`` come before the alarm, no matter how long the start took."""
    limits = WaitLimits(timeout, timedelta(seconds=execution))
    alarm = limits.execution_timeout.total_seconds() if limits.execution_timeout else 0
    assert limits.seconds is not None
    deadline = limits.deadline(launched + limits.seconds, now=launched, alarm=max(0.0, alarm - launched))
    assert deadline.at is not None
    lead = min(MAX_ALARM_LEAD_SECONDS, alarm / 10)
    assert deadline.at <= max(alarm, launched) - lead + 1e-3
    if timeout is not None:
        assert deadline.at <= launched + timeout


@contextmanager
def alarm_in(seconds: float) -> Iterator[None]:
    """Set an alarm as Airflow does."""

    def ring(*_: object) -> None:
        raise AirflowTaskTimeout("Timeout, PID: 1")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_seconds_until_alarm() -> None:
    assert seconds_until_alarm() is None
    with alarm_in(100):
        assert 99 < (seconds_until_alarm() or 0) <= 100
    assert seconds_until_alarm() is None


class TestAlarm:
    @pytest.fixture
    def awaited(self) -> InstanceWait:
        return InstanceWait(WaitCondition(), instance_id="1")

    def test_ends_a_wait_like_its_deadline(self, awaited: InstanceWait) -> None:
        with alarm_in(0.05), alarm_as_deadline(awaited, connection="my_conn"):
            time.sleep(10)
        assert isinstance(awaited.ending, WaitTimeoutError)
        assert str(awaited.ending).startswith(
            "On connection 'my_conn': The wait for instance '1' timed out at "
        )
        assert "('execution_timeout')" in str(awaited.ending)

    def test_leaves_an_ended_wait_unchanged(self, awaited: InstanceWait) -> None:
        over = AstroZeroError("over")
        with alarm_in(0.05), alarm_as_deadline(awaited, connection="my_conn"):
            awaited.end(over)
            time.sleep(10)
        assert awaited.ending is over

    def test_repeats_an_interrupted_action(self) -> None:
        tries = []

        def act() -> str:
            tries.append(1)
            if len(tries) == 1:
                time.sleep(10)
            return "done"

        with alarm_in(0.05):
            assert repeat_after_alarm(act) == "done"
        assert len(tries) == 2

    def test_raises_the_error_of_the_action(self) -> None:
        def act() -> None:
            raise AstroZeroError("no")

        with pytest.raises(AstroZeroError, match="no"):
            repeat_after_alarm(act)
