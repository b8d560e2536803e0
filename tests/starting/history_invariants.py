"""The invariants of all histories.

**Invariants.** At every moment:

1. A generation of a task has one live instance at most, for each launch.
2. A try adopts only instances that this task has started: never one of another task, another run, another
   iteration of a loop, or a deleted run with the same keys.
3. An instance that a try returns exists, is open or accepted, and is of this generation; or it is older and was left open
   on purpose, or belongs to a batch that the clear resumes.
4. A try never terminates what others have started, nor what this generation has started, nor anything with
   ``terminate_on_kill=False``, nor anything at all while the generation is uncertain.
5. A try starts a launch at most once.
6. If no start of the task was ever sent, and its records prove it, a try without faults starts without a search.
7. After any history with a store, clears that keep the store, by a person who follows the errors' advice, resolve every
   ``AmbiguousStartError``.
8. On a server that behaves as documented, without custom keys, a try without faults never fails.

**Assumed away** are the cases that ``docs/guarantees.md`` lists:

- The server does the work, answers 429 or refuses the token, and processes the resent start of the same try.
- Instances show within the grace. During a search an instance moves at most once.
- The error of the server's clock is constant.
- A deleted run's instances are recognised by their time alone. So 2 and 3 exempt instances that, by the server's clock, seem
  to be started at most 14 hours before the recorded start, or before the run. If no start is recorded, 2 to 4 exempt them.
- ``if_open_instance_exists="adopt"`` adopts what others have started. While a start with the custom key may be under way,
  no one else starts an instance with that key.
- Without a record, ``retries`` that were changed since the last clear seem to be a clear, or hide one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.client.instance import BpmInstance
from tests.starting.history import HOUR, Server
from tests.starting.history_server import Item, Owner
from tests.starting.history_subjects import AUTHORS_KEY, NAME

if TYPE_CHECKING:
    from tests.starting.history_world import World

ZONES = 14 * HOUR


class Invariants:
    """Checks one world, and remembers the facts about its past that the checks need.

    :param world: the world.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._history = world.history
        self._wrongs: list[str] = []
        self._excused: set[Owner] = set()
        """Owners that may have a second live instance, according to the guarantees."""
        self._did_clock_seem_right = False
        self._open_before: set[str] = set()
        self._matches: list[Item] = []
        self._is_proven = False
        self._posts = 0

    def check(self) -> None:
        """Check the last step.

        :raises AssertionError: if it broke an invariant.
        """
        assert not self._wrongs, "; ".join(self._wrongs)

    def begin_try(self) -> None:
        """Note the state before a try."""
        self._did_clock_seem_right = self._does_clock_seem_right()
        self._open_before = {one.id for one in self._world.server.items.values() if one.is_open}
        self._matches = self._open_matches()
        self._is_proven = self._is_proven_unsent()
        self._posts = self._world.server.posts

    def end_try(self, *, is_dead: bool) -> None:
        """Check the effects of a try.

        :param is_dead: whether its process was killed.
        """
        world, wrongs = self._world, self._wrongs
        self._check_live()
        if len(world.started) != len(set(world.started)):
            wrongs.append("a launch was started twice in one try")
        still_open = [one for one in self._matches if one.is_open and not one.is_the_tasks]
        if still_open and world.started and self._history.mode in ("adopt", "fail"):
            wrongs.append(f"one was started though there was {still_open}")
        if is_dead or not self._is_without_faults():
            return
        if self._is_proven and (world.failure or world.queries or world.server.posts == self._posts):
            wrongs.append(f"a task that has started nothing lists {world.queries} times, {world.failure!r}")
        if world.failure is not None and self._is_plain():
            wrongs.append(f"a try without faults failed: {world.failure!r}")

    def check_termination(self, item: Item) -> None:
        """Check that an instance may be terminated."""
        world, prior = self._world, self._world.prior
        if item.is_the_tasks:
            return
        if item.owner is None:
            if not self._may_be_taken(item):
                self._wrongs.append(f"{item} was terminated, but others had started it")
            return
        may_mistake = any(map(self._may_be_taken, world.server.items.values()))
        is_forgotten = item.is_known_by_record and not world.is_store_whole
        if may_mistake or is_forgotten or world.is_mistaken:
            return
        if (
            not world.this.generation_is_certain
            or (self._history.keeps_open and not self._has_another(item))
            or item.owner[:2] == (world.region, world.generation)
            or item.owner.region != world.region
            or (getattr(prior, "left_open", False) and prior.instance_id == item.id)
        ):
            self._wrongs.append(f"{item} was terminated, by {world.this} {prior}")

    def check_record(self, record: Any) -> None:
        """Check the instance in a record that a try has written."""
        instance_id, store = getattr(record, "instance_id", None), self._world.store
        if instance_id is None or record.told:
            return
        if getattr(store, "instance_id", None) != instance_id or store.generation != record.generation:
            self._check_owner(1, self._world.server.items[instance_id])

    def check_launched(self, launched: dict[int, BpmInstance], met: frozenset[int]) -> None:
        """Check the instances that a try returns.

        :param met: the launches that have met the condition before.
        """
        for number, instance in launched.items():
            item = self._world.server.items[instance.id]
            if item.is_called:
                self._wrongs.append(f"{item} was returned, but another instance has called it")
            # An instance that this try has started is judged by its wait.
            is_good = self._world.subject.accepts(instance) or number in {*met, *self._world.started}
            is_taken = item.owner is None and self._may_be_taken(item)
            if instance.is_closed and not is_good and not is_taken:
                self._wrongs.append(f"{item} was returned, but it has not succeeded")
            self._check_owner(number, item)

    def _check_owner(self, number: int, item: Item) -> None:
        """Check that a launch may adopt an instance. From then on it is of this generation."""
        world = self._world
        was_open = item.is_open or item.id in self._open_before
        own = Owner(world.region, world.generation, number)
        if item.is_the_tasks:
            return
        if self._history.mode == "adopt" and item.key == AUTHORS_KEY and was_open:
            item.is_the_tasks = item.owner is None or item.owner.region != world.region
        elif item.owner is None:
            if not self._may_be_taken(item):
                self._wrongs.append(f"{item} was adopted, but others had started it")
            self._excused.add(own)
            return
        if item.owner != own and not item.is_the_tasks:
            if not self._may_be_older(item, number, was_open=was_open):
                self._wrongs.append(
                    f"{item} was returned for launch {number} of generation {world.generation}"
                )
            item.owner = own
            item.is_known_by_record = True

    def _check_live(self) -> None:
        world, live = self._world, dict[Owner, Item]()
        was_asked = getattr(world.prior, "told", False)
        looks_cleared = world.is_mistaken and (world.subject.authors_keys or was_asked)
        for one in world.server.items.values():
            if one.owner is None or not one.is_open or one.is_called:
                continue
            if looks_cleared:
                self._excused.add(one.owner)
            if one.owner in live and one.owner not in self._excused:
                self._wrongs.append(f"two live instances: {live[one.owner]} and {one}")
            live[one.owner] = one

    # Exceptions.

    def _has_another(self, item: Item) -> bool:
        """Return whether the task has another instance in place of this one, or needs it no more."""
        world = self._world
        own = Owner(world.region, world.generation, item.owner.launch if item.owner else 0)
        others = world.server.items.values()
        return (
            item.is_called
            or world.has_changed_input
            or any(one.owner == own and one.is_open for one in others)
        )

    def _may_be_older(self, item: Item, number: int, *, was_open: bool) -> bool:
        """Return whether a launch may adopt an instance of an older generation."""
        world, prior = self._world, self._world.prior
        assert item.owner is not None
        if item.owner.region != world.region or item.owner.launch != number:
            return False
        is_left = (
            self._history.keeps_open
            or self._history.mode == "adopt"
            or not world.this.generation_is_certain
            or getattr(prior, "left_open", False)
        )
        is_gone_on_with = (
            getattr(prior, "unfinished", False) or getattr(prior, "goes_on_from", None) is not None
        )
        return (was_open and is_left) or is_gone_on_with or world.is_mistaken

    def _may_be_taken(self, item: Item) -> bool:
        """Return whether an instance of a deleted run is indistinguishable from one of this run."""
        if item.foreign != "deleted run":
            return False
        seems, since = self._world.server.seems_to_be_from(item), self._world.this.since
        began = self._world.subject.tells_of_a_start(self._world.prior) or None
        if began is not None and since is not None:
            return seems is not None and seems >= min(began, since) - ZONES - 1
        return seems is None or since is None or seems >= since - ZONES or not self._did_clock_seem_right

    def _does_clock_seem_right(self) -> bool:
        if self._history.server.unreadable or self._world.step.moves is not None:
            return False  # the instance that would show it may be unreadable, or missed while it moves
        stamps = map(self._world.server.seems_to_be_from, self._world.server.items.values())
        return any(each is not None and abs(each - self._world.clock()) <= ZONES for each in stamps)

    def _open_matches(self) -> list[Item]:
        """Return the open instances of others with the custom key, unless a person was asked about them."""
        if getattr(self._world.prior, "told", False):
            return []
        return [
            one
            for one in self._world.server.items.values()
            if one.owner is None
            and one.key == AUTHORS_KEY
            and one.name == NAME
            and one.is_open
            and one.shows_from <= self._world.clock()
        ]

    # Conditions of stricter checks.

    def _is_proven_unsent(self) -> bool:
        """Return whether no start of the task was ever sent, and its records prove it."""
        world, prior = self._world, self._world.prior
        return (
            world.is_store_whole
            and (prior is not None or world.number == 1)
            and world.server.posts == world.posts_before
            and self._history.mode in (None, "start")
            and not self._history.own_keys
            and not getattr(prior, "older_unknown", False)
            and world.subject.tells_of_a_start(prior) is None
            and getattr(prior, "goes_on_from", None) is None
        )

    def _is_without_faults(self) -> bool:
        step = self._world.step
        return all(each == "fine" for each in step.faults) and (
            step.query_fault is None and step.moves is None and step.put_fault is None
        )

    def _is_plain(self) -> bool:
        world, history = self._world, self._history
        return (
            history.server == Server(clock_off=history.server.clock_off)
            and abs(history.server.clock_off) <= ZONES / HOUR
            and world.is_store_whole
            and history.mode is None
            and not history.own_keys
            and not world.has_changed_retries
            and not world.has_changed_input
            and not any(each.kind in ("deleted run", "same BPM without key") for each in history.foreign)
        )
