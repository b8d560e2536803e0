"""Runs a history. It plays Airflow's numbers and store, the processes of the tries, and a person who clears the task.

The invariants are in ``history_invariants``.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any

import msgspec

from airflow_provider_astrobpm.client.errors import (
    AmbiguousStartError,
    AstroZeroError,
    BatchChangedError,
    CallError,
    OpenInstanceExistsError,
    UnexpectedAnswerError,
)
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.operations import Operation, Sleep
from airflow_provider_astrobpm.client.resend_policy import resending
from airflow_provider_astrobpm.client.settings import Settings, StaticToken
from airflow_provider_astrobpm.starting.try_request import TaskTry
from tests.starting.history import (
    DAY,
    GRACE,
    Clear,
    Foreign,
    History,
    Input,
    Iterate,
    LoseStore,
    Move,
    Retries,
    Step,
    Try,
)
from tests.starting.history_invariants import Invariants
from tests.starting.history_server import FAULTS, HistoryServer, Owner
from tests.starting.history_subjects import AUTHORS_KEY, NAME, Batch, Died, One, identity_of

BEGINNING = 1_790_000_000.0  # 2026-09-21, in seconds since the epoch
RUN, OLDER_RUN = "scheduled__2026-11-24T00:00:00+00:00", "scheduled__2026-11-23T00:00:00+00:00"
NEW_FIELDS = ("max_tries", "is_unclear", "intent_of", "older_unknown", "since", "key_example")
"""The fields that records of an older version of the provider lack."""
MOST_CLEARS = 4
ENDED_BY_A_CLEAR = (AmbiguousStartError, OpenInstanceExistsError, BatchChangedError)


class World:
    """One running history.

    :param history: the history.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.elapsed = 0.0
        self.invariants = Invariants(self)
        self.server = HistoryServer(history.server, self.clock, self._owner_of, history.seed)
        self.server.terminating = self.invariants.check_termination
        self.subject: One | Batch = One(history) if history.subject == "one" else Batch(history)
        self.due = None if history.run_age is None else BEGINNING - history.run_age * DAY
        self.retries = history.retries
        self.has_changed_retries = self.has_changed_input = False
        self.is_loop = any(isinstance(step, Iterate) for step in history.steps)
        self.region = -1
        self.tally: Counter[str] = Counter()
        self._iterate()
        for number, foreign in enumerate(history.foreign):
            self._begin_foreign(number, foreign)
        # State of the running try.
        self.step = Try()
        self.this: TaskTry
        self.prior: Any = None
        """The record before this try."""
        self.started: list[int] = []
        """The launches that this try has started."""
        self.failure: AstroZeroError | None = None
        self._effects = self._calls = self.queries = 0
        self._is_dead = False
        self._is_repeat = False
        self._faults: Iterator[str] = iter(())
        self._then: str | None = None

    def clock(self) -> float:
        """Return the time, in seconds since the epoch."""
        return BEGINNING + self.elapsed

    def run(self) -> None:
        """Run the history to its end.

        :raises AssertionError: if an invariant does not hold.
        """
        random.seed(self.history.seed)  # the order of a search's queries
        for step in self.history.steps:
            self.take(step)
        if self.history.has_store:
            self._end_doubt()

    def take(self, step: Step) -> None:
        """Run one step, and check the invariants."""
        if isinstance(step, Try):
            self._try(step)
        elif isinstance(step, Clear):
            self._clear(keeps_store=step.keeps_store)
        elif isinstance(step, Move):
            self._move(step.which, step.state)
        elif isinstance(step, Retries):
            self.has_changed_retries = self.has_changed_retries or step.retries != self.retries
            self.retries = step.retries
        elif isinstance(step, Input):
            self.subject.change_input(step.number)
            self.has_changed_input = True
        elif isinstance(step, Iterate):
            self._iterate()
        elif isinstance(step, LoseStore):
            self._lose_store()
        else:
            self._upgrade()
        self.invariants.check()

    # Airflow, and people.

    def _iterate(self) -> None:
        self.region += 1
        if self.subject.authors_keys:
            self.elapsed += GRACE  # others may use its keys; everything they have started shows by then
        self.identity = identity_of(RUN, self.region if self.is_loop else None)
        self.number, self.max_tries = 0, self.retries
        self.store: Any = None
        self.is_store_whole = self.history.has_store
        self._begin_generation()
        self.posts_before = self.server.posts

    def _begin_generation(self) -> None:
        self.generation = self.number + 1
        self.retries_at_clear = self.retries
        self._may_be_rescheduled = False
        self.label: int | None = None
        """The number that the last try computed for this generation."""
        self.is_mistaken = False
        """Whether this generation was mistaken for another one, as the guarantees allow."""

    def _clear(self, *, keeps_store: bool) -> None:
        if self.number == 0:
            return
        if not keeps_store:
            self._lose_store()
        self.max_tries = self.number + self.retries
        self._begin_generation()

    def _lose_store(self) -> None:
        self.store = None
        self.is_store_whole = False

    def _upgrade(self) -> None:
        if self.store is None:
            return
        fields = {
            each.name: each.default for each in msgspec.structs.fields(self.store) if each.name in NEW_FIELDS
        }
        old: Any = msgspec.structs.replace(self.store, **fields)
        self.store = old if self.subject.tells_of_a_start(old) or old.told else None
        self.is_store_whole = False

    def _move(self, which: int, state: str) -> None:
        open_items = [one for one in self.server.items.values() if one.is_open]
        open_items.sort(key=lambda one: one.owner is None)
        if open_items:
            self.server.move(open_items[which % len(open_items)], state)

    def _begin_foreign(self, number: int, foreign: Foreign) -> None:
        launch = 1 + number % self.history.launches
        name = "Another" if foreign.kind in ("other BPM", "custom key, other BPM") else NAME
        key = {
            "same BPM": "someone's",
            "same BPM without key": None,
            "other BPM": "someone's",
            "other run": self.subject.key(identity_of(OLDER_RUN, None), 1, launch),
            "deleted run": self.subject.key(self.identity, 1 + number % 2, launch),
            "custom key": self.subject.authors_keys.get(launch, AUTHORS_KEY),
            "custom key, other BPM": self.subject.authors_keys.get(launch, AUTHORS_KEY),
        }[foreign.kind]
        self.server.begin(name, key, foreign.state, age=foreign.age * DAY).foreign = foreign.kind

    def _owner_of(self, body: Any) -> Owner:
        launch = self.subject.launch_of(body)
        self.started.append(launch)
        return Owner(self.region, self.generation, launch)

    def _end_doubt(self) -> None:
        """Clear the task as often as its errors ask for it, and follow their advice."""
        for clears in range(MOST_CLEARS):
            if self.number > self.max_tries:
                self._clear(keeps_store=True)
            self.take(Try(later=3 * DAY))
            if self.failure is None:
                return
            assert isinstance(self.failure, ENDED_BY_A_CLEAR), repr(self.failure)
            for one in self.server.items.values() if clears >= 1 else ():
                if one.owner is not None or one.foreign in ("deleted run", "custom key"):
                    self.server.move(one, "Terminated")
            self._clear(keeps_store=True)
        raise AssertionError(f"no clear has resolved it: {self.failure!r}")

    # The process of a try.

    def _try(self, step: Try) -> None:
        self._is_repeat = step.is_rescheduled and self._may_be_rescheduled
        if self.number > self.max_tries and not self._is_repeat:
            return  # Airflow has no try left
        self.elapsed += step.later
        self.number += 0 if self._is_repeat else 1
        self.step, self.prior = step, self.store
        self._effects = self._calls = self.queries = 0
        self._is_dead = False
        self._faults, self._then = iter(step.faults), None
        self.server.lag = step.lag
        self.started, self.failure = [], None
        self.invariants.begin_try()
        try:
            self._run()
        except Died:
            pass
        except AstroZeroError as error:
            self.failure = error
        self._may_be_rescheduled = not self._is_dead and (self.failure is not None or step.ends != "dies")
        self.tally.update(tries=1, starts=len(self.started), lists=self.queries)
        self.invariants.end_try(is_dead=self._is_dead)

    def _run(self) -> None:
        """Run the operator's steps, with the record as ``task_base.task_state_record.begin`` passes it."""
        self.this = TaskTry.of(
            self.identity,
            self.prior,
            try_number=self.number,
            max_tries=self.max_tries,
            retries=self.retries,
            now=self.clock(),
            due=self.due,
            was_rescheduled=self._is_repeat,
        )
        self._note_mistakes()
        intent: Any = self.this.intent(self.prior, self.subject.kind)
        if intent != self.prior and self.history.has_store:
            self.remember(intent)
        try:
            launched, met = self.subject.run(self, self.prior)
        except AstroZeroError:
            if self.history.subject == "batch":
                self._note_failure({}, frozenset())
            raise
        self.invariants.check_launched(launched, met)
        if self.step.ends != "dies":
            good = {number for number, one in launched.items() if one.is_closed and self.subject.accepts(one)}
            self._note_failure(launched, met | good)

    def _note_mistakes(self) -> None:
        prior = self.prior
        has_no_numbers = prior is None or prior.max_tries is None
        hides_a_clear = (
            prior is not None and prior.max_tries == self.max_tries and prior.generation < self.generation
        )
        is_other = has_no_numbers and self.label not in (None, self.this.generation)
        has_changed = self.retries != self.retries_at_clear
        if is_other or ((has_no_numbers or hides_a_clear) and has_changed):
            self.is_mistaken = True
        self.label = self.this.generation

    def _note_failure(self, launched: dict[int, BpmInstance], met: frozenset[int]) -> None:
        noted = self.subject.after_failure(self.store, self.step.ends, self.this.generation, launched, met)
        if noted is not None:
            self.remember(noted)

    def remember(self, record: Any) -> None:
        """Store a record."""
        self._effect()
        self.invariants.check_record(record)
        if self.history.has_store:
            self.store = msgspec.json.decode(msgspec.json.encode(record), type=self.subject.kind)
        self._effect()

    def call(self, operation: Operation[Any]) -> Generator[float, None, Any]:
        """Send a call and resend it if allowed. Yields seconds to sleep, and returns the answer."""
        settings = Settings("my_conn", "https://x", StaticToken("t"), max_attempts=self.history.max_attempts)
        call = resending(lambda: self.send(operation), operation, settings, on_retry=lambda _words: None)
        while True:
            try:
                step = next(call)
            except StopIteration as stop:
                return stop.value
            yield 2.0 if isinstance(step, Sleep) else step

    def send(self, operation: Operation[Any]) -> Generator[float, None, Any]:
        """Send a call once."""
        self._effect()
        self._calls += 1
        if self.step.moves is not None and self.step.moves[0] == self._calls:
            self._move(*self.step.moves[1:])
        answer, error = None, None
        try:
            answer = self._answer(operation)
        except CallError as failure:
            error = failure
        if self.step.slow:
            yield self.step.slow
        self._effect()
        if error is not None:
            raise error
        return answer

    def _answer(self, operation: Operation[Any]) -> Any:
        if operation.kind == "start":
            fault = FAULTS[self._then or next(self._faults, "fine")]
            self._then = fault.then or self._then
            if fault.needs_one_attempt and self.history.max_attempts > 1:
                fault = FAULTS["fine"]
            return self.server.post(operation, fault)
        if operation.kind == "query":
            self.queries += 1
            if self.queries == self.step.query_fault:
                raise UnexpectedAnswerError("it is a page", status=200)
        return self.server.answer(operation, self.step.put_fault)

    def _effect(self) -> None:
        if self._is_dead or self._effects == self.step.dies_at:
            self._is_dead = True
            raise Died
        self._effects += 1
