"""The plan of a wait, on a clock that only pauses move."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.bpm import look, states, wait
from airflow_provider_astrobpm.bpm.api import Operation, Pause, Plan
from airflow_provider_astrobpm.bpm.condition import Outcome, WaitCondition
from airflow_provider_astrobpm.bpm.errors import (
    AnotherInstanceError,
    AuthenticationError,
    CallError,
    InstanceNotFoundError,
    InterruptedCallError,
    RefusedError,
    SeveralInstancesError,
    ThrottledError,
    UnexpectedAnswerError,
    WaitFailedError,
    WaitTimeoutError,
)
from airflow_provider_astrobpm.bpm.group_wait import GroupEnd, GroupWait
from airflow_provider_astrobpm.bpm.instance import BpmInstance
from airflow_provider_astrobpm.bpm.moment import Moment
from airflow_provider_astrobpm.bpm.sameness import Known
from airflow_provider_astrobpm.bpm.search import BusinessKey
from airflow_provider_astrobpm.bpm.settings import ReadyToken, Settings

Make = Callable[..., BpmInstance]
Look = BpmInstance | list[BpmInstance] | CallError | None
SETTINGS = Settings("my_conn", "http://wait.test", ReadyToken("t"), instance_lookup="list")


def cut() -> InterruptedCallError:
    return InterruptedCallError("cut")


class World:
    """Shows one look after another, the last one for ever, on a clock that only pauses move.

    A look is an instance, several, an error, or ``None`` where there is nothing to be seen.
    """

    def __init__(self, looks: Iterable[Look]) -> None:
        self.looks = list(looks)
        self.now = 1000.0
        self.pauses: list[float] = []
        self.notes: list[wait.Note] = []
        self.seen = 0
        self.look_takes = 0.0
        self.set_by = 0.0  # seconds by which the wall clock was set
        self.setting: tuple[float, float] | None = None
        self.settings = SETTINGS

    def sets_clock(self, *, at: float, by: float) -> None:
        """Let the wall clock be set as soon as this much time has passed."""
        self.setting = at, by

    def moment(self) -> Moment:
        if self.setting is not None and self.now >= self.setting[0]:
            self.set_by, self.setting = self.set_by + self.setting[1], None
        return Moment(self.now + self.set_by, self.now)

    def waits(
        self, first: BpmInstance, condition: WaitCondition | None = None, **options: Any
    ) -> BpmInstance:
        options = {"poll_interval": 60, "timeout": None, "max_poll_failure_time": 600, **options}
        timeout = options.pop("timeout")
        awaited = wait.Wait(
            condition or WaitCondition(),
            seen=first,
            deadline=None if timeout is None else self.now + self.set_by + timeout,
            max_poll_failure_time=options.pop("max_poll_failure_time"),
        )
        self.run(awaited, **options)
        return awaited.result()

    def run(self, awaited: wait.AnyWait[Any], *, poll_interval: float = 60, jitter: float = 0.0) -> None:
        self.drive(
            look.wait_for(
                awaited,
                settings=self.settings,
                poll_interval=poll_interval,
                log=self.notes.append,
                clock=self.moment,
                jitter=lambda: jitter,
            )
        )

    def look(self, awaited: wait.Wait, again_after: float | None = None) -> None:
        looking: dict[str, Any] = {
            "settings": self.settings,
            "log": self.notes.append,
            "clock": self.moment,
        }
        if again_after is None:
            self.drive(look.once(awaited, **looking))
        else:
            self.drive(look.until_sure(awaited, again_after=again_after, jitter=lambda: 0.0, **looking))

    def drive(self, plan: Plan[Any]) -> None:
        reply: Any = None
        error: CallError | None = None
        look: Look = None
        new_look = True
        try:
            while True:
                step = plan.throw(error) if error else plan.send(reply)
                reply, error = None, None
                if isinstance(step, Pause):
                    self.pauses.append(step.seconds)
                    self.now += step.seconds
                    new_look = True
                    continue
                if new_look:
                    look = self.looks[min(self.seen, len(self.looks) - 1)]
                    self.seen += 1
                    self.now += self.look_takes
                    new_look = False
                if isinstance(look, CallError):
                    error = look
                else:
                    reply = self.rows(look, step)
        except StopIteration:
            return

    @staticmethod
    def rows(look: BpmInstance | list[BpmInstance] | None, operation: Operation[Any]) -> list[BpmInstance]:
        there = look if isinstance(look, list) else [look] if look else []
        asked = dict(operation.query)["states"]
        # A state that nobody knows cannot be asked for; such rows show among the running ones.
        return [one for one in there if (one.state if one.state in states.STATES else "Running") == asked]

    def said(self) -> list[str]:
        return [note.text.split(".")[0] for note in self.notes]


def test_a_start_answer_that_is_an_end_already_needs_no_look(make: Make) -> None:
    world = World([])
    assert world.waits(make(state="Completed OK")).state == "Completed OK"
    with pytest.raises(WaitFailedError):
        world.waits(make(state="Broken"))
    assert world.pauses == []


def test_looks_until_it_is_there_and_speaks_when_something_changes(make: Make) -> None:
    person = make(state="Waiting for user interaction")
    world = World([person, person, person, make(state="Completed OK")])
    assert world.waits(make(state="Dispatched")).state == "Completed OK"
    assert world.pauses == [60] * 4
    assert len(world.notes) == 2


@pytest.mark.parametrize("state", ["Broken", "Terminated", "User Terminated"])
def test_a_bad_end_fails(state: str, make: Make) -> None:
    with pytest.raises(
        WaitFailedError, match=f"ended in state '{state}'; asked for was state 'Completed OK'"
    ) as caught:
        World([make(state=state)]).waits(make())
    assert caught.value.instance.state == state


def test_the_deadline_cuts_the_last_pause_short_and_looks_once_more(make: Make) -> None:
    world = World([make(), make(state="Completed OK")])
    assert world.waits(make(), timeout=100).state == "Completed OK"
    assert world.pauses == [60, 40]


def test_past_the_deadline_the_wait_fails_and_says_what_was_seen_last(make: Make) -> None:
    world = World([make(bp_status="Submitted")])
    with pytest.raises(
        WaitTimeoutError,
        match="instance '002N1' timed out at 1970-01-01 00:18:20 UTC .*last seen: instance '002N1'.*'Submitted'",
    ):
        world.waits(make(), timeout=100)
    assert world.now == 1100


def test_jitter_only_shortens(make: Make) -> None:
    world = World([make(state="Completed OK")])
    world.run(wait.Wait(WaitCondition(), seen=make()), poll_interval=100, jitter=0.5)
    assert world.pauses == [95]


def test_a_failed_look_is_no_failed_wait(make: Make) -> None:
    world = World([cut(), cut(), cut(), make(), make(state="Completed OK")])
    assert world.waits(make()).state == "Completed OK"
    assert world.said()[:2] == ["Polls fail from now on; the wait goes on", "Polls succeed again"]
    assert [note.warning for note in world.notes] == [True, False, False]


def test_looks_may_fail_for_a_stretch_and_no_longer(make: Make) -> None:
    world = World([cut()])
    with pytest.raises(InterruptedCallError):
        world.waits(make(), max_poll_failure_time=300)
    assert world.now == 1000 + 60 + 300
    assert len(world.notes) == 1


def test_a_stretch_is_counted_from_the_beginning_of_its_first_look(make: Make) -> None:
    world = World([cut()])
    world.look_takes = 100
    with pytest.raises(InterruptedCallError, match="polls have failed for 260 s"):
        world.waits(make(), max_poll_failure_time=200)


def test_a_look_that_succeeds_ends_the_stretch(make: Make) -> None:
    world = World([cut(), cut(), make(), cut(), cut(), make(state="Completed OK")])
    assert world.waits(make(), max_poll_failure_time=100).state == "Completed OK"


def test_refused_credentials_end_the_wait_at_once(make: Make) -> None:
    world = World([AuthenticationError("no")])
    with pytest.raises(AuthenticationError):
        world.waits(make())
    assert world.seen == 1


def test_gone_is_what_several_looks_in_a_row_and_a_minute_do_not_show(make: Make) -> None:
    world = World([None, None, make(), None])
    with pytest.raises(InstanceNotFoundError):
        world.waits(make())
    assert world.seen == 6
    world = World([None])
    with pytest.raises(InstanceNotFoundError):
        world.waits(make(), poll_interval=10)
    assert world.now == 1000 + 10 + wait.MISSING_TIME


def test_start_grace_counts_for_a_wait_too(make: Make) -> None:
    world = World([None] * 3 + [make(state="Completed OK")])
    world.settings = replace(SETTINGS, start_grace=300)
    assert world.waits(make(), poll_interval=75).state == "Completed OK"
    world = World([None])
    world.settings = replace(SETTINGS, start_grace=300)
    with pytest.raises(InstanceNotFoundError):
        world.waits(make(), poll_interval=10)
    assert world.now == 1000 + 10 + 300


class TestStretches:
    """They are as long as they are, whatever happens to the clock on the wall; the deadline is a time of that clock."""

    @pytest.mark.parametrize("set_by", [3600, -3600])
    def test_of_polls_that_fail(self, set_by: float, make: Make) -> None:
        world = World([cut()])
        world.sets_clock(at=1100, by=set_by)
        with pytest.raises(InterruptedCallError, match="polls have failed for 300 s"):
            world.waits(make(), max_poll_failure_time=300)
        assert world.now == 1000 + 60 + 300

    @pytest.mark.parametrize("set_by", [3600, -3600])
    def test_of_an_instance_that_is_missing(self, set_by: float, make: Make) -> None:
        world = World([None])
        world.sets_clock(at=1015, by=set_by)
        with pytest.raises(InstanceNotFoundError):
            world.waits(make(), poll_interval=10)
        assert world.now == 1000 + 10 + wait.MISSING_TIME

    @pytest.mark.parametrize(("set_by", "ends_at"), [(-3600, 1300 + 3600), (100, 1200)])
    def test_of_a_deadline_are_none(self, set_by: float, ends_at: float, make: Make) -> None:
        world = World([make()])
        world.sets_clock(at=1100, by=set_by)
        with pytest.raises(WaitTimeoutError):
            world.waits(make(), timeout=300)
        assert world.now == ends_at


class TestWhatATimeOutSays:
    def test_since_when_polls_fail_and_why(self, make: Make) -> None:
        refused = RefusedError("the server refused", status=403, res_code="405230099")
        refused.locate("list the instances in state 'Running'", "my_conn")
        world = World([make(), refused])
        world.set_by = 1_800_000_000
        with pytest.raises(WaitTimeoutError) as caught:
            world.waits(make(), timeout=400)
        assert str(caught.value) == (
            "The wait for instance '002N1' timed out at 2027-01-15 08:23:20 UTC ('timeout'); last seen: instance '002N1' "
            "of 'Approval' in state 'Running'; polls have failed since 2027-01-15 08:18:40 UTC: Could not list the "
            "instances in state 'Running' on connection 'my_conn': the server refused (HTTP 403, resCode '405230099'). "
            "Check names, versions and ids, and the permissions of the machine user."
        )

    def test_since_when_the_instance_is_missing(self, make: Make) -> None:
        world = World([make(), None])
        with pytest.raises(WaitTimeoutError, match="in none of the states since 1970-01-01 00:18:40 UTC"):
            world.waits(make(), timeout=150)

    def test_nothing_of_a_stretch_that_is_over(self, make: Make) -> None:
        world = World([cut(), None, make()])
        with pytest.raises(WaitTimeoutError) as caught:
            world.waits(make(), timeout=400)
        assert "since" not in str(caught.value)


class TestAnotherInstance:
    def test_is_never_taken_for_the_one_that_was_seen(self, make: Make) -> None:
        world = World([make(state="Completed OK", name="Another", business_key="z")])
        with pytest.raises(AnotherInstanceError) as caught:
            world.waits(make(business_key="k"))
        assert str(caught.value).startswith(
            "instance '002N1' is not the same as before: it was of 'Approval' with business key 'k', and now it is "
            "instance '002N1' of 'Another' in state 'Completed OK', with business key 'z'. Ids can repeat"
        )

    @pytest.mark.parametrize("other", [{"name": "Another"}, {"business_key": "z"}], ids=str)
    def test_may_differ_in_one_thing(self, other: dict[str, Any], make: Make) -> None:
        fields = {"business_key": "k", **other}
        with pytest.raises(AnotherInstanceError):
            World([make(state="Completed OK", **fields)]).waits(make(business_key="k"))

    def test_may_come_after_one_that_shows_no_key(self, make: Make) -> None:
        rows = [make(business_key=key) for key in ("k", "002N1", None)]
        world = World([*rows, make(state="Completed OK", business_key="z")])
        with pytest.raises(AnotherInstanceError, match="with business key 'k'"):
            world.waits(make(business_key="002N1"))

    def test_is_known_from_before(self, make: Make) -> None:
        for name, kind in (
            ("Approval", BpmInstance),
            ("Asked For", BpmInstance),
            ("B", AnotherInstanceError),
        ):
            awaited = wait.Wait(
                WaitCondition(), instance_id="002N1", known=Known(("Approval", "Asked For"), "k")
            )
            World([make(state="Completed OK", name=name)]).run(awaited)
            assert isinstance(awaited.ending, kind)


class OneList(World):
    """Shows all there is in the list of the running ones."""

    @staticmethod
    def rows(look: BpmInstance | list[BpmInstance] | None, operation: Operation[Any]) -> list[BpmInstance]:
        there = look if isinstance(look, list) else [look] if look else []
        return there if dict(operation.query)["states"] == "Running" else []


def test_a_contradiction_decides_nothing_and_fails_the_poll(make: Make) -> None:
    both = [make(state="Terminated"), make(state="Completed OK")]
    for rows in (both, both[::-1], [make(bp_status="Approved"), make(bp_status="Rejected")]):
        world = OneList([rows, rows, make(state="Completed OK")])
        assert world.waits(make()).state == "Completed OK"
        assert world.said()[0].startswith("Polls fail from now on")
        with pytest.raises(
            UnexpectedAnswerError, match="with different values: .*; polls have failed for 600 s"
        ):
            OneList([rows]).waits(make())


def test_a_failed_look_says_nothing_about_what_is_missing(make: Make) -> None:
    world = World([None, cut(), None, cut(), None])
    with pytest.raises(InstanceNotFoundError):
        world.waits(make())
    assert world.seen == 5


class TestPauses:
    @pytest.mark.parametrize(
        ("interval", "failed", "seconds"),
        [(5, 0, 5), (5, 1, 10), (5, 2, 20), (5, 4, 60), (5, 1000, 60), (600, 3, 600), (60, 1, 60)],
    )
    def test_back_off_while_looks_fail(self, interval: float, failed: int, seconds: float) -> None:
        failures = look.Failures()
        for _ in range(failed):
            failures.take(cut())
        assert look.seconds_between(interval, failures, 0.0, 0.0) == seconds

    @pytest.mark.parametrize(("asked", "seconds"), [("120", 120), ("3", 10), ("99999", 600), ("soon", 10)])
    def test_respect_what_the_server_asks_for(self, asked: str, seconds: float) -> None:
        error = ThrottledError("x")
        error.retry_after = asked
        failures = look.Failures()
        failures.take(error)
        assert look.seconds_between(5, failures, 0.0, 0.0) == seconds

    def test_end_where_the_patience_does(self, make: Make) -> None:
        world = World([cut()])
        with pytest.raises(InterruptedCallError):
            world.waits(make(), poll_interval=50, max_poll_failure_time=70)
        assert world.pauses == [50, 60, 10]


class TestByKey:
    KEY = BusinessKey("k", "Approval")

    def test_it_need_not_exist_yet_and_is_followed_by_its_id(self, make: Make) -> None:
        carrier = make(business_key="k")
        world = World([None, None, None, carrier, [carrier, make("002N2", business_key="k")], None])
        awaited = wait.Wait(WaitCondition(), key=self.KEY)
        world.run(awaited)
        assert isinstance(awaited.ending, InstanceNotFoundError)
        assert "'002N1'" in str(awaited.ending)
        assert world.said() == [
            "an instance with business key 'k' of BPM 'Approval' is in none of the states; it may still be started",
            "Seen: instance '002N1' of 'Approval' in state 'Running'",
            "instance '002N1' is in none of the states; looking again",
        ]

    def test_several_end_the_wait(self, make: Make) -> None:
        awaited = wait.Wait(WaitCondition(), key=self.KEY)
        World([[make(business_key="k"), make("002N2", business_key="k")]]).run(awaited)
        assert isinstance(awaited.ending, SeveralInstancesError)

    def test_a_deadline_says_that_it_was_never_seen(self) -> None:
        awaited = wait.Wait(WaitCondition(), key=self.KEY, deadline=1100)
        World([None]).run(awaited)
        assert "business key 'k' of BPM 'Approval' timed out" in str(awaited.ending)
        assert "it was never seen" in str(awaited.ending)


class TestALook:
    def test_is_one_unless_told_otherwise(self, make: Make) -> None:
        for nothing in (cut(), None):
            world = World([nothing, make()])
            world.look(wait.Wait(WaitCondition(), instance_id="002N1"))
            assert (world.seen, world.pauses) == (1, [])

    def test_is_taken_again_until_it_shows_something(self, make: Make) -> None:
        world = World([cut(), None, None, make()])
        awaited = wait.Wait(WaitCondition(), instance_id="002N1")
        world.look(awaited, again_after=20)
        assert (world.seen, awaited.ending, awaited.seen) == (4, None, make())

    def test_ends_with_the_deadline(self) -> None:
        world = World([cut()])
        awaited = wait.Wait(WaitCondition(), instance_id="002N1", deadline=1030)
        world.look(awaited, again_after=20)
        assert isinstance(awaited.ending, WaitTimeoutError)
        assert world.now == 1030


def test_a_wait_may_go_on_after_an_error_that_was_dealt_with(make: Make) -> None:
    world = World([AuthenticationError("no"), make(state="Completed OK")])
    awaited = wait.Wait(WaitCondition(), seen=make())
    world.run(awaited)
    assert isinstance(awaited.ending, AuthenticationError)
    awaited.resume()
    world.run(awaited)
    assert awaited.result().state == "Completed OK"


def test_it_runs_a_wait_for_many_as_well(make: Make) -> None:
    other = make("002N2")
    world = World(
        [[make(), other], cut(), [make(state="Completed OK"), other], make("002N2", "Completed OK")]
    )
    awaited = GroupWait(WaitCondition(), [make(), other])
    world.run(awaited)
    assert awaited.result() == GroupEnd(2, {}, ())
    assert world.said() == [
        "Polls fail from now on; the wait goes on",
        "Polls succeed again",
        "Closed 1 of 2, 0 failed; 30 an hour, about 2 min left",
        "Closed 2 of 2, 0 failed",
    ]


def test_waits_are_small(make: Make) -> None:
    assert not hasattr(wait.Wait(WaitCondition(), seen=make()), "__dict__")


STATE = st.sampled_from([*states.STATES, "Unheard Of"])


@given(
    looks=st.lists(STATE | st.sampled_from([None, cut()]), min_size=1, max_size=12),
    last=st.sampled_from(["Completed OK", "Broken", "Terminated", "Running"]),
)
def test_whatever_happens_on_the_way_success_was_seen(looks: list[Any], last: str, make: Make) -> None:
    world = World([make(state=look) if isinstance(look, str) else look for look in [*looks, last]])
    condition = WaitCondition()
    try:
        instance = world.waits(make(), condition, timeout=100_000)
    except (WaitFailedError, WaitTimeoutError, InstanceNotFoundError, InterruptedCallError):
        return
    assert condition.judge(instance).outcome is Outcome.DONE
    assert instance in world.looks
