"""Random interleavings of a poller, its waits, moving instances, and faults.

A model in virtual time: instances move, appear and vanish at any time, even between two queries of one poll. Answers are slow
or are errors. Waits start, end and are cancelled meanwhile. Clocks jump. In any order, no wait may end wrongly or too early,
none may be forgotten, and nothing may be left behind.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from random import Random
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from airflow_provider_astrobpm.client import errors, process_state, states
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.key_form import BusinessKey
from airflow_provider_astrobpm.client.moment import Moment
from airflow_provider_astrobpm.client.settings import Settings
from airflow_provider_astrobpm.client.validation import MIN_POLL_INTERVAL_SECONDS
from airflow_provider_astrobpm.waiting import poller
from airflow_provider_astrobpm.waiting.condition import Outcome
from airflow_provider_astrobpm.waiting.poller import MAX_LATENESS_SECONDS, PollerRegistry
from airflow_provider_astrobpm.waiting.polling import (
    MAX_BACKOFF_SECONDS,
    MAX_JITTER_SHARE,
    MAX_RETRY_AFTER_SECONDS,
)
from airflow_provider_astrobpm.waiting.wait import MIN_MISSING_POLLS, MIN_MISSING_SECONDS, InstanceWait
from tests.support.memory_server import UNHEARD_OF, Client, PollRecord, Server, instance, settings
from tests.support.virtual_time import VirtualLoop
from tests.waiting.interleaving_world import (
    CONDITIONS,
    FAULTS,
    FIELDS,
    IDS,
    KEYS,
    PASSING_FAULTS,
    ROWS,
    Waiter,
)

MAX_POLLS_PER_STEP = 5  # so that an hour at one poll a second does not make a slow step
ABOUT = 1e-5  # seconds: the rounding error of added times


class Interleaving(RuleBasedStateMachine):
    """One model, whose rules run in any order."""

    tally: ClassVar[Counter[str]] = Counter()
    """What was tested without a fault so far, in this process."""

    def __init__(self) -> None:
        super().__init__()
        process_state.reset()
        self.loop = VirtualLoop()
        self.server = Server(self.loop)
        self.settings = settings()
        self.server.before_poll, self.server.after_poll = self._check_pause, self._count_poll
        self.pollers = PollerRegistry()
        self.clients: list[Client] = []
        self.waiters: list[Waiter] = []
        self.doomed: list[Waiter] = []
        self.has_begun = 0
        self.jumps = 0
        self.polls_left = 0
        self.stalled_until = 0.0
        self.retry_after_until: tuple[Client, float, float] | None = None
        self.is_sound = True
        self.violations: list[str] = []
        self.failures: list[BaseException] = []
        self.loop.each_round = self._cancel_the_doomed
        self.chance: Callable[[], float] = lambda: 0.0
        # The registry would create pollers with the process's clock and random numbers.
        self._made_by = poller.Poller
        poller.Poller = partial(poller.Poller, clock=self.server.clock, jitter=self._chance)  # type: ignore[misc,assignment]

    @initialize(
        lookup=st.sampled_from(["list", "auto", "by_id"]),
        seed=st.integers(0, 1000),
        rows=st.integers(0, len(ROWS) - 1),
        answer_time=st.sampled_from([0, 0.2, 3]),
    )
    def begin(self, lookup: str, seed: int, rows: int, answer_time: float) -> None:
        self.settings = settings(instance_lookup=lookup)
        self.server.answer_time = answer_time
        self.chance = Random(seed).random
        for number, instance_id in enumerate(("1", "3", "4")):
            self._put(instance_id, (rows * number) % len(ROWS))

    # Rules.

    @rule(
        instance_id=st.sampled_from(IDS),
        condition=st.integers(0, len(CONDITIONS) - 1),
        interval=st.sampled_from([10, 1, 2.5, 60]),
        deadline=st.sampled_from([None, 100, 0, 4, 30, 4000]),
        patience=st.sampled_from([600, 60, 5, 0]),
        knows=st.booleans(),
    )
    def join_by_id(
        self,
        instance_id: str,
        condition: int,
        interval: float,
        deadline: float | None,
        patience: float,
        knows: bool,
    ) -> None:
        seen = self.server.rows.get(instance_id) if knows else None
        self._join(condition, interval, deadline, patience, instance_id=instance_id, seen=seen)

    @rule(
        key=st.sampled_from(KEYS),
        condition=st.integers(0, len(CONDITIONS) - 1),
        interval=st.sampled_from([10, 1, 60]),
        deadline=st.sampled_from([None, 100, 4, 4000]),
    )
    def join_by_key(self, key: BusinessKey, condition: int, interval: float, deadline: float | None) -> None:
        self._join(condition, interval, deadline, 60, key=key)

    @rule(
        condition=st.integers(0, len(CONDITIONS) - 1),
        interval=st.sampled_from([1, 10, 60]),
        ids=st.sampled_from(["13", "55", "12345"]),
    )
    def join_together(self, condition: int, interval: float, ids: str) -> None:
        for instance_id in ids:
            self._join(condition, interval, None, 600, instance_id=instance_id)

    @rule(which=st.integers(0, 7))
    def leave(self, which: int) -> None:
        if living := self._living():
            living[which % len(living)].task.cancel()

    @rule(which=st.integers(0, 7))
    def leave_while_being_woken(self, which: int) -> None:
        if living := self._living():
            self.doomed.append(living[which % len(living)])

    @rule()
    def all_leave(self) -> None:
        for waiter in self._living():
            waiter.task.cancel()

    @rule(instance_id=st.sampled_from(IDS), row=st.integers(0, len(ROWS) - 1))
    def move(self, instance_id: str, row: int) -> None:
        self._put(instance_id, row)

    @rule(instance_id=st.sampled_from(IDS), row=st.integers(0, len(ROWS) - 1))
    def another_gets_its_id(self, instance_id: str, row: int) -> None:
        self.server.put(instance(instance_id, name="Impostor", business_key="KX", **ROWS[row]))

    @rule(instance_id=st.sampled_from(IDS))
    def vanish(self, instance_id: str) -> None:
        self.server.rows.pop(instance_id, None)

    @rule(
        fault=st.sampled_from(list(FAULTS)),
        times=st.sampled_from([1, 4, 1_000_000]),
        after=st.sampled_from([0, 1, 7]),
    )
    def fail(self, fault: str, times: int, after: int) -> None:
        self.server.fail(FAULTS[fault], times, after)

    @rule(
        lists=st.sampled_from(["", "Running", "Completed OK", "Running,Waiting for user interaction"]),
        fault=st.sampled_from(PASSING_FAULTS),
    )
    def some_lists_fail(self, lists: str, fault: str) -> None:
        self.server.bad_lists = dict.fromkeys(filter(None, lists.split(",")), FAULTS[fault])

    @rule(instance_id=st.sampled_from(IDS), row=st.integers(0, len(ROWS) - 1))
    def shows_twice(self, instance_id: str, row: int) -> None:
        self.server.twice[instance_id] = instance(instance_id, **FIELDS[instance_id], **ROWS[row])

    @rule(answer_time=st.sampled_from([0, 0.2, 3, 90]), closing_time=st.sampled_from([0, 1]))
    def answers_take(self, answer_time: float, closing_time: float) -> None:
        self.server.answer_time, self.server.closing_time = answer_time, closing_time

    @rule(row_cap=st.sampled_from([None, 1]), reads=st.sampled_from(["work", "absent", "broken"]))
    def server_changes(self, row_cap: int | None, reads: Any) -> None:
        self.server.row_cap, self.server.reads = row_cap, reads

    @rule(hours=st.sampled_from([1, -1]))
    def clock_is_set(self, hours: int) -> None:
        self._run(0)
        self.server.clock_offset += hours * 3600
        self.jumps += hours > 0

    @rule(seconds=st.sampled_from([3, 15, 7200]))
    def nothing_runs_for_a_while(self, seconds: float) -> None:
        self._run(0)
        self.loop.stand_still(seconds)
        self.stalled_until = self.loop.now
        self._run(0)

    @rule(seconds=st.sampled_from([0, 0.1, 0.9, 4]))
    def a_little_time_passes(self, seconds: float) -> None:
        self._run(seconds)

    @rule(seconds=st.sampled_from([1, 10, 60]))
    def an_interval_passes(self, seconds: float) -> None:
        self._run(seconds)

    @rule()
    def hours_pass(self) -> None:
        self._run(4 * 3600)

    @rule()
    def all_is_quiet(self) -> None:
        """Check that, while nothing fails or moves, polls are regular and cheap, and no wait is woken."""
        self._come_to_rest()
        living = self._living()
        if not living or any(not self._is_followed(waiter) for waiter in living):
            return
        waiting_for = [waiter.subscription._waiter for waiter in living if waiter.subscription]
        polls, before = self.clients[-1].polls, len(self.clients[-1].polls)
        least = min(waiter.interval for waiter in living)
        self._run(4 * least)
        made = polls[before - 1 :]
        self._require(len(made) >= 4, "too few polls")
        for poll in made[1:]:
            if poll.ended is not None:
                self._require(self._is_cheap(poll, living), f"a quiet poll asked {poll.asked}")
        for one, other in pairwise(made[1:]):
            gap = other.began - one.began
            # After a poll that took longer than the interval comes a pause of a second.
            most = max(least, MIN_POLL_INTERVAL_SECONDS + (one.ended or 0) - one.began)
            self._require(
                (1 - MAX_JITTER_SHARE) * least - ABOUT <= gap <= most + ABOUT,
                f"a gap of {gap} s between polls",
            )
        still = [waiter.subscription._waiter for waiter in living if waiter.subscription]
        self._require(
            all(one is other for one, other in zip(waiting_for, still, strict=True)), "a quiet wait was woken"
        )

    # At the end.

    def teardown(self) -> None:
        try:
            if self.is_sound:
                self._come_to_rest()
                self._all_waits_leave()
                self._a_new_wait_is_served()
                self._all_waits_leave()
                self._count()
        finally:
            poller.Poller = self._made_by  # type: ignore[misc]
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.settle()
            self.loop.close()

    def _count(self) -> None:
        polls = sum(len(client.polls) for client in self.clients)
        self.tally.update(interleavings=1, waits=self.has_begun, pollers=len(self.clients), polls=polls)

    def _come_to_rest(self) -> None:
        """End all faults and moves. One complete poll then ends every wait that has to end."""
        self.server.heal()
        self.server.answer_time, self.server.row_cap = 0.05, None
        if self.settings.instance_lookup == "by_id" and self.server.reads == "broken":
            self.server.reads = "work"
        self._run(0)
        if not self._living():
            return
        before = len(self.clients), len(self.clients[-1].polls)
        # An answer may be under way, and the server may have sent Retry-After.
        end = self.loop.now + 90 + MAX_RETRY_AFTER_SECONDS + MAX_BACKOFF_SECONDS + 10
        while self._living() and not self._has_polled_since(*before):
            self._require(self.loop.now < end, "polling has stopped")
            self._run(end - self.loop.now, polls=1)
        for waiter in self._living():
            self._require(not self._has_to_end(waiter), f"{waiter.connection} was not woken: {vars(waiter)}")

    def _has_polled_since(self, clients: int, polls: int) -> bool:
        """Return whether a poll has begun and ended since there were this many clients, and this many polls of the last one."""
        latest = self.clients[-1].polls
        return len(latest) > (polls if len(self.clients) == clients else 0) and latest[-1].ended is not None

    def _has_to_end(self, waiter: Waiter) -> bool:
        deadline = waiter.wait.deadline
        if waiter.wait.ending is not None or (deadline is not None and self.server.clock() >= deadline):
            return True
        listed = [row for row in self.server.rows.values() if waiter.means(row) and row.state != UNHEARD_OF]
        if waiter.wait.instance_id is None:
            still_open = [row for row in listed if not row.is_closed]
            if len(listed) > 1 and len(still_open) != 1:
                return True
            listed = still_open or listed
        else:
            can_be_read = self.settings.instance_lookup != "by_id" or self.server.reads == "work"
            listed = [row for row in listed if row.id == waiter.wait.instance_id and can_be_read]
        return any(waiter.condition.judge(row).outcome is not Outcome.WAITING for row in listed)

    def _is_followed(self, waiter: Waiter) -> bool:
        """Return whether the next polls will certainly show the same as the last one."""
        seen, deadline = waiter.wait.seen, waiter.wait.deadline
        return (
            seen is not None
            and (self.settings.instance_lookup != "by_id" or self.server.reads == "work")
            and not waiter.wait.is_inconclusive()
            and self.server.rows.get(seen.id) is seen
            and seen.state in states.STATES
            and (deadline is None or deadline > self.server.clock() + 600)
        )

    def _is_cheap(self, poll: PollRecord, living: list[Waiter]) -> bool:
        """Return whether a poll sent no needless request: one list per state, or one read per id if that is not more."""
        rows = {row.id: row.state for waiter in living if (row := waiter.wait.seen)}
        lists = len(set(rows.values()))
        if self.settings.instance_lookup == "by_id":
            return poll.asked == ["get"] * len(rows)
        if self.settings.instance_lookup == "list":
            return len(poll.asked) == lists and "get" not in poll.asked
        return len(poll.asked) <= lists or self.server.reads != "work"

    def _all_waits_leave(self) -> None:
        for waiter in self._living():
            waiter.task.cancel()
        self._run(1.1)  # the longest that a client takes to close
        self._require(not self._living(), "a wait cannot leave")
        self._require(not asyncio.all_tasks(self.loop), "a task was left behind")
        self._require(not self.loop.timers(), "a timer was left behind")
        self._require(not self.pollers._pollers.get(self.loop), "an ended poller is remembered")
        self._require(all(client.closed == 1 for client in self.clients), "a client was not closed")
        self._require(not self.loop.problems, f"{self.loop.problems}")

    def _a_new_wait_is_served(self) -> None:
        self.server.put(instance("6", "Completed OK"))
        self.server.reads = "work"
        clients = len(self.clients)
        self._join(0, 1, None, 600, instance_id="6")
        (new_wait,) = self.waiters[-1:]
        self._run(3)
        self._require(new_wait.wait.ending == self.server.rows["6"], "a new wait was not served")
        self._require(len(self.clients) == clients + 1, "an ended poller was used again")

    # Mechanics.

    def _put(self, instance_id: str, row: int) -> None:
        self.server.put(instance(instance_id, **FIELDS[instance_id], **ROWS[row]))

    def _join(
        self,
        condition: int,
        interval: float,
        deadline: float | None,
        patience: float,
        **sought: Any,
    ) -> None:
        self.has_begun += 1
        awaited = InstanceWait(
            CONDITIONS[condition],
            deadline=None if deadline is None else self.server.clock() + deadline,
            max_poll_failure_time=patience,
            **sought,
        )
        waiter = Waiter(f"conn_{self.has_begun}", CONDITIONS[condition], awaited, interval)
        waiter.renews = patience == 600
        waiter.task = self.loop.create_task(self._waits(waiter))
        waiter.task.add_done_callback(self._note_a_failure)
        self.waiters.append(waiter)

    async def _waits(self, waiter: Waiter) -> None:
        """Wait like a trigger, and resume with new credentials if the old ones were refused."""
        awaited = waiter.wait
        while True:
            shared = self.pollers.get(self.settings, self._client)
            waiter.client = self.clients[-1]
            waiter.first_poll, waiter.jumps = len(waiter.client.polls), self.jumps
            waiter.joined, waiter.joined_at = self.loop.now, self.server.clock()
            waiter.subscription = shared.join(awaited, interval=waiter.interval, connection=waiter.connection)
            async with waiter.subscription as subscription:
                while awaited.ending is None:
                    notes = await subscription.notes()
                    if not notes and awaited.ending is None:
                        self.violations.append(f"{waiter.connection} was woken for nothing")
            self._check_ending(waiter)
            if not (waiter.renews and isinstance(awaited.ending, errors.AuthenticationError)):
                return
            waiter.renews = False
            waiter.earlier = waiter.polls()
            awaited.resume()

    def _client(self, known: Settings) -> Client:
        self.clients.append(Client(known, self.server))
        return self.clients[-1]

    def _living(self) -> list[Waiter]:
        self.waiters = [waiter for waiter in self.waiters if not waiter.task.done()]
        return self.waiters

    def _note_a_failure(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self.failures.append(error)

    def _cancel_the_doomed(self) -> None:
        for waiter in self.doomed:
            future = waiter.subscription._waiter if waiter.subscription else None
            if future is not None and future.done():
                waiter.task.cancel()

    def _chance(self) -> float:
        return self.chance()

    def _check_pause(self, poll: PollRecord) -> None:
        """Check that a poll comes in time, and not before Retry-After allows it, unless a wait reaches a time limit."""
        for waiter in self._living():
            waiter.id_before = waiter.wait.instance_id
        if poll.began > self.stalled_until:
            overdue = poll.began - self._next_poll_by(self.clients[-1].polls[:-1])
            if overdue > ABOUT:
                self.violations.append(f"a poll {overdue} s late")
        if self.retry_after_until is None:
            return
        (client, offset, until), self.retry_after_until = self.retry_after_until, None
        if client is self.clients[-1] and offset == self.server.clock_offset:
            now = Moment(poll.began_at, poll.began)
            ends = [left for waiter in self._living() if (left := waiter.wait.seconds_left(now)) is not None]
            if poll.began < until - ABOUT and min(ends, default=math.inf) > ABOUT:
                self.violations.append(f"a poll {until - poll.began} s before Retry-After allows it")

    def _count_poll(self, poll: PollRecord) -> None:
        if isinstance(poll.failure, errors.CallError) and poll.failure.retry_after:
            pause = min(float(poll.failure.retry_after), MAX_RETRY_AFTER_SECONDS)
            assert poll.ended is not None
            self.retry_after_until = self.clients[-1], self.server.clock_offset, poll.ended + pause
        self.polls_left -= 1
        if self.polls_left == 0:
            self.loop.stop()

    def _run(self, seconds: float, polls: int = MAX_POLLS_PER_STEP) -> None:
        """Let time pass, then check what must always be true."""
        self.polls_left = polls
        self.loop.pass_time(seconds)
        self.polls_left = 0
        self.loop.settle()
        for client in self.clients[-2:]:
            self.violations += client.violations
        self._require(not self.violations, "; ".join(self.violations))
        if self.failures:
            self.is_sound = False
            raise self.failures[0]
        self._require(not self.loop.problems, f"{self.loop.problems}")
        now = self.server.clock()
        for waiter in self._living():
            self._require(waiter.wait.ending is None, f"{waiter.connection} has ended and was not woken")
            if polls_made := waiter.polls():
                hopeless = isinstance(polls_made[-1].failure, LookupError)
                self._require(not hopeless, f"{waiter.connection} is still waiting after a defect")
                self._require(
                    not self._was_refused(waiter, polls_made[-1]),
                    f"{waiter.connection} is still waiting after refused credentials",
                )
            # If the clock was set forward, the next poll notices it; see _come_to_rest.
            if waiter.wait.deadline is not None and waiter.jumps == self.jumps:
                by = max(waiter.wait.deadline, waiter.joined_at) + MAX_LATENESS_SECONDS
                self._require(now <= by + ABOUT, "a deadline was missed")
        made = self.clients[-1].polls if self.clients else []
        self._require(self.loop.now <= self._next_poll_by(made) + ABOUT, "a poll is overdue")

    def _next_poll_by(self, polls: list[PollRecord]) -> float:
        """Return when the next poll has to have begun."""
        joined = [waiter for waiter in self._living() if waiter.joined < math.inf]
        by = min((waiter.joined + waiter.interval for waiter in joined), default=math.inf)
        if not polls or not joined:
            return by
        last = polls[-1]
        if last.ended is None:
            return math.inf
        if last.failure is not None:
            asked = getattr(last.failure, "retry_after", None)
            spread = MAX_JITTER_SHARE * 60 if asked else 0  # 60 s is the longest interval of all waits here
            asked = min(float(asked or 0) + spread, MAX_RETRY_AFTER_SECONDS)
            return last.ended + max(MAX_BACKOFF_SECONDS, asked)
        by = min(max(waiter.joined, last.began) + waiter.interval for waiter in joined)
        return max(by, last.ended + MIN_POLL_INTERVAL_SECONDS)

    def _require(self, is_so: bool, otherwise: str) -> None:
        if not is_so:
            self.is_sound = False
            raise AssertionError(otherwise)

    # How a wait may end.

    def _check_ending(self, waiter: Waiter) -> None:
        ending, polls = waiter.wait.ending, waiter.polls()
        if isinstance(ending, errors.AstroZeroError):
            assert ending.connection == waiter.connection, f"{ending!r} names {ending.connection!r}"
        # Refused credentials end a wait at once.
        assert not any(self._was_refused(waiter, poll) for poll in polls[:-1])
        if isinstance(ending, (BpmInstance, errors.WaitFailedError)):
            self._check_seen(waiter, polls, ending)
        elif isinstance(ending, errors.WaitTimeoutError):
            assert waiter.wait.deadline is not None
            assert self.server.clock() >= waiter.wait.deadline
        elif isinstance(ending, errors.InstanceNotFoundError):
            self._check_not_found(waiter, polls)
        elif isinstance(ending, errors.AnotherInstanceError):
            assert len(self._names_shown(waiter, polls)) > 1
        elif isinstance(ending, errors.SeveralInstancesError):
            assert waiter.wait.instance_id is None
            assert len({row.id for row in polls[-1].listed if waiter.means(row)}) > 1
        elif isinstance(ending, errors.KeysNotShownError):
            assert waiter.wait.instance_id is None
            assert polls[-1].lists_everything()
            assert polls[-1].listed
            assert not [row for row in polls[-1].listed if row.business_key]
        elif isinstance(ending, errors.AuthenticationError):
            assert self._was_refused(waiter, polls[-1])
        elif isinstance(ending, errors.CallError):
            self._check_failed_reads(waiter, polls, ending)
        else:
            assert isinstance(ending, LookupError)
            assert ending is polls[-1].failure

    def _check_seen(
        self, waiter: Waiter, polls: list[PollRecord], ending: BpmInstance | errors.WaitFailedError
    ) -> None:
        is_good = isinstance(ending, BpmInstance)
        row = ending if isinstance(ending, BpmInstance) else ending.instance
        assert waiter.condition.judge(row).outcome is (Outcome.DONE if is_good else Outcome.FAILED)
        if row is waiter.given:
            return
        assert waiter.means(row)
        assert self._names_shown(waiter, polls) == {row.name}
        assert any(row is shown for shown in polls[-1].shown)
        assert row.id not in polls[-1].contradicted
        if waiter.key is not None and waiter.id_before is None:
            # This poll found it by its key: it is the only match, or the only open one.
            assert polls[-1].lists_everything()
            assert not row.is_closed or polls[-1].failed_lists.isdisjoint(states.OPEN_STATES)
            matches = {each.id: each for each in polls[-1].listed if waiter.means(each)}
            assert len(matches) == 1 or [each for each in matches.values() if not each.is_closed] == [row]

    @staticmethod
    def _names_shown(waiter: Waiter, polls: list[PollRecord]) -> set[str]:
        """Return the names that the wait has seen under its id."""
        known = waiter.given or waiter.wait.seen
        shown = [
            row for poll in [*waiter.earlier, *polls] if poll.shows(waiter.id_before) for row in poll.shown
        ]
        names = {row.name for row in shown if row.id == waiter.id_before}
        return names | ({known.name} if known else set())

    def _check_not_found(self, waiter: Waiter, polls: list[PollRecord]) -> None:
        missed: list[PollRecord] = []
        for poll in reversed([*waiter.earlier, *polls]):
            if poll.shows(waiter.wait.instance_id):
                break
            if self._misses(poll, waiter.wait.instance_id):
                missed.append(poll)
        assert len(missed) >= MIN_MISSING_POLLS
        assert (missed[0].ended or 0) - (missed[-1].ended or 0) >= MIN_MISSING_SECONDS - ABOUT

    def _check_failed_reads(self, waiter: Waiter, polls: list[PollRecord], ending: errors.CallError) -> None:
        failed: list[PollRecord] = []
        for poll in reversed(polls):
            if waiter.id_before is not None and (
                poll.shows(waiter.id_before) or self._misses(poll, waiter.id_before)
            ):
                break
            if waiter.id_before is None and not poll.errors and not poll.contradicted:
                break
            failed.append(poll)
        kinds = {type(error) for error in failed[0].errors}
        assert type(ending) in (kinds | {errors.UnexpectedAnswerError} if failed[0].contradicted else kinds)
        stretch = (failed[0].ended or 0) - failed[-1].began
        assert stretch >= waiter.wait._max_poll_failure_time - ABOUT

    def _misses(self, poll: PollRecord, instance_id: str | None) -> bool:
        """Return whether a poll proves that an instance is in none of the states."""
        if self.settings.instance_lookup == "by_id":
            return instance_id in poll.refused_reads
        return not poll.errors and instance_id not in poll.contradicted and not poll.shows(instance_id)

    def _was_refused(self, waiter: Waiter, poll: PollRecord) -> bool:
        """Return whether the credentials were refused before this poll had an answer for the wait."""
        if not any(isinstance(error, errors.AuthenticationError) for error in poll.errors):
            return False
        if waiter.id_before is not None:
            told = poll.shows(waiter.id_before) or self._misses(poll, waiter.id_before)
            return waiter.id_before not in poll.contradicted and not told
        return not poll.lists_everything()
