"""The wait for a batch: what it decides, what it logs, and what it costs."""

from __future__ import annotations

import gc
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.moment import Moment
from airflow_provider_astrobpm.client.search import SearchRequest
from airflow_provider_astrobpm.client.search_result import SearchResult
from airflow_provider_astrobpm.waiting.batch_wait import (
    PROGRESS_INTERVAL_SECONDS,
    RATE_WINDOW_SECONDS,
    BatchSnapshot,
    BatchWait,
    BatchWaitResult,
    ProgressRate,
    rejudge,
)
from airflow_provider_astrobpm.waiting.condition import Outcome, WaitCondition
from airflow_provider_astrobpm.waiting.wait import (
    MIN_MISSING_POLLS,
    MIN_MISSING_SECONDS,
    BaseWait,
    InstanceWait,
)
from tests.support.memory_server import UNHEARD_OF, instance

MANY = 10_000
BROKEN = "it ended in state 'Broken'; the wait was for state 'Completed OK'"
HELD = 'it is suspended, and on_suspended is "fail"'


def cut() -> errors.InterruptedCallError:
    return errors.InterruptedCallError("cut")


def sought(awaited: BaseWait[Any]) -> dict[str, str | None]:
    found = SearchRequest()
    awaited.add_to_query(found)
    return found.ids


def poll(awaited: BatchWait, *rows: BpmInstance, now: float = 0.0) -> list[str]:
    """Record a poll that shows these rows, and return what the wait logs."""
    search_result = SearchResult(sought(awaited))
    search_result.add_list("Running", rows)
    awaited.record_poll(search_result, at(now))
    return said(awaited)


def at(now: float) -> Moment:
    return Moment(now, now)


def fail(awaited: BaseWait[Any], *, now: float) -> None:
    awaited.record_failed_poll(cut(), at(now))


def partly(awaited: BatchWait, *rows: BpmInstance, doubtful: str = "", now: float) -> list[str]:
    """Record a poll that is inconclusive for some members, and return how the log lines begin."""
    search_result = SearchResult(sought(awaited))
    search_result.add_list("Running", rows)
    search_result.contradictions |= {one: errors.UnexpectedAnswerError(f"odd {one}") for one in doubtful}
    awaited.record_poll(search_result, at(now))
    return [words.split(".")[0] for words in said(awaited)]


def said(awaited: BatchWait) -> list[str]:
    notes = [note.text for note in awaited.notes]
    awaited.notes.clear()
    return notes


def group(*states: str, **options: Any) -> list[BpmInstance]:
    """Return the instances 1, 2, 3 and so on in these states."""
    return [instance(str(number), state, **options) for number, state in enumerate(states, 1)]


OK, RUNS, BAD = "Completed OK", "Running", "Broken"


class TestEnd:
    @pytest.mark.parametrize(
        ("states", "may_fail", "ending"),
        [
            ([], None, BatchWaitResult(0, {}, ())),
            ([OK, OK], None, BatchWaitResult(2, {}, ())),
            ([OK, RUNS], None, None),
            ([BAD, OK], None, BatchWaitResult(1, {"1": BROKEN}, ())),
            ([BAD, RUNS, BAD], None, None),
            ([BAD, RUNS], 1, None),
            ([BAD, RUNS], 0, BatchWaitResult(0, {"1": BROKEN}, ("2",))),
            ([BAD, RUNS, BAD, OK], 1, BatchWaitResult(1, {"1": BROKEN, "3": BROKEN}, ("2",))),
            ([OK, RUNS], 0, None),
            (["Suspended", UNHEARD_OF], 0, None),
        ],
    )
    def test_ends_when_all_are_decided_or_too_many_have_failed(
        self, states: list[str], may_fail: int | None, ending: BatchWaitResult | None
    ) -> None:
        rows = group(*states)
        assert BatchWait(WaitCondition(), rows, may_fail=may_fail).ending == ending
        awaited = BatchWait(WaitCondition(), dict.fromkeys(row.id for row in rows), may_fail=may_fail)
        assert awaited.ending is None or not rows
        if rows:
            poll(awaited, *rows)
            assert awaited.ending == ending

    @pytest.mark.parametrize("row", [instance("1", "Suspended"), instance("1", suspended=True)])
    def test_on_suspended_decides_for_a_suspended_instance(self, row: BpmInstance) -> None:
        assert BatchWait(WaitCondition(), [row]).ending is None
        awaited = BatchWait(WaitCondition.of(on_suspended="fail"), [row])
        assert awaited.ending == BatchWaitResult(0, {"1": HELD}, ())

    def test_failures_are_in_order_of_failing(self) -> None:
        awaited = BatchWait(WaitCondition(), group(RUNS, RUNS, RUNS))
        poll(awaited, *group(RUNS, BAD, RUNS))
        poll(awaited, *group(BAD, RUNS, BAD))  # decisions stay
        assert list(awaited.result().failed) == ["2", "1", "3"]

    def test_a_member_is_gone_by_the_rule_of_a_single_wait(self) -> None:
        one, other = group(RUNS, RUNS)
        awaited = BatchWait(WaitCondition(), [one, other])
        poll(awaited, one, now=0)
        poll(awaited, other, now=MIN_MISSING_SECONDS / 2)
        for number in range(MIN_MISSING_POLLS - 1):
            assert list(sought(awaited)) == ["1", "2"]
            fail(awaited, now=MIN_MISSING_SECONDS)  # shows neither
            poll(awaited, other, now=MIN_MISSING_SECONDS + number)
        poll(awaited, other, now=1.5 * MIN_MISSING_SECONDS)
        poll(awaited, instance("2", OK), now=1.5 * MIN_MISSING_SECONDS)
        (reason,) = awaited.result().failed.values()
        assert reason.startswith("it is in none of the states. It may have been deleted")

    def test_timeout_says_how_many_are_open(self) -> None:
        awaited = BatchWait(WaitCondition(), group(OK, BAD, RUNS, RUNS), deadline=100)
        poll(awaited, *group(OK, BAD, RUNS, RUNS), now=99)
        assert awaited.ending is None
        awaited.check_deadline(at(100))
        with pytest.raises(
            errors.WaitTimeoutError,
            match=r"^The wait for 4 instances timed out at 1970-01-01 00:01:40 UTC \('timeout'\); 2 of 4 are still open\.$",
        ):
            awaited.result()
        assert awaited.so_far() == BatchWaitResult(1, {"2": BROKEN}, ("3", "4"))

    @pytest.mark.parametrize(("now", "ends"), [(599, False), (600, True)])
    def test_a_member_that_still_fails_has_failed_since_all_did(self, now: float, ends: bool) -> None:
        awaited = BatchWait(WaitCondition(), group(RUNS, RUNS))
        fail(awaited, now=0)
        partly(awaited, *group(RUNS, RUNS), doubtful="1", now=300)
        partly(awaited, *group(RUNS, RUNS), doubtful="1", now=now)
        assert isinstance(awaited.ending, errors.UnexpectedAnswerError) is ends

    def test_timeout_names_the_argument_that_set_the_deadline(self) -> None:
        awaited = BatchWait(WaitCondition(), group(RUNS), deadline=100)
        awaited.deadline_argument = "execution_timeout"
        awaited.check_deadline(at(100))
        assert "UTC ('execution_timeout'); 1 of 1 are still open" in str(awaited.ending)

    def test_the_poll_at_the_deadline_still_counts(self) -> None:
        awaited = BatchWait(WaitCondition(), group(RUNS), deadline=100)
        poll(awaited, *group(OK), now=100)
        assert awaited.result().succeeded == 1

    def test_fails_when_polls_fail_for_max_poll_failure_time(self) -> None:
        awaited = BatchWait(WaitCondition(), group(OK, RUNS), max_poll_failure_time=60)
        fail(awaited, now=30)  # however long the first failed poll took
        assert awaited.seconds_left(at(40)) == 50
        fail(awaited, now=90)
        with pytest.raises(errors.InterruptedCallError, match="polls have failed for 60 s"):
            awaited.result()

    def test_members_in_a_failed_list_do_not_block_the_others(self) -> None:
        awaited = BatchWait(WaitCondition(), group(RUNS, RUNS, RUNS), max_poll_failure_time=60)
        rows = dict(enumerate(group(RUNS, RUNS, RUNS)))
        assert partly(awaited, rows[0], rows[1], doubtful="3", now=0) == ["Polls are failing; still waiting"]
        assert awaited.seconds_left(at(0)) == 60
        # Failure times are counted per instance: the third is shown, the second fails from now on.
        assert partly(awaited, instance("1", OK), rows[2], doubtful="2", now=50) == [
            "Closed 1 of 3, 0 failed; 1 a minute, about 2 min left"
        ]
        assert awaited.seconds_left(at(50)) == 60
        assert partly(awaited, rows[2], doubtful="2", now=100) == []
        partly(awaited, rows[2], doubtful="2", now=110)
        with pytest.raises(errors.UnexpectedAnswerError, match="odd 2; polls have failed for 60 s"):
            awaited.result()
        assert awaited.so_far() == BatchWaitResult(1, {}, ("2", "3"))

    def test_reports_the_error_that_has_lasted_longest(self) -> None:
        awaited = BatchWait(WaitCondition(), group(RUNS, RUNS), max_poll_failure_time=60)
        partly(awaited, instance("1", RUNS), doubtful="2", now=0)
        partly(awaited, doubtful="12", now=60)
        with pytest.raises(errors.UnexpectedAnswerError, match="odd 2; polls have failed for 60 s"):
            awaited.result()

    def test_of_errors_that_last_equally_long_it_reports_the_first_members(self) -> None:
        awaited = BatchWait(WaitCondition(), group(RUNS, RUNS), max_poll_failure_time=60)
        for now in (0, 60):
            partly(awaited, doubtful="12", now=now)
        with pytest.raises(errors.UnexpectedAnswerError, match="odd 1; polls have failed for 60 s"):
            awaited.result()

    def test_a_member_is_missing_since_the_first_poll_without_it_however_late_that_was(self) -> None:
        awaited = BatchWait(WaitCondition(), group(RUNS, RUNS))
        late = 100 * MIN_MISSING_SECONDS
        for number in range(MIN_MISSING_POLLS + 1):
            poll(awaited, instance("1", RUNS), now=late + number)
        assert not awaited.so_far().failed
        poll(awaited, instance("1", RUNS), now=late + MIN_MISSING_SECONDS)
        assert list(awaited.so_far().failed) == ["2"]

    def test_a_poll_that_fails_for_a_member_does_not_count_as_missing(self) -> None:
        awaited = BatchWait(WaitCondition(), group(RUNS, RUNS))
        for now in (0, 20, 40):
            partly(awaited, instance("1", RUNS), doubtful="2" if now == 20 else "", now=now)
        assert awaited.ending is None
        partly(awaited, instance("1", OK), now=MIN_MISSING_SECONDS)
        assert list(awaited.result().failed) == ["2"]

    def test_another_instance_under_a_members_id_is_a_failure(self) -> None:
        first = [instance("1", RUNS, business_key="a"), instance("2", RUNS), instance("3", RUNS)]
        awaited = BatchWait(WaitCondition(), dict.fromkeys("123"))
        poll(awaited, *first)
        poll(awaited, instance("1", OK), instance("2", OK, business_key="b"), instance("3", OK, name="Z"))
        assert awaited.ended() == BatchWaitResult(
            2, {"3": "its id now shows another instance: one of 'Z', with business key None"}, ()
        )
        awaited = BatchWait(WaitCondition(), first)
        poll(awaited, *first)
        poll(awaited, instance("1", OK, business_key="z"), *first[1:])
        assert list(awaited.so_far().failed) == ["1"]

    def test_a_member_with_an_unexpected_name_is_a_failure(self) -> None:
        rows = [instance("1", OK, name="ns__A"), instance("2", OK, name="B"), instance("3", OK, name="C")]
        awaited = BatchWait(WaitCondition(), dict.fromkeys("123"), names=["A", "ns__B"])
        poll(awaited, *rows)
        assert list(awaited.result().failed) == ["3"]

    def test_digests_of_names_and_keys_use_all_of_their_32_bits(self) -> None:
        high = next(text for text in map(str, range(1000)) if hash(text) >> 31 & 1)
        awaited = BatchWait(WaitCondition(), dict.fromkeys("12"))
        poll(awaited, instance("1", RUNS, name=high), instance("2", RUNS, business_key=high))
        assert not awaited.so_far().failed

    def test_start_grace_extends_the_time_before_a_member_is_gone(self) -> None:
        awaited = BatchWait(WaitCondition(), group(RUNS))
        awaited.grace = 300
        for now in (0, 100, 200, 299):
            poll(awaited, now=now)
        assert awaited.ending is None
        poll(awaited, now=300)
        assert list(awaited.result().failed) == ["1"]

    def test_timeout_says_since_when_polls_fail(self) -> None:
        awaited = BatchWait(WaitCondition(), group(RUNS, RUNS), deadline=100)
        partly(awaited, instance("1", RUNS), doubtful="2", now=40)
        partly(awaited, instance("1", RUNS), doubtful="2", now=100)
        with pytest.raises(
            errors.WaitTimeoutError,
            match="2 of 2 are still open; polls have failed since 1970-01-01 00:00:40 UTC: odd 2",
        ):
            awaited.result()

    def test_an_error_names_the_connection_of_the_wait(self) -> None:
        awaited = BatchWait(WaitCondition(), group(RUNS))
        search_result = SearchResult(sought(awaited))
        search_result.contradictions["1"] = errors.UnexpectedAnswerError("odd")
        awaited.record_poll(search_result, at(1), "my_conn")
        assert awaited.failure is not None
        assert awaited.failure.connection == "my_conn"

    def test_refused_credentials_fail_a_wait_that_new_ones_can_resume(self) -> None:
        awaited = BatchWait(WaitCondition(), group(OK, RUNS))
        awaited.record_failed_poll(errors.AuthenticationError("no"), at(1))
        assert isinstance(awaited.ending, errors.AuthenticationError)
        awaited.resume()
        poll(awaited, *group(OK, OK))
        assert awaited.result().succeeded == 2


def test_queries_open_members_in_their_last_states() -> None:
    one, _, three = group(RUNS, OK, RUNS)
    awaited = BatchWait(WaitCondition(), {"1": one, "2": None, "3": three})
    assert sought(awaited) == {"1": RUNS, "2": None, "3": RUNS}
    poll(awaited, *group("Suspended", OK, RUNS))
    assert sought(awaited) == {"1": "Suspended", "3": RUNS}


class TestLog:
    def test_logs_progress_when_it_changed_and_not_too_often(self) -> None:
        awaited = BatchWait(WaitCondition(), group(*[OK] * 10, *[RUNS] * 90))
        # This many have closed; the last of them has failed.
        for now, closed, note in (
            (0, 10, ["Closed 10 of 100, 0 failed"]),
            (30, 10, []),
            (60, 40, ["Closed 40 of 100, 1 failed; 30 a minute, about 2 min left"]),
            (60 + PROGRESS_INTERVAL_SECONDS - 1, 50, []),
            (
                60 + PROGRESS_INTERVAL_SECONDS,
                50,
                ["Closed 50 of 100, 2 failed; 34 a minute, about 1 min left"],
            ),
            (120, 50, []),
            (121, 100, ["Closed 100 of 100, 3 failed"]),
        ):
            states = [OK] * (closed - 1) + [BAD if closed > 10 else OK] + [RUNS] * (100 - closed)
            assert poll(awaited, *group(*states), now=now) == note
        assert awaited.result().succeeded == 97

    def test_logs_nothing_before_the_first_close_and_a_last_line_at_the_end(self) -> None:
        awaited = BatchWait(WaitCondition(), group(RUNS), deadline=100)
        assert poll(awaited, *group(RUNS), now=50) == []
        awaited.check_deadline(at(100))
        assert said(awaited) == ["Closed 0 of 1, 0 failed"]

    def test_logs_how_many_are_missing(self) -> None:
        awaited = BatchWait(WaitCondition(), group(RUNS, RUNS))
        assert poll(awaited, instance("1"), now=0) == ["Closed 0 of 2, 0 failed, 1 missing"]
        assert poll(awaited, *group(RUNS, RUNS), now=60) == ["Closed 0 of 2, 0 failed"]

    def test_logs_when_polls_start_to_fail_and_succeed_again(self) -> None:
        awaited = BatchWait(WaitCondition(), group(RUNS))
        for now in (0, 10):
            fail(awaited, now=now)
        assert said(awaited) == [
            "Polls are failing; still waiting. cut. It is unknown whether the server acted on the request."
        ]
        assert poll(awaited, *group(RUNS)) == ["Polls succeed again"]


class TestRejudge:
    """A later poll decides open members, and checks successes again."""

    IDS = ("1", "2", "3", "4")
    END = BatchWaitResult(1, {"2": HELD}, ("3", "4"))

    def again(self, *states: str, condition: WaitCondition | None = None) -> BatchWaitResult:
        seen = {one.id: one for one in group(*states)}
        return rejudge(self.END, self.IDS, seen, condition or WaitCondition())

    def test_decides_open_members(self) -> None:
        assert self.again(OK, RUNS, RUNS, RUNS) == self.END
        assert self.again(OK, RUNS, OK, RUNS) == BatchWaitResult(2, {"2": HELD}, ("4",))
        assert self.again(OK, RUNS, OK, BAD) == BatchWaitResult(2, {"2": HELD, "4": BROKEN}, ())

    def test_keeps_failures(self) -> None:
        assert self.again(OK, OK, RUNS, RUNS) == self.END

    def test_an_id_that_shows_another_instance_is_a_failure(self) -> None:
        others = {one: instance(one, OK, name="Z") for one in "123"}
        words = "its id now shows another instance: one of 'Z', with business key None"
        again = rejudge(self.END, self.IDS, {}, WaitCondition(), others=others)
        assert again == BatchWaitResult(0, {"2": HELD, "1": words, "3": words}, ("4",))

    def test_keeps_the_result_of_a_member_that_is_gone(self) -> None:
        assert rejudge(self.END, self.IDS, {}, WaitCondition()) == self.END

    @pytest.mark.parametrize("state", [RUNS, BAD, UNHEARD_OF])
    def test_refuses_a_false_success(self, state: str) -> None:
        with pytest.raises(errors.UnknownEventError, match="it counts as a success.*instance '1'"):
            self.again(state, RUNS, RUNS, RUNS)

    def test_accepts_a_success_whose_state_has_passed(self) -> None:
        asked = WaitCondition.of(states=["Waiting for user interaction"])
        assert self.again(BAD, RUNS, RUNS, RUNS, condition=asked) == self.END


class TestBatchSnapshot:
    def test_polls_again_for_members_without_an_answer(self) -> None:
        roll = BatchSnapshot(dict.fromkeys("123"), max_poll_failure_time=60)
        search_result = SearchResult(sought(roll))
        search_result.add_list("Running", [instance("1")])
        search_result.contradictions["2"] = errors.UnexpectedAnswerError("odd")
        roll.record_poll(search_result, at(1))
        assert roll.ending is None
        assert roll.seen == {"1": instance("1")}
        assert str(roll.failure).startswith("odd")
        assert list(sought(roll)) == ["2"]
        search_result = SearchResult(sought(roll))
        search_result.add_list("Running", [instance("2")])
        roll.record_poll(search_result, at(3))
        assert roll.result() == {"1": instance("1"), "2": instance("2")}

    def test_ends_with_the_first_successful_poll(self) -> None:
        roll = BatchSnapshot({"1": RUNS, "2": None})
        fail(roll, now=1)
        assert roll.ending is None
        assert sought(roll) == {"1": RUNS, "2": None}
        search_result = SearchResult(sought(roll))
        search_result.add_list("Running", group(BAD))
        roll.record_poll(search_result, at(2))
        assert roll.result() == {"1": instance("1", BAD)}

    def test_fails_when_polls_fail_for_max_poll_failure_time(self) -> None:
        roll = BatchSnapshot({"1": None}, max_poll_failure_time=60)
        fail(roll, now=60)
        assert roll.ending is None
        fail(roll, now=120)
        with pytest.raises(errors.InterruptedCallError):
            roll.result()


def test_polls_may_fail_for_ten_minutes_by_default() -> None:
    waits: tuple[BaseWait[Any], ...] = BatchSnapshot({"1": None}), BatchWait(WaitCondition(), group(RUNS))
    for awaited in waits:
        fail(awaited, now=0)
        fail(awaited, now=599)
        assert awaited.ending is None
        fail(awaited, now=600)
        assert isinstance(awaited.ending, errors.InterruptedCallError)


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        ([(0, 100)], ""),
        ([(0, 100), (60, 100)], ""),
        ([(0, 100), (0, 90)], ""),
        ([(0, 100), (60, 80), (60, 60)], "; 40 a minute, about 2 min left"),
        ([(0, 5094), (60, 4880)], "; 214 a minute, about 23 min left"),
        ([(0, 100), (60, 1)], "; 99 a minute, about 1 min left"),
        ([(0, 100), (120, 99)], "; 30 an hour, about 3 h left"),
        (
            [(0, 900), (RATE_WINDOW_SECONDS, 900), (2 * RATE_WINDOW_SECONDS, 800)],
            "; 10 a minute, about 80 min left",
        ),
        ([(0, 900), (7200, 800)], "; 50 an hour, about 16 h left"),
        ([(0, 121), (60, 120)], "; 1 a minute, about 2 h left"),
        ([(0, 120), (60, 119)], "; 1 a minute, about 119 min left"),
        ([(0, 7201), (60, 7200)], "; 1 a minute, about 120 h left"),
        ([(7200, 900), (0, 850), (60, 800)], "; 50 a minute, about 16 min left"),
    ],
    ids=[
        "one measurement",
        "nothing closes",
        "at the same time",
        "two at the same time",
        "minutes",
        "nearly done",
        "hours",
        "only the last ten minutes count",
        "rare polls",
        "one a minute, for two hours",
        "for less",
        "for days",
        "the clock was set back",
    ],
)
def test_progress_rate(marks: list[tuple[float, int]], words: str) -> None:
    pace = ProgressRate()
    for now, left in marks:
        pace.mark(left, now)
    assert str(pace) == words


CONDITIONS = (
    WaitCondition(),
    WaitCondition.of(bp_statuses=["Approved"], failed_bp_statuses=["Rejected"]),
    WaitCondition.of(on_suspended="fail"),
    WaitCondition.of(states=["Terminated", "Suspended"], failed_states=["Waiting for user interaction"]),
)
LOOK = st.none() | st.builds(
    lambda state, **fields: {"state": state, **fields},
    st.sampled_from(
        [RUNS, RUNS, "Waiting for user interaction", OK, BAD, "Terminated", "Suspended", UNHEARD_OF]
    ),
    bp_status=st.sampled_from([None, None, "Approved", "Rejected"]),
    suspended=st.sampled_from([False, False, True]),
)
"""What a poll shows of a member; ``None`` for nothing."""
IDS = ("1", "2", "3", "4")


@given(
    condition=st.sampled_from(CONDITIONS),
    known=st.fixed_dictionaries(dict.fromkeys(IDS, LOOK)),
    steps=st.lists(
        st.tuples(
            st.sampled_from([1, 20, 40, 70]),
            st.sampled_from(["poll"] * 8 + ["part"] * 4 + ["fail"] * 3 + ["refuse"]),
            st.dictionaries(st.sampled_from(IDS), LOOK, max_size=2),
        ),
        max_size=15,
    ),
    limits=st.fixed_dictionaries(
        {
            "deadline": st.sampled_from([None, None, 100, 400]),
            "max_poll_failure_time": st.sampled_from([50, 600]),
        }
    ),
    may_fail=st.sampled_from([None, None, 0, 1]),
)
def test_ends_like_as_many_single_waits(
    condition: WaitCondition,
    known: dict[str, dict[str, Any] | None],
    steps: list[tuple[float, str, dict[str, dict[str, Any] | None]]],
    limits: dict[str, Any],
    may_fail: int | None,
) -> None:
    def row(instance_id: str, what: dict[str, Any] | None) -> BpmInstance | None:
        return instance(instance_id, **what) if what else None

    there = {instance_id: row(instance_id, what) for instance_id, what in known.items()}
    together = BatchWait(condition, there, **limits, may_fail=may_fail)
    singles = {
        one: InstanceWait(condition, instance_id=one, seen=seen, **limits) for one, seen in there.items()
    }
    _check(together, singles, condition, may_fail)
    now = 0.0
    for seconds, what, moves in steps:
        if together.ending is not None:
            break
        now += seconds
        there |= {instance_id: row(instance_id, move) for instance_id, move in moves.items()}
        search_result = SearchResult(dict.fromkeys(IDS))
        search_result.add_list("Running", [one for one in there.values() if one and one.state != UNHEARD_OF])
        if what == "part":
            search_result.contradictions |= {
                instance_id: errors.UnexpectedAnswerError("odd") for instance_id in moves
            }
        error = cut() if what == "fail" else errors.AuthenticationError("no")
        everyone: list[BaseWait[Any]] = [together, *singles.values()]
        for each in everyone:
            if each.ending is not None:
                continue
            if what in ("poll", "part"):
                each.record_poll(search_result, at(now))
            else:
                each.record_failed_poll(error, at(now))
        _check(together, singles, condition, may_fail)


def _check(
    together: BatchWait, singles: dict[str, InstanceWait], condition: WaitCondition, may_fail: int | None
) -> None:
    """Check that the batch wait agrees with the single waits."""
    succeeded, failed, still_open = together.so_far()
    good = [each.ending for each in singles.values() if isinstance(each.ending, BpmInstance)]
    assert all(condition.judge(one).outcome is Outcome.DONE for one in good)
    assert succeeded == len(good)
    shared: set[tuple[type, str]] = set()
    for instance_id, each in singles.items():
        if isinstance(each.ending, errors.WaitFailedError):
            assert each.ending.problem.endswith(f"failed: {failed.pop(instance_id)}")
        elif isinstance(each.ending, errors.InstanceNotFoundError):
            assert str(each.ending).replace(each.ending.sought, "it") == failed.pop(instance_id)
        else:
            assert (instance_id in still_open) == (not isinstance(each.ending, BpmInstance))
            if isinstance(each.ending, errors.CallError):
                shared.add((type(each.ending), str(each.ending)))
            elif isinstance(each.ending, errors.WaitTimeoutError):
                shared.add((type(each.ending), ""))
    assert not failed
    too_many = may_fail is not None and len(together.so_far().failed) > may_fail
    if too_many or not still_open:
        assert together.ending == together.so_far()
    elif shared:
        assert isinstance(together.ending, errors.AstroZeroError)
        is_late = isinstance(together.ending, errors.WaitTimeoutError)
        assert (type(together.ending), "" if is_late else str(together.ending)) in shared
    else:
        assert together.ending is None


class TestCost:
    def test_takes_little_time_while_nothing_changes(self) -> None:
        rows = group(*["Running", "Waiting for user interaction"] * (MANY // 2))
        awaited = BatchWait(WaitCondition(), rows)
        search_result = SearchResult(sought(awaited))
        search_result.add_list("Running", rows)
        least = 1.0
        for now in range(5):
            began = time.process_time()
            awaited.record_poll(search_result, at(now))
            least = min(least, time.process_time() - began)
        assert awaited.notes == []
        print(f"{least * 1000:.1f} ms a poll")  # noqa: T201 - pytest -s shows it
        assert least < 0.05

    def test_takes_little_memory(self) -> None:
        def row(number: int) -> BpmInstance:
            state = "".join(["Waiting for ", "user interaction"])  # a new string, as decoding creates
            return instance(f"002N{number:014}", state, business_key=f"key-{number}")

        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        awaited = BatchWait(WaitCondition(), (row(number) for number in range(MANY)))
        for now in range(3):
            poll(awaited, *(row(number) for number in range(MANY)), now=now)
        gc.collect()
        each = (tracemalloc.get_traced_memory()[0] - before) / MANY
        tracemalloc.stop()
        assert len(sought(awaited)) == MANY
        print(f"{each:.0f} bytes for each that is open")  # noqa: T201 - pytest -s shows it
        assert each < 130
