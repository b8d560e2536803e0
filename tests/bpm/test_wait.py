"""The plan of a wait, on a clock that only pauses move."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.bpm import api, states, wait
from airflow_provider_astrobpm.bpm.api import Pause, Plan
from airflow_provider_astrobpm.bpm.condition import Outcome, WaitCondition
from airflow_provider_astrobpm.bpm.errors import (
    AuthenticationError,
    InstanceNotFoundError,
    InterruptedCallError,
    WaitFailedError,
    WaitTimeoutError,
)
from airflow_provider_astrobpm.bpm.instance import BpmInstance

Make = Callable[..., BpmInstance]
Look = BpmInstance | Exception
GONE = InstanceNotFoundError("instance '002N1'")


def cut() -> InterruptedCallError:
    return InterruptedCallError("cut")


class World:
    """Shows one look after another, the last one for ever, on a clock of its own."""

    def __init__(self, looks: Iterable[Look]) -> None:
        self.looks = list(looks)
        self.now = 1000.0
        self.pauses: list[float] = []
        self.reports: list[str] = []
        self.seen = 0
        self.look_takes = 0.0

    def find(self, instance_id: str, last_state: str | None) -> Plan[BpmInstance]:
        yield api.query("Running")
        self.now += self.look_takes
        look = self.looks[min(self.seen, len(self.looks) - 1)]
        self.seen += 1
        if isinstance(look, Exception):
            raise look
        return look

    def wait(self, first: BpmInstance, condition: WaitCondition | None = None, **options: Any) -> BpmInstance:
        options = {"poll_interval": 60, "timeout": None, "max_poll_failure_time": 600, **options}
        plan = wait.wait_for(
            first,
            condition or WaitCondition(),
            find=self.find,
            report=self.reports.append,
            warn=self.reports.append,
            clock=lambda: self.now,
            jitter=lambda: 0.0,
            **options,
        )
        return self.drive(plan)

    def drive(self, plan: Plan[BpmInstance]) -> BpmInstance:
        try:
            while True:
                step = plan.send(None)
                if isinstance(step, Pause):
                    self.pauses.append(step.seconds)
                    self.now += step.seconds
        except StopIteration as stop:
            result: BpmInstance = stop.value
            return result


def test_a_start_answer_that_is_an_end_already_needs_no_look(make: Make) -> None:
    world = World([])
    assert world.wait(make(state="Completed OK")).state == "Completed OK"
    with pytest.raises(WaitFailedError):
        world.wait(make(state="Broken"))
    assert world.pauses == []


def test_looks_until_it_is_there_and_speaks_when_something_changes(make: Make) -> None:
    person = make(state="Waiting for user interaction")
    world = World([person, person, person, make(state="Completed OK")])
    assert world.wait(make(state="Dispatched")).state == "Completed OK"
    assert world.pauses == [60] * 4
    assert len(world.reports) == 2


@pytest.mark.parametrize("state", ["Broken", "Terminated", "User Terminated"])
def test_a_bad_end_fails(state: str, make: Make) -> None:
    with pytest.raises(
        WaitFailedError, match=f"ended in state '{state}'; asked for was state 'Completed OK'"
    ) as caught:
        World([make(state=state)]).wait(make())
    assert caught.value.instance.state == state


def test_the_deadline_cuts_the_last_pause_short_and_looks_once_more(make: Make) -> None:
    world = World([make(), make(state="Completed OK")])
    assert world.wait(make(), timeout=100).state == "Completed OK"
    assert world.pauses == [60, 40]


def test_past_the_deadline_the_wait_fails_and_says_what_was_seen_last(make: Make) -> None:
    world = World([make(bp_status="Submitted")])
    with pytest.raises(
        WaitTimeoutError, match="timed out after 100 s .*last seen: instance '002N1'.*'Submitted'"
    ):
        world.wait(make(), timeout=100)
    assert world.now == 1100


def test_jitter_only_shortens(make: Make) -> None:
    world = World([make(state="Completed OK")])
    plan = wait.wait_for(
        make(),
        WaitCondition(),
        find=world.find,
        poll_interval=100,
        max_poll_failure_time=0,
        report=world.reports.append,
        warn=world.reports.append,
        jitter=lambda: 0.5,
    )
    world.drive(plan)
    assert world.pauses == [95]


def test_a_failed_look_is_no_failed_wait(make: Make) -> None:
    world = World([cut(), cut(), cut(), make(), make(state="Completed OK")])
    assert world.wait(make()).state == "Completed OK"
    assert [report.split(".")[0] for report in world.reports[:2]] == [
        "Polls fail from now on; the wait goes on",
        "Polls succeed again",
    ]


def test_looks_may_fail_for_a_stretch_and_no_longer(make: Make) -> None:
    world = World([cut()])
    with pytest.raises(InterruptedCallError):
        world.wait(make(), max_poll_failure_time=300)
    assert world.now == 1000 + 60 + 300
    assert len(world.reports) == 1


def test_a_stretch_is_counted_from_the_beginning_of_its_first_look(make: Make) -> None:
    world = World([cut()])
    world.look_takes = 100
    with pytest.raises(InterruptedCallError, match="polls have failed for 260 s"):
        world.wait(make(), max_poll_failure_time=200)


def test_intervals_may_be_timedeltas(make: Make) -> None:
    world = World([make()])
    with pytest.raises(WaitTimeoutError, match="after 90 s"):
        world.wait(
            make(),
            poll_interval=timedelta(minutes=1),
            timeout=timedelta(seconds=90),
            max_poll_failure_time=timedelta(hours=1),
        )
    assert world.pauses == [60, 30]


def test_a_look_that_succeeds_ends_the_stretch(make: Make) -> None:
    world = World([cut(), cut(), make(), cut(), cut(), make(state="Completed OK")])
    assert world.wait(make(), max_poll_failure_time=100).state == "Completed OK"


def test_refused_credentials_end_the_wait_at_once(make: Make) -> None:
    world = World([AuthenticationError("no")])
    with pytest.raises(AuthenticationError):
        world.wait(make())
    assert world.seen == 1


def test_gone_is_what_several_looks_in_a_row_do_not_find(make: Make) -> None:
    world = World([GONE, GONE, make(), GONE, GONE, GONE])
    with pytest.raises(InstanceNotFoundError):
        world.wait(make())
    assert world.seen == 6


def test_a_patient_look(make: Make) -> None:
    world = World([GONE, GONE, make()])
    assert world.drive(wait.find_patiently("002N1", find=world.find)).id == "002N1"
    assert world.pauses == [5, 5]
    with pytest.raises(InstanceNotFoundError):
        world.drive(wait.find_patiently("002N1", find=World([GONE]).find))


STATE = st.sampled_from([*states.STATES, "Unheard Of"])


@given(
    looks=st.lists(STATE | st.sampled_from([GONE, cut()]), min_size=1, max_size=12),
    last=st.sampled_from(["Completed OK", "Broken", "Terminated", "Running"]),
)
def test_whatever_happens_on_the_way_success_was_seen(looks: list[Any], last: str, make: Make) -> None:
    world = World([look if isinstance(look, Exception) else make(state=look) for look in [*looks, last]])
    condition = WaitCondition()
    try:
        instance = world.wait(make(), condition, timeout=100_000)
    except (WaitFailedError, WaitTimeoutError, InstanceNotFoundError, InterruptedCallError):
        return
    assert condition.judge(instance).outcome is Outcome.DONE
    assert instance in world.looks
