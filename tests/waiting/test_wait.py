"""The plan of a wait, on a clock that only pauses advance."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.client import states
from airflow_provider_astrobpm.client.drivers import drive
from airflow_provider_astrobpm.client.errors import (
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
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.key_form import BusinessKey
from airflow_provider_astrobpm.client.log_note import LogNote
from airflow_provider_astrobpm.client.moment import Moment
from airflow_provider_astrobpm.client.operations import Flow, Operation, Sleep
from airflow_provider_astrobpm.client.sameness import KnownIdentity
from airflow_provider_astrobpm.client.search import SearchRequest
from airflow_provider_astrobpm.client.search_result import SearchResult
from airflow_provider_astrobpm.client.settings import Settings, StaticToken
from airflow_provider_astrobpm.waiting import polling, wait
from airflow_provider_astrobpm.waiting.batch_wait import BatchWait, BatchWaitResult
from airflow_provider_astrobpm.waiting.condition import Outcome, WaitCondition

Make = Callable[..., BpmInstance]
PollResult = BpmInstance | list[BpmInstance] | CallError | None
SETTINGS = Settings("my_conn", "http://wait.test", StaticToken("t"), instance_lookup="list")


def cut() -> InterruptedCallError:
    return InterruptedCallError("cut")


class ScriptedServer:
    """Shows one scripted result per poll, the last one forever, on a clock that only pauses advance.

    A result is an instance, a list of instances, an error, or ``None`` if nothing is shown.
    """

    def __init__(self, results: Iterable[PollResult]) -> None:
        self.results = list(results)
        self.now = 1000.0
        self.pauses: list[float] = []
        self.notes: list[LogNote] = []
        self.seen = 0
        self.look_takes = 0.0
        self.set_by = 0.0  # seconds by which the wall clock was set
        self.setting: tuple[float, float] | None = None
        self.settings = SETTINGS

    def sets_clock(self, *, at: float, by: float) -> None:
        """Set the wall clock once this much time has passed."""
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
        awaited = wait.InstanceWait(
            condition or WaitCondition(),
            seen=first,
            deadline=None if timeout is None else self.now + self.set_by + timeout,
            max_poll_failure_time=options.pop("max_poll_failure_time"),
        )
        self.run(awaited, **options)
        return awaited.result()

    def run(self, awaited: wait.BaseWait[Any], *, poll_interval: float = 60, jitter: float = 0.0) -> None:
        self.drive(self.polling(jitter).run_wait(awaited, poll_interval))

    def poll(self, awaited: wait.InstanceWait, again_after: float | None = None) -> None:
        if again_after is None:
            self.drive(self.polling().poll_once(awaited))
        else:
            self.drive(self.polling().poll_until_conclusive(awaited, again_after))

    def polling(self, jitter: float = 0.0) -> polling.WorkerPolling:
        return polling.WorkerPolling(
            settings=self.settings, log=self.notes.append, clock=self.moment, jitter=lambda: jitter
        )

    def drive(self, plan: Flow[Any]) -> None:
        result: PollResult = None
        new_look = True

        def answer(step: Operation[Any] | Sleep) -> list[BpmInstance] | None:
            nonlocal result, new_look
            if isinstance(step, Sleep):
                self.pauses.append(step.seconds)
                self.now += step.seconds
                new_look = True
                return None
            if new_look:
                result = self.results[min(self.seen, len(self.results) - 1)]
                self.seen += 1
                self.now += self.look_takes
                new_look = False
            if isinstance(result, CallError):
                raise result
            return self.rows(result, step)

        drive(plan, answer)

    @staticmethod
    def rows(result: BpmInstance | list[BpmInstance] | None, operation: Operation[Any]) -> list[BpmInstance]:
        there = result if isinstance(result, list) else [result] if result else []
        asked = dict(operation.query)["states"]
        # An unknown state cannot be queried; such rows show in the list of running instances.
        return [one for one in there if (one.state if one.state in states.STATES else "Running") == asked]

    def said(self) -> list[str]:
        return [note.text.split(".")[0] for note in self.notes]


def test_needs_no_poll_if_the_start_answer_shows_the_end(make: Make) -> None:
    server = ScriptedServer([])
    assert server.waits(make(state="Completed OK")).state == "Completed OK"
    with pytest.raises(WaitFailedError):
        server.waits(make(state="Broken"))
    assert server.pauses == []


def test_polls_until_the_condition_is_met_and_logs_changes(make: Make) -> None:
    waiting = make(state="Waiting for user interaction")
    server = ScriptedServer([waiting, waiting, waiting, make(state="Completed OK")])
    assert server.waits(make(state="Dispatched")).state == "Completed OK"
    assert server.pauses == [60] * 4
    assert len(server.notes) == 2


@pytest.mark.parametrize("state", ["Broken", "Terminated", "User Terminated"])
def test_fails_on_a_bad_end_state(state: str, make: Make) -> None:
    with pytest.raises(
        WaitFailedError, match=f"ended in state '{state}'; the wait was for state 'Completed OK'"
    ) as caught:
        ScriptedServer([make(state=state)]).waits(make())
    assert caught.value.instance.state == state


def test_polls_once_more_at_the_deadline(make: Make) -> None:
    server = ScriptedServer([make(), make(state="Completed OK")])
    assert server.waits(make(), timeout=100).state == "Completed OK"
    assert server.pauses == [60, 40]


def test_times_out_with_the_last_seen_instance_in_the_error(make: Make) -> None:
    server = ScriptedServer([make(bp_status="Submitted")])
    with pytest.raises(
        WaitTimeoutError,
        match="instance '002N1' timed out at 1970-01-01 00:18:20 UTC .*last seen: instance '002N1'.*'Submitted'",
    ):
        server.waits(make(), timeout=100)
    assert server.now == 1100


def test_jitter_only_shortens_pauses(make: Make) -> None:
    server = ScriptedServer([make(state="Completed OK")])
    server.run(wait.InstanceWait(WaitCondition(), seen=make()), poll_interval=100, jitter=0.5)
    assert server.pauses == [95]


def test_a_failed_poll_does_not_fail_the_wait(make: Make) -> None:
    server = ScriptedServer([cut(), cut(), cut(), make(), make(state="Completed OK")])
    assert server.waits(make()).state == "Completed OK"
    assert server.said()[:2] == ["Polls are failing; still waiting", "Polls succeed again"]
    assert [note.warning for note in server.notes] == [True, False, False]


def test_fails_when_polls_fail_for_max_poll_failure_time(make: Make) -> None:
    server = ScriptedServer([cut()])
    with pytest.raises(InterruptedCallError):
        server.waits(make(), max_poll_failure_time=300)
    assert server.now == 1000 + 60 + 300
    assert len(server.notes) == 1


def test_one_failed_poll_does_not_end_a_wait_however_long_the_process_stood_still(make: Make) -> None:
    server = ScriptedServer([cut(), make(state="Completed OK")])
    server.look_takes = 7200
    assert server.waits(make(), max_poll_failure_time=600).state == "Completed OK"


def test_counts_failure_time_from_the_end_of_the_first_failed_poll(make: Make) -> None:
    server = ScriptedServer([cut()])
    server.look_takes = 100
    with pytest.raises(InterruptedCallError, match="polls have failed for 300 s"):
        server.waits(make(), max_poll_failure_time=200)


def test_a_successful_poll_resets_the_failure_time(make: Make) -> None:
    server = ScriptedServer([cut(), cut(), make(), cut(), cut(), make(state="Completed OK")])
    assert server.waits(make(), max_poll_failure_time=100).state == "Completed OK"


def test_refused_credentials_fail_the_wait_at_once(make: Make) -> None:
    server = ScriptedServer([AuthenticationError("no")])
    with pytest.raises(AuthenticationError):
        server.waits(make())
    assert server.seen == 1


def test_an_instance_is_gone_after_several_missing_polls_and_a_minute(make: Make) -> None:
    server = ScriptedServer([None, None, make(), None])
    with pytest.raises(InstanceNotFoundError):
        server.waits(make())
    assert server.seen == 6
    server = ScriptedServer([None])
    with pytest.raises(InstanceNotFoundError):
        server.waits(make(), poll_interval=10)
    assert server.now == 1000 + 10 + wait.MIN_MISSING_SECONDS


def test_start_grace_extends_the_time_before_an_instance_is_gone(make: Make) -> None:
    server = ScriptedServer([None] * 3 + [make(state="Completed OK")])
    server.settings = replace(SETTINGS, start_grace=300)
    assert server.waits(make(), poll_interval=75).state == "Completed OK"
    server = ScriptedServer([None])
    server.settings = replace(SETTINGS, start_grace=300)
    with pytest.raises(InstanceNotFoundError):
        server.waits(make(), poll_interval=10)
    assert server.now == 1000 + 10 + 300


class TestClockChanges:
    """Durations do not depend on the wall clock; only the deadline does."""

    @pytest.mark.parametrize("set_by", [3600, -3600])
    def test_do_not_change_the_time_that_polls_fail(self, set_by: float, make: Make) -> None:
        server = ScriptedServer([cut()])
        server.sets_clock(at=1100, by=set_by)
        with pytest.raises(InterruptedCallError, match="polls have failed for 300 s"):
            server.waits(make(), max_poll_failure_time=300)
        assert server.now == 1000 + 60 + 300

    @pytest.mark.parametrize("set_by", [3600, -3600])
    def test_do_not_change_the_time_that_an_instance_is_missing(self, set_by: float, make: Make) -> None:
        server = ScriptedServer([None])
        server.sets_clock(at=1015, by=set_by)
        with pytest.raises(InstanceNotFoundError):
            server.waits(make(), poll_interval=10)
        assert server.now == 1000 + 10 + wait.MIN_MISSING_SECONDS

    @pytest.mark.parametrize(("set_by", "ends_at"), [(-3600, 1300 + 3600), (100, 1200)])
    def test_move_the_deadline(self, set_by: float, ends_at: float, make: Make) -> None:
        server = ScriptedServer([make()])
        server.sets_clock(at=1100, by=set_by)
        with pytest.raises(WaitTimeoutError):
            server.waits(make(), timeout=300)
        assert server.now == ends_at


class TestTimeoutMessage:
    def test_says_since_when_and_why_polls_fail(self, make: Make) -> None:
        refused = RefusedError("the server refused", status=403, res_code="405230099")
        refused.add_context("list the instances in state 'Running'", "my_conn")
        server = ScriptedServer([make(), refused])
        server.set_by = 1_800_000_000
        with pytest.raises(WaitTimeoutError) as caught:
            server.waits(make(), timeout=400)
        assert str(caught.value) == (
            "The wait for instance '002N1' timed out at 2027-01-15 08:23:20 UTC ('timeout'); last seen: instance '002N1' "
            "of 'Approval' in state 'Running'; polls have failed since 2027-01-15 08:18:40 UTC: Could not list the "
            "instances in state 'Running' on connection 'my_conn': the server refused (HTTP 403, resCode '405230099'). "
            "Check names, versions and ids, and the permissions of the machine user."
        )

    def test_says_since_when_the_instance_is_missing(self, make: Make) -> None:
        server = ScriptedServer([make(), None])
        with pytest.raises(WaitTimeoutError, match="in none of the states since 1970-01-01 00:18:40 UTC"):
            server.waits(make(), timeout=150)

    def test_does_not_mention_failures_that_ended(self, make: Make) -> None:
        server = ScriptedServer([cut(), None, make()])
        with pytest.raises(WaitTimeoutError) as caught:
            server.waits(make(), timeout=400)
        assert "since" not in str(caught.value)


class TestAnotherInstance:
    def test_is_not_mistaken_for_the_one_that_was_seen(self, make: Make) -> None:
        server = ScriptedServer([make(state="Completed OK", name="Another", business_key="z")])
        with pytest.raises(AnotherInstanceError) as caught:
            server.waits(make(business_key="k"))
        assert str(caught.value).startswith(
            "instance '002N1' is not the same as before: it was of 'Approval' with business key 'k', and now it is "
            "instance '002N1' of 'Another' in state 'Completed OK', with business key 'z'. Ids can repeat"
        )

    @pytest.mark.parametrize("other", [{"name": "Another"}, {"business_key": "z"}], ids=str)
    def test_is_recognized_by_one_difference(self, other: dict[str, Any], make: Make) -> None:
        fields = {"business_key": "k", **other}
        with pytest.raises(AnotherInstanceError):
            ScriptedServer([make(state="Completed OK", **fields)]).waits(make(business_key="k"))

    def test_is_recognized_after_an_instance_without_a_key(self, make: Make) -> None:
        rows = [make(business_key=key) for key in ("k", "002N1", None)]
        server = ScriptedServer([*rows, make(state="Completed OK", business_key="z")])
        with pytest.raises(AnotherInstanceError, match="with business key 'k'"):
            server.waits(make(business_key="002N1"))

    def test_is_recognized_by_what_was_known_before(self, make: Make) -> None:
        for name, kind in (
            ("Approval", BpmInstance),
            ("Asked For", BpmInstance),
            ("B", AnotherInstanceError),
        ):
            awaited = wait.InstanceWait(
                WaitCondition(), instance_id="002N1", known=KnownIdentity(("Approval", "Asked For"), "k")
            )
            ScriptedServer([make(state="Completed OK", name=name)]).run(awaited)
            assert isinstance(awaited.ending, kind)


class OneList(ScriptedServer):
    """Shows all rows in the list of running instances."""

    @staticmethod
    def rows(result: BpmInstance | list[BpmInstance] | None, operation: Operation[Any]) -> list[BpmInstance]:
        there = result if isinstance(result, list) else [result] if result else []
        return there if dict(operation.query)["states"] == "Running" else []


def test_contradictory_rows_fail_the_poll_and_decide_nothing(make: Make) -> None:
    both = [make(state="Terminated"), make(state="Completed OK")]
    for rows in (both, both[::-1], [make(bp_status="Approved"), make(bp_status="Rejected")]):
        server = OneList([rows, rows, make(state="Completed OK")])
        assert server.waits(make()).state == "Completed OK"
        assert server.said()[0].startswith("Polls are failing")
        with pytest.raises(
            UnexpectedAnswerError, match="with different values: .*; polls have failed for 600 s"
        ):
            OneList([rows]).waits(make())


def test_a_failed_poll_does_not_count_as_a_missing_poll(make: Make) -> None:
    server = ScriptedServer([None, cut(), None, cut(), None])
    with pytest.raises(InstanceNotFoundError):
        server.waits(make())
    assert server.seen == 5


class TestPauses:
    @pytest.mark.parametrize(
        ("interval", "failed", "seconds"),
        [(5, 0, 5), (5, 1, 10), (5, 2, 20), (5, 4, 60), (5, 1000, 60), (600, 3, 600), (60, 1, 60)],
    )
    def test_back_off_while_polls_fail(self, interval: float, failed: int, seconds: float) -> None:
        failures = polling.PollFailures()
        for _ in range(failed):
            failures.record(cut())
        assert polling.poll_delay(interval, failures, 0.0, 0.0) == seconds

    @pytest.mark.parametrize(("asked", "seconds"), [("120", 120), ("3", 10), ("99999", 600), ("soon", 10)])
    def test_respect_retry_after(self, asked: str, seconds: float) -> None:
        error = ThrottledError("x")
        error.retry_after = asked
        failures = polling.PollFailures()
        failures.record(error)
        assert polling.poll_delay(5, failures, 0.0, 0.0) == seconds

    def test_end_at_max_poll_failure_time(self, make: Make) -> None:
        server = ScriptedServer([cut()])
        with pytest.raises(InterruptedCallError):
            server.waits(make(), poll_interval=50, max_poll_failure_time=70)
        assert server.pauses == [50, 60, 10]


class TestByKey:
    KEY = BusinessKey("k", "Approval")

    def test_waits_for_a_later_start_and_follows_the_id(self, make: Make) -> None:
        match = make(business_key="k")
        server = ScriptedServer([None, None, None, match, [match, make("002N2", business_key="k")], None])
        awaited = wait.InstanceWait(WaitCondition(), key=self.KEY)
        server.run(awaited)
        assert isinstance(awaited.ending, InstanceNotFoundError)
        assert "'002N1'" in str(awaited.ending)
        assert server.said() == [
            "an instance with business key 'k' of BPM 'Approval' is in none of the states; it may still be started",
            "Found instance '002N1' of 'Approval' in state 'Running'",
            "instance '002N1' is in none of the states; polling again",
        ]

    def test_several_matches_fail_the_wait(self, make: Make) -> None:
        awaited = wait.InstanceWait(WaitCondition(), key=self.KEY)
        ScriptedServer([[make(business_key="k"), make("002N2", business_key="k")]]).run(awaited)
        assert isinstance(awaited.ending, SeveralInstancesError)

    def test_times_out_with_a_message_that_it_was_never_seen(self) -> None:
        awaited = wait.InstanceWait(WaitCondition(), key=self.KEY, deadline=1100)
        ScriptedServer([None]).run(awaited)
        assert "business key 'k' of BPM 'Approval' timed out" in str(awaited.ending)
        assert "it was never seen" in str(awaited.ending)


class TestSinglePoll:
    def test_polls_once_by_default(self, make: Make) -> None:
        for nothing in (cut(), None):
            server = ScriptedServer([nothing, make()])
            server.poll(wait.InstanceWait(WaitCondition(), instance_id="002N1"))
            assert (server.seen, server.pauses) == (1, [])

    def test_polls_again_until_it_is_conclusive(self, make: Make) -> None:
        server = ScriptedServer([cut(), None, None, make()])
        awaited = wait.InstanceWait(WaitCondition(), instance_id="002N1")
        server.poll(awaited, again_after=20)
        assert (server.seen, awaited.ending, awaited.seen) == (4, None, make())

    def test_stops_at_the_deadline(self) -> None:
        server = ScriptedServer([cut()])
        awaited = wait.InstanceWait(WaitCondition(), instance_id="002N1", deadline=1030)
        server.poll(awaited, again_after=20)
        assert isinstance(awaited.ending, WaitTimeoutError)
        assert server.now == 1030


def test_a_wait_can_resume_after_a_handled_error(make: Make) -> None:
    server = ScriptedServer([AuthenticationError("no"), make(state="Completed OK")])
    awaited = wait.InstanceWait(WaitCondition(), seen=make())
    server.run(awaited)
    assert isinstance(awaited.ending, AuthenticationError)
    awaited.resume()
    server.run(awaited)
    assert awaited.result().state == "Completed OK"


def test_the_plan_runs_a_batch_wait(make: Make) -> None:
    other = make("002N2")
    server = ScriptedServer(
        [[make(), other], cut(), [make(state="Completed OK"), other], make("002N2", "Completed OK")]
    )
    awaited = BatchWait(WaitCondition(), [make(), other])
    server.run(awaited)
    assert awaited.result() == BatchWaitResult(2, {}, ())
    assert server.said() == [
        "Polls are failing; still waiting",
        "Polls succeed again",
        "Closed 1 of 2, 0 failed; 30 an hour, about 2 min left",
        "Closed 2 of 2, 0 failed",
    ]


def test_waits_are_small(make: Make) -> None:
    assert not hasattr(wait.InstanceWait(WaitCondition(), seen=make()), "__dict__")


class BareWait(wait.BaseWait[str]):
    """A wait of which no poll decides anything."""

    def __init__(self, deadline: float | None = None, outcome: CallError | None = None) -> None:
        super().__init__(deadline, 600)
        self.outcome = outcome

    def add_to_query(self, sought: SearchRequest) -> None:
        """Ask for nothing."""

    def _judge_result(self, search_result: SearchResult, now: float) -> CallError | None:
        return self.outcome


def at(now: float) -> Moment:
    return Moment(wall=1000 + now, steady=now)


class TestBaseWait:
    def test_begins_without_news(self) -> None:
        awaited = BareWait()
        assert (awaited.size, awaited.known, awaited.rows_to_sort(SearchResult({}))) == (
            1,
            KnownIdentity(),
            0,
        )
        assert (awaited.failed_polls, awaited.failure, awaited.notes) == (0, None, [])
        assert (awaited.has_news(), awaited.seconds_left(at(0))) == (False, None)
        assert awaited.grace == wait.MIN_MISSING_SECONDS

    def test_has_no_result_before_it_ends(self) -> None:
        awaited = BareWait()
        for read in (awaited.ended, awaited.result):
            with pytest.raises(RuntimeError, match="^the wait has not ended$"):
                read()
        awaited.end("done")
        assert (awaited.ended(), awaited.result(), awaited.has_news()) == ("done", "done", True)
        failure = RefusedError("no")
        awaited.end(failure)
        assert awaited.ended() is failure
        with pytest.raises(RefusedError):
            awaited.result()

    @pytest.mark.parametrize(
        ("deadline", "failing", "left"),
        [(None, False, None), (1050, False, 40), (None, True, 595), (1050, True, 40), (1700, True, 595)],
    )
    def test_has_two_limits(self, deadline: float | None, failing: bool, left: float | None) -> None:
        awaited = BareWait(deadline)
        if failing:
            awaited.record_failed_poll(cut(), at(5))
        assert awaited.seconds_left(at(10)) == left
        awaited.end("done")
        assert awaited.seconds_left(at(10)) is None

    def test_counts_failed_polls_until_one_succeeds(self) -> None:
        awaited, failure = BareWait(), cut()
        for number in (1, 2, 3):
            awaited.record_failed_poll(failure, at(number))
            assert (awaited.failed_polls, awaited.failure) == (number, failure)
        awaited.record_poll(SearchResult({}), at(4))
        assert (awaited.failed_polls, awaited.failure) == (0, None)
        assert [(note.text, note.warning) for note in awaited.notes] == [
            (f"Polls are failing; still waiting. {failure}", True),
            ("Polls succeed again", False),
        ]
        awaited.record_poll(SearchResult({}), at(5))
        assert len(awaited.notes) == 2

    @pytest.mark.parametrize(("now", "ends"), [(600.5, False), (601, True)])
    def test_ends_when_polls_have_failed_for_long(self, now: float, ends: bool) -> None:
        awaited, failure = BareWait(), cut()
        awaited.record_failed_poll(failure, at(1))
        awaited.record_failed_poll(failure, at(now))
        assert (awaited.ending is not None) is ends
        if ends:
            assert isinstance(awaited.ending, InterruptedCallError)
            assert awaited.ending.problem == "cut; polls have failed for 600 s ('max_poll_failure_time')"
            assert failure.problem == "cut", "other waits may share the error"

    def test_refused_credentials_end_it_without_a_note(self) -> None:
        awaited, refused = BareWait(), AuthenticationError("no")
        awaited.record_failed_poll(refused, at(1))
        assert (awaited.ending, awaited.notes) == (refused, [])
        awaited.resume()
        assert (awaited.ending, awaited.failed_polls, awaited.failure) == (None, 0, None)

    @pytest.mark.parametrize("connection", [None, "own_conn", "other_conn"])
    def test_an_error_names_the_connection_of_the_wait(self, connection: str | None) -> None:
        """Waits of several connections may share a poll, and its error."""
        failure = cut()
        failure.connection = "own_conn"
        awaited = BareWait(outcome=failure)
        awaited.record_poll(SearchResult({}), at(1), connection)
        assert awaited.failure is not None
        assert awaited.failure.connection == (connection or "own_conn")
        assert (awaited.failure is failure) is (connection != "other_conn")
        assert failure.connection == "own_conn"

    def test_an_ended_wait_stays_as_it_ended(self) -> None:
        awaited = BareWait(1000, outcome=cut())
        awaited.end("done")
        awaited.record_poll(SearchResult({}), at(1))
        assert (awaited.ending, awaited.failed_polls) == ("done", 0)

    @pytest.mark.parametrize(("now", "ends"), [(49.9, False), (50, True)])
    def test_a_passed_deadline_ends_it(self, now: float, ends: bool) -> None:
        records: tuple[Callable[[BareWait], None], ...] = (
            lambda one: one.record_poll(SearchResult({}), at(now)),
            lambda one: one.record_failed_poll(cut(), at(now)),
            lambda one: one.check_deadline(at(now)),
        )
        for record in records:
            awaited = BareWait(1050)
            awaited.deadline_argument = "execution_timeout"
            record(awaited)
            assert isinstance(awaited.ending, WaitTimeoutError) is ends
            if ends:
                words = "The wait for an answer timed out at 1970-01-01 00:17:30 UTC ('execution_timeout')"
                assert words in str(awaited.ending)


class TestInstanceWait:
    def test_asks_by_id_with_the_last_state_or_by_key(self, make: Make) -> None:
        key = BusinessKey("k")
        for awaited, ids, keys in (
            (wait.InstanceWait(WaitCondition(), instance_id="7"), {"7": None}, set()),
            (wait.InstanceWait(WaitCondition(), instance_id="7", key=key), {"7": None}, set()),
            (wait.InstanceWait(WaitCondition(), seen=make("8")), {"8": "Running"}, set()),
            (wait.InstanceWait(WaitCondition(), key=key), {}, {key}),
        ):
            sought = SearchRequest()
            awaited.add_to_query(sought)
            assert (sought.ids, sought.keys) == (ids, keys)

    def test_needs_an_id_or_a_key(self) -> None:
        with pytest.raises(RuntimeError, match="a wait needs an instance id or a business key"):
            wait.InstanceWait(WaitCondition()).add_to_query(SearchRequest())

    def test_polls_may_fail_for_ten_minutes_by_default(self) -> None:
        awaited = wait.InstanceWait(WaitCondition(), instance_id="7")
        awaited.record_failed_poll(cut(), at(0))
        awaited.record_failed_poll(cut(), at(599))
        assert awaited.ending is None
        awaited.record_failed_poll(cut(), at(600))
        assert isinstance(awaited.ending, InterruptedCallError)

    def test_knows_what_it_was_told_and_what_it_has_seen(self, make: Make) -> None:
        told = KnownIdentity(("Asked For",), "k")
        assert wait.InstanceWait(WaitCondition(), instance_id="7", known=told).known == told
        assert wait.InstanceWait(WaitCondition(), instance_id="7").known == KnownIdentity()
        seen = make(business_key="z")
        assert wait.InstanceWait(WaitCondition(), seen=seen).known == KnownIdentity(("Approval",), "z")
        assert wait.InstanceWait(WaitCondition(), seen=seen, known=told).known == told

    def test_is_inconclusive_after_a_failed_poll_and_while_its_instance_is_missing(self, make: Make) -> None:
        awaited = wait.InstanceWait(WaitCondition(), instance_id="002N1")
        assert not awaited.is_inconclusive()
        awaited.record_failed_poll(cut(), at(1))
        assert awaited.is_inconclusive()
        awaited.record_poll(found(make()), at(2))
        assert not awaited.is_inconclusive()
        awaited.record_poll(found(), at(3))
        assert awaited.is_inconclusive()
        awaited.record_poll(found(make()), at(4))
        assert not awaited.is_inconclusive()
        awaited.record_poll(found(), at(5))
        awaited.end(make())
        assert not awaited.is_inconclusive()

    def test_an_instance_that_shows_again_is_missed_anew(self, make: Make) -> None:
        awaited = wait.InstanceWait(WaitCondition(), seen=make())
        for begun in (0, 1000):
            for after in (0, 30, 59):
                awaited.record_poll(found(), at(begun + after))
                assert awaited.ending is None
            awaited.record_poll(found(make()), at(begun + 100))
        awaited.record_poll(found(), at(2000))
        awaited.record_poll(found(), at(2030))
        awaited.record_poll(found(), at(2060))
        assert isinstance(awaited.ending, InstanceNotFoundError)
        assert [note.warning for note in awaited.notes] == [True] * 3

    def test_a_missing_match_is_noted_at_the_first_poll_only(self) -> None:
        awaited = wait.InstanceWait(WaitCondition(), key=BusinessKey("k"))
        for now in (0, 60, 120):
            result = SearchResult({}, [awaited.key])
            for state in states.STATES:
                result.add_list(state, [])
            awaited.record_poll(result, at(now))
            assert [(note.text, note.warning) for note in awaited.notes] == [
                ("an instance with business key 'k' is in none of the states; it may still be started", False)
            ]
        assert awaited.ending is None

    @pytest.mark.parametrize(
        ("missing_since", "words"),
        [(None, ""), (40, "; it has been in none of the states since 1970-01-01 00:17:20 UTC")],
    )
    def test_a_timeout_says_what_was_seen_and_what_set_the_deadline(
        self, missing_since: float | None, words: str, make: Make
    ) -> None:
        awaited = wait.InstanceWait(WaitCondition(), seen=make(), deadline=1150)
        awaited.deadline_argument = "execution_timeout"
        if missing_since is not None:
            awaited.record_poll(found(), at(missing_since))
        awaited.check_deadline(at(150))
        assert isinstance(awaited.ending, WaitTimeoutError)
        assert awaited.ending.problem == (
            "The wait for instance '002N1' timed out at 1970-01-01 00:19:10 UTC ('execution_timeout'); last seen: instance "
            f"'002N1' of 'Approval' in state 'Running'{words}"
        )

    def test_only_a_change_that_a_note_would_show_is_news(self, make: Make) -> None:
        awaited = wait.InstanceWait(WaitCondition(), seen=make())
        later = make(end_time="2026-01-08 23:59:00")
        assert later != make()
        awaited.record_poll(found(later), at(1))
        assert (awaited.seen, awaited.notes) == (later, [])

    def test_an_unchanged_instance_is_no_news(self, make: Make) -> None:
        awaited = wait.InstanceWait(WaitCondition(), seen=make())
        awaited.record_poll(found(make()), at(1))
        assert awaited.notes == []
        later = make(state="Waiting for user interaction")
        awaited.record_poll(found(later), at(2))
        assert [(note.text, note.warning) for note in awaited.notes] == [(f"Now {later}", False)]
        assert awaited.seen == later


@pytest.mark.parametrize(
    ("polls", "seconds", "grace", "gone"),
    [
        (3, 60, 60, True),
        (2, 600, 60, False),
        (3, 59, 60, False),
        (3, 60, 90, False),
        (3, 90, 90, True),
        (3, 60, 0, True),
    ],
)
def test_gone_needs_polls_and_time(polls: int, seconds: float, grace: float, gone: bool) -> None:
    assert wait.is_gone(polls, seconds, grace) is gone


def found(*rows: BpmInstance) -> SearchResult:
    """Return the result of a complete poll for the instance ``002N1``."""
    result = SearchResult({"002N1": None})
    for state in states.STATES:
        result.add_list(state, [row for row in rows if row.state == state])
    return result


STATE = st.sampled_from([*states.STATES, "Unheard Of"])


@given(
    results=st.lists(STATE | st.sampled_from([None, cut()]), min_size=1, max_size=12),
    last=st.sampled_from(["Completed OK", "Broken", "Terminated", "Running"]),
)
def test_success_always_comes_from_a_poll_that_showed_it(results: list[Any], last: str, make: Make) -> None:
    server = ScriptedServer(
        [make(state=result) if isinstance(result, str) else result for result in [*results, last]]
    )
    condition = WaitCondition()
    try:
        instance = server.waits(make(), condition, timeout=100_000)
    except (WaitFailedError, WaitTimeoutError, InstanceNotFoundError, InterruptedCallError):
        return
    assert condition.judge(instance).outcome is Outcome.DONE
    assert instance in server.results
