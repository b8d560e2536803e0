"""Runs a history, and holds what must be true of every one.

**Invariants.** At every moment:

1. A generation of a task has one live instance at most, for each launch.
2. A try goes on only with what this task has started: never with an instance of another task, another run, another
   iteration of a loop, or a deleted run with the same keys.
3. What a try returns exists, is open or accepted, and is of this generation; or it is of an older one and was left open
   on purpose, or belongs to a batch that the clear goes on with.
4. What others have started is never terminated, nor what this generation has started, nor anything with
   ``terminate_on_kill=False``, nor anything at all where the generation is uncertain.
5. A try starts a launch once.
6. Where no start of the task was ever sent, and its records prove that, a try without faults starts without a search.
7. After any history with a store, clears that keep the store, and a person who does as the errors say, end every
   ``AmbiguousStartError``.
8. On a server that is as documented, with keys of the task's own, a try without faults never fails.

**What is assumed away** is what ``docs/guarantees.md`` lists:

- The server does the work, answers 429 or refuses the token, and takes the start again in the same try.
- Instances show within the grace. No instance moves to and fro while a search is under way: one moves once.
- The server's clock is wrong by the same amount all the time.
- A deleted run's instances are told by their time alone. So 2 and 3 leave out what seems to be started, by the server's
  clock, at most 14 hours before the start that the records tell of, or the run; and 2 to 4, where no record tells of one.
- ``if_open_instance_exists="adopt"`` takes what others have started. While a start with the author's key may be under way,
  nobody else starts one with that key.
- Without a record ``retries`` that were changed since the last clear look like a clear, or hide one.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator
from itertools import count
from typing import Any

import msgspec

from airflow_provider_astrobpm.bpm import retry
from airflow_provider_astrobpm.bpm.api import Operation
from airflow_provider_astrobpm.bpm.errors import (
    AmbiguousStartError,
    AstroZeroError,
    BatchChangedError,
    CallError,
    OpenInstanceExistsError,
    UnexpectedAnswerError,
)
from airflow_provider_astrobpm.bpm.generation import Generation
from airflow_provider_astrobpm.bpm.instance import BpmInstance
from airflow_provider_astrobpm.bpm.try_record import (
    TryRecord,
    began_at_earliest,
    generation_by_record,
    with_intent,
)
from tests.bpm.history import (
    DAY,
    GRACE,
    HOUR,
    Clear,
    Foreign,
    History,
    Input,
    Iterate,
    LoseStore,
    Move,
    Retries,
    Server,
    Step,
    Try,
    Upgrade,
)
from tests.bpm.history_server import FAULTS, HistoryServer, Item, Owner
from tests.bpm.history_subjects import AUTHORS_KEY, NAME, Batch, Died, One, identity_of

BEGINNING = 1_790_000_000.0  # 2026-09-21, in seconds since the epoch
RUN, OLDER_RUN = "scheduled__2026-11-24T00:00:00+00:00", "scheduled__2026-11-23T00:00:00+00:00"
ZONES = 14 * HOUR
NEW_FIELDS = ("max_tries", "intent_of", "older_unknown", "key_example", "since")
MOST_CLEARS = 4
ENDED_BY_A_CLEAR = (AmbiguousStartError, OpenInstanceExistsError, BatchChangedError)


class World:
    """One history under way.

    :param history: the history.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.elapsed = 0.0
        self.server = HistoryServer(history.server, self.clock, self._owner_of, history.seed)
        self.server.terminating = self._check_termination
        self.subject: Any = One(history) if history.subject == "one" else Batch(history)
        self.due = None if history.run_age is None else BEGINNING - history.run_age * DAY
        self.since: float | None = None
        self.retries, self.has_changed_retries = history.retries, False
        self.has_changed_input = False
        self.is_loop = any(isinstance(step, Iterate) for step in history.steps)
        self.region = -1
        self.wrongs: list[str] = []
        self.excused: set[Owner] = set()
        """Where a second live instance is, as the guarantees say."""
        self._iterate()
        for number, foreign in enumerate(history.foreign):
            self._begin_foreign(number, foreign)
        # Of the try under way.
        self.step = Try()
        self.this = Generation(1)
        self.prior: Any = None
        self.effects = self.calls = self.looks = 0
        self.is_dead = False
        self.is_excused = False
        self.faults: Iterator[str] = iter(())
        self.then: str | None = None

    def clock(self) -> float:
        """Return the time, in seconds since the epoch."""
        return BEGINNING + self.elapsed

    def run(self) -> None:
        """Run the history to its end.

        :raises AssertionError: if an invariant does not hold.
        """
        random.seed(self.history.seed)  # in which order a search asks
        for step in self.history.steps:
            self.take(step)
        self._check_that_clears_end_doubt()

    def take(self, step: Step) -> None:
        """Let one step happen, and check what must be true after it."""
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
        elif isinstance(step, Upgrade):
            self._upgrade()
        assert not self.wrongs, "; ".join(self.wrongs)

    # Airflow.

    def _iterate(self) -> None:
        self.region += 1
        if self.subject.authors_keys:
            self.elapsed += GRACE  # others may use its keys, and what they have started shows
        self.identity = identity_of(RUN, self.region if self.is_loop else None)
        self.number, self.max_tries, self.generation = 0, self.retries, 1
        self.retries_at_clear = self.retries
        self.label: int | None = None
        """What the last try of this generation has taken it for."""
        self.store: TryRecord | None = None
        self.is_store_whole = self.history.has_store
        self.is_mistaken = False
        """Whether this generation was taken for another one, as the guarantees say may happen."""
        self.posts_before = self.server.posts

    def _clear(self, *, keeps_store: bool) -> None:
        if self.number == 0:
            return
        if not keeps_store:
            self._lose_store()
        self.max_tries = self.number + self.retries
        self.generation = self.number + 1
        self.retries_at_clear = self.retries
        self.is_mistaken = False
        self.label = None

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
        began = old.posted_at if self.history.subject == "one" else old.begun_at
        self.store = old if began is not None or old.told or getattr(old, "instance_id", None) else None
        self.is_store_whole = False

    def _move(self, which: int, state: str) -> None:
        open_items = [one for one in self.server.items.values() if one.is_open]
        open_items.sort(key=lambda one: one.owner is None)
        if open_items:
            self.server.move(open_items[which % len(open_items)], state)

    def _begin_foreign(self, number: int, foreign: Foreign) -> None:
        launch = 1 + number % self.history.launches
        name = "Another" if foreign.kind in ("other BPM", "author's key, other BPM") else NAME
        key = {
            "same BPM": "someone's",
            "same BPM without key": None,
            "other BPM": "someone's",
            "other run": self.subject.key(identity_of(OLDER_RUN, None), 1, launch),
            "deleted run": self.subject.key(self.identity, 1 + number % 2, launch),
            "author's key": self.subject.authors_keys.get(launch, AUTHORS_KEY),
            "author's key, other BPM": self.subject.authors_keys.get(launch, AUTHORS_KEY),
        }[foreign.kind]
        self.server.begin(name, key, foreign.state, age=foreign.age * DAY).foreign = foreign.kind

    def _owner_of(self, body: Any) -> Owner:
        launch = self.subject.launch_of(body)
        owner = Owner(self.region, self.generation, launch)
        self.started.append(launch)
        return owner

    # A try.

    def _try(self, step: Try) -> None:
        if self.number > self.max_tries:
            return  # Airflow has no try left
        self.elapsed += step.later
        self.number += 1
        self.step, self.prior = step, self.store
        self.effects = self.calls = self.looks = 0
        self.is_dead = False
        self.faults, self.then = iter(step.faults), None
        self.server.lag = step.lag
        self.started: list[int] = []
        self.did_clock_seem_right = self._clock_seems_right()
        self.open_before = {one.id for one in self.server.items.values() if one.is_open}
        posts = self.server.posts
        carriers = [] if getattr(self.prior, "told", False) else self._open_carriers()
        is_proven = self._is_proven_unsent()
        failure: AstroZeroError | None = None
        try:
            self._run()
        except Died:
            failure = None
        except AstroZeroError as error:
            failure = error
        self.failure = failure
        self._check_live()
        if len(self.started) != len(set(self.started)):
            self.wrongs.append("a launch was started twice in one try")
        if (
            any(one.is_open and not one.is_the_tasks for one in carriers)
            and self.started
            and self.history.mode in ("adopt", "fail")
        ):
            self.wrongs.append(f"one was started though there was {carriers}")
        if not self._is_without_faults(step):
            return
        if is_proven and (failure or self.looks or self.server.posts == posts):
            self.wrongs.append(f"a task that has started nothing looks {self.looks} times, {failure!r}")
        if failure is not None and self._is_plain():
            self.wrongs.append(f"a try without faults failed: {failure!r}")

    def _run(self) -> dict[int, BpmInstance]:
        self.this = generation_by_record(
            self.prior, try_number=self.number, max_tries=self.max_tries, retries=self.retries
        )
        self.since = began_at_earliest(self.prior, try_number=self.number, now=self.clock(), due=self.due)
        has_no_numbers = self.prior is None or self.prior.max_tries is None
        hides_a_clear = (
            self.prior is not None
            and self.prior.max_tries == self.max_tries
            and self.prior.generation < self.generation
        )
        if has_no_numbers and self.label not in (None, self.this.number):
            self.is_mistaken = True
        self.label = self.this.number
        if (has_no_numbers or hides_a_clear) and self.retries != self.retries_at_clear:
            self.is_mistaken = True
        intent = with_intent(
            self.prior,
            self.subject.kind,
            generation=self.this.number,
            max_tries=self.max_tries,
            try_number=self.number,
            since=self.since,
            is_certain=self.this.is_certain,
        )
        if intent != self.prior and self.history.has_store:
            self.remember(intent)
        launched: dict[int, BpmInstance] = {}
        met: frozenset[int] = frozenset()
        is_batch = self.history.subject == "batch"
        try:
            launched, met = self.subject.run(self, self.prior)
        except AstroZeroError:
            if is_batch:
                self._note_failure({}, ())
            raise
        self._check_launched(launched, met)
        if self.step.ends != "dies":
            good = {number for number, one in launched.items() if one.is_closed and self.subject.accepts(one)}
            self._note_failure(launched, met | good)
        return launched

    def _note_failure(self, launched: dict[int, BpmInstance], met: Any) -> None:
        noted = self.subject.after_failure(self.store, self.step.ends, self.this.number, launched, met)
        if noted is not None:
            self.remember(noted)

    def remember(self, record: Any) -> None:
        """Write a record down."""
        self._effect()
        if (
            getattr(record, "instance_id", None) is not None
            and not record.told
            and (
                getattr(self.store, "instance_id", None) != record.instance_id
                or getattr(self.store, "generation", None) != record.generation
            )
        ):
            self._check_owner(1, self.server.items[record.instance_id])
        if self.history.has_store:
            self.store = msgspec.json.decode(msgspec.json.encode(record), type=self.subject.kind)
        self._effect()

    def call(self, operation: Operation[Any]) -> Generator[float, None, Any]:
        """Send a call, again where it may be; yields seconds to let pass, and returns the answer."""
        limits: Any = None
        for attempt in count(1):
            try:
                return (yield from self.send(operation))
            except CallError as error:
                limits = limits or retry.policy(operation, max_attempts=0, max_wait=0)
                if not limits["retry"].predicate(error) or attempt >= self.history.max_attempts:
                    raise
            yield 2.0
        return None

    def send(self, operation: Operation[Any]) -> Generator[float, None, Any]:
        """Send a call once."""
        self._effect()
        self.calls += 1
        if self.step.moves is not None and self.step.moves[0] == self.calls:
            self._move(*self.step.moves[1:])
        answer, error = None, None
        try:
            if operation.kind == "start":
                fault = FAULTS[self.then or next(self.faults, "fine")]
                self.then = fault.then or self.then
                if fault.needs_one_attempt and self.history.max_attempts > 1:
                    fault = FAULTS["fine"]
                answer = self.server.post(operation, fault)
            else:
                answer = self._ask(operation)
        except CallError as failure:
            error = failure
        if self.step.slow:
            yield self.step.slow
        self._effect()
        if error is not None:
            raise error
        return answer

    def _ask(self, operation: Operation[Any]) -> Any:
        if operation.kind == "query":
            self.looks += 1
            if self.looks == self.step.query_fault:
                raise UnexpectedAnswerError("it is a page", status=200)
        return self.server.answer(operation, self.step.put_fault)

    def _effect(self) -> None:
        if self.is_dead or self.effects == self.step.dies_at:
            self.is_dead = True
            raise Died
        self.effects += 1

    # What must be true.

    def _check_live(self) -> None:
        live: dict[Owner, Item] = {}
        for one in self.server.items.values():
            if one.owner is not None and one.is_open and not one.is_called:
                looks_cleared = self.is_mistaken and (
                    self.subject.authors_keys or getattr(self.prior, "told", False)
                )
                if looks_cleared:
                    self.excused.add(one.owner)
                if one.owner in live and one.owner not in self.excused:
                    self.wrongs.append(f"two live instances: {live[one.owner]} and {one}")
                live[one.owner] = one

    def _check_termination(self, item: Item) -> None:
        if item.is_the_tasks:
            return
        if item.owner is None:
            if not self._may_be_taken(item):
                self.wrongs.append(f"{item} was terminated, which others had started")
            return
        if any(map(self._may_be_taken, self.server.items.values())):
            return
        if self.is_mistaken or (item.is_known_by_record and not self.is_store_whole):
            return
        left = self.prior is not None and getattr(self.prior, "left_open", False)
        if (
            not self.this.is_certain
            or (self.history.keeps_open and not item.is_called and not self.has_changed_input)
            or item.owner[:2] == (self.region, self.generation)
            or item.owner.region != self.region
            or (left and self.prior.instance_id == item.id)
        ):
            self.wrongs.append(f"{item} was terminated, by {self.this} {self.prior}")

    def _check_launched(self, launched: dict[int, BpmInstance], met: frozenset[int]) -> None:
        for number, instance in launched.items():
            item = self.server.items[instance.id]
            if item.is_called:
                self.wrongs.append(f"{item} was returned, which another one has called")
            # What this try has started is judged by its wait.
            is_good = self.subject.accepts(instance) or number in met or number in self.started
            if instance.is_closed and not is_good and not (item.owner is None and self._may_be_taken(item)):
                self.wrongs.append(f"{item} was returned, which has come to no good end")
            self._check_owner(number, item)

    def _check_owner(self, number: int, item: Item) -> None:
        """Check that a launch may go on with an instance; from now on it is of this generation."""
        was_open = item.is_open or item.id in self.open_before
        own = Owner(self.region, self.generation, number)
        if item.is_the_tasks:
            return
        if self.history.mode == "adopt" and item.key == AUTHORS_KEY and was_open:
            item.is_the_tasks = item.owner is None or item.owner.region != self.region
        elif item.owner is None:
            if not self._may_be_taken(item):
                self.wrongs.append(f"{item} was adopted, which others had started")
            self.excused.add(own)
            return
        if item.owner != own and not item.is_the_tasks:
            if not self._may_be_older(item, number, was_open=was_open):
                self.wrongs.append(f"{item} was returned for launch {number} of generation {self.generation}")
            item.owner = own
            item.is_known_by_record = True

    def _may_be_older(self, item: Item, number: int, *, was_open: bool) -> bool:
        assert item.owner is not None
        if item.owner.region != self.region or item.owner.launch != number:
            return False
        if was_open and (
            self.history.keeps_open
            or self.history.mode == "adopt"
            or not self.this.is_certain
            or (self.prior is not None and getattr(self.prior, "left_open", False))
        ):
            return True
        return self.is_mistaken or (
            self.prior is not None
            and (
                getattr(self.prior, "unfinished", False)
                or getattr(self.prior, "goes_on_from", None) is not None
            )
        )

    def _may_be_taken(self, item: Item) -> bool:
        """Return whether an instance of a deleted run cannot be told from one of this run."""
        if item.foreign != "deleted run":
            return False
        seems = self.server.seems_to_be_from(item)
        began = getattr(self.prior, "posted_at", None) or getattr(self.prior, "begun_at", None)
        if began is not None and self.since is not None:
            return seems is not None and seems >= min(began, self.since) - ZONES - 1
        return (
            seems is None
            or self.since is None
            or seems >= self.since - ZONES
            or not self.did_clock_seem_right
        )

    def _clock_seems_right(self) -> bool:
        if self.history.server.unreadable:
            return False  # what would show it may not be readable
        stamps = map(self.server.seems_to_be_from, self.server.items.values())
        return any(each is not None and abs(each - self.clock()) <= ZONES for each in stamps)

    def _open_carriers(self) -> list[Item]:
        """Return what shows the author's key and is open."""
        return [
            one
            for one in self.server.items.values()
            if one.owner is None
            and one.key == AUTHORS_KEY
            and one.name == NAME
            and one.is_open
            and one.shows_from <= self.clock()
        ]

    def _is_proven_unsent(self) -> bool:
        return (
            self.is_store_whole
            and (self.store is not None or self.number == 1)
            and self.server.posts == self.posts_before
            and self.history.mode in (None, "start")
            and not self.history.own_keys
            and not getattr(self.store, "older_unknown", False)
            and getattr(self.store, "posted_at", None) is None
            and getattr(self.store, "instance_id", None) is None
            and getattr(self.store, "begun_at", None) is None
            and getattr(self.store, "goes_on_from", None) is None
        )

    def _is_without_faults(self, step: Try) -> bool:
        return (
            step.dies_at is None
            and all(each == "fine" for each in step.faults)
            and step.query_fault is None
            and step.moves is None
            and step.put_fault is None
        )

    def _is_plain(self) -> bool:
        return (
            self.history.server == Server(clock_off=self.history.server.clock_off)
            and abs(self.history.server.clock_off) <= 14
            and self.is_store_whole
            and self.history.mode is None
            and not self.history.own_keys
            and not self.has_changed_retries
            and not self.has_changed_input
            and not any(each.kind in ("deleted run", "same BPM without key") for each in self.history.foreign)
        )

    def _check_that_clears_end_doubt(self) -> None:
        if not self.history.has_store:
            return
        for clears in range(MOST_CLEARS):
            if self.number > self.max_tries:
                self._clear(keeps_store=True)
            self.take(Try(later=3 * DAY))
            if self.failure is None:
                return
            assert isinstance(self.failure, ENDED_BY_A_CLEAR), repr(self.failure)
            if clears >= 1:
                self._terminate_what_shows_a_key()
            self._clear(keeps_store=True)
        raise AssertionError(f"no clear has ended it: {self.failure!r}")

    def _terminate_what_shows_a_key(self) -> None:
        for one in self.server.items.values():
            if one.owner is not None or one.foreign in ("deleted run", "author's key"):
                self.server.move(one, "Terminated")
