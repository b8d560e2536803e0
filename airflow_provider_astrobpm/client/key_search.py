"""Finds all instances with the business keys of a task, and says how reliable the result is.

The documented query lists one state, without paging and without a filter, so a search lists all states. That an instance does
*not* exist is certain only on this evidence:

- The lists are complete. A server truncates all lists at the same length, so only the longest lists can be truncated. Each of
  those must show the same rows in both orders, or be ordered newest first and reach back beyond the start.
- The lists show business keys, and no key there resembles the missing one.
- No instance was missed because it moved between two queries. All states are listed twice and the open states four times
  more, each time in another order. An instance that moves back and forth within a second is then missed once in a thousand
  searches. If one pass misses an instance that the passes before and after it show, listing demonstrably misses instances
  here; then the open states are listed again until a pass misses none.
"""

from __future__ import annotations

import random
import time
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.client import operations, states, timestamps
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.shown_keys import ShownKeys
from airflow_provider_astrobpm.client.timestamps import Placement
from airflow_provider_astrobpm.client.wire import UNKNOWN_STATE, row_count, unreadable_in

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from airflow_provider_astrobpm.client.operations import Flow
    from airflow_provider_astrobpm.client.wire import UnreadableRow

FEWEST_PASSES = 6  # before an instance counts as missing: two over all states, four over the open states
MAX_EXTRA_PASSES = 4  # further passes over the open states while passes miss instances


@dataclass(eq=False)
class KeyMatches:
    """The instances that a search by business keys found."""

    wanted: Callable[[BpmInstance], bool]
    """Returns whether an instance has a requested key."""
    _: KW_ONLY
    resembles: Callable[[str | None], bool] = lambda _key: False
    """Returns whether a business key may be a requested one that the server changed."""
    clock: Callable[[], float] = time.time
    """Returns the time, in seconds since the epoch."""
    instances: dict[str, BpmInstance] = field(default_factory=dict, init=False)
    """The matches, by id."""
    resembling: dict[str, BpmInstance] = field(default_factory=dict, init=False)
    """The instances whose keys resemble a requested one, by id."""
    truncated_lists: dict[str, tuple[Sequence[BpmInstance], bool]] = field(default_factory=dict, init=False)
    """The lists that may be truncated: by state the rows, and whether the server was seen to order them newest first."""
    are_unsteady: bool = field(default=False, init=False)
    """Whether instances move faster than they can be listed."""
    clock_is_credible: bool = field(default=False, init=False)
    """Whether the lists prove that the server's clock is right."""
    _unreadable: list[UnreadableRow] = field(default_factory=list, init=False)
    _keys: ShownKeys = field(default_factory=ShownKeys, init=False)

    @property
    def has_open(self) -> bool:
        """Whether one of the matches is open."""
        return any(not one.is_closed for one in self.instances.values())

    def add_list(self, rows: Sequence[BpmInstance]) -> None:
        """Add a list. An instance that moves during the search appears twice; the later row counts."""
        if not self.clock_is_credible:
            stamps = (row.start_time for row in rows)
            self.clock_is_credible = timestamps.is_clock_credible(stamps, self.clock())
        self._unreadable += unreadable_in(rows)
        self._keys.add_list(rows)
        for row in rows:
            if self.wanted(row):
                self.instances[row.id] = row
            elif self.resembles(row.business_key):
                self.resembling[row.id] = row

    def place(self, instance: BpmInstance, moment: float | None) -> Placement:
        """Return whether an instance was started before a moment, in seconds since the epoch. Without one, it counts as since."""
        if moment is None:
            return Placement.SINCE
        return timestamps.place(
            instance.start_time, moment, self.clock(), clock_is_credible=self.clock_is_credible
        )

    def doubt(self, bpm_name: str, since: float | None, *, any_open_counts: bool = False) -> str | None:
        """Return why an instance that was not found may still exist, or ``None`` if it cannot.

        :param bpm_name: the name of its BPM.
        :param since: the earliest time of its start, in seconds since the epoch, if that is known.
        :param any_open_counts: whether an open instance counts, regardless of its start time.
        """
        if no_keys := self.why_keyless([bpm_name]):
            return no_keys
        for one in self.resembling.values():
            counts = (any_open_counts and not one.is_closed) or not self._was_before(one, since)
            if one.name == bpm_name and counts:
                return f"{one} shows business key {one.business_key!r}, which may be the sent key, changed by the server"
        return self.why_incomplete(since, bpm_name, any_open_counts=any_open_counts)

    def why_keyless(self, bpm_names: Collection[str] | None = None) -> str | None:
        """Return a message if the lists show instances of these BPMs, or of any, but no business keys; otherwise ``None``."""
        is_keyless = not self._keys.is_proven and self._keys.has_keyless(bpm_names)
        return "the lists show no business keys here" if is_keyless else None

    def why_incomplete(
        self, since: float | None, bpm_name: str | None = None, *, any_open_counts: bool = False
    ) -> str | None:
        """Return why the lists may be missing an instance that was started since a moment, or ``None`` if they are complete.

        :param bpm_name: the name of its BPM, if only its instances count.
        :param any_open_counts: whether open instances count, regardless of their start time.
        """
        for row in self._unreadable:
            if self._may_be_wanted(row, bpm_name):
                return f"a row of the lists cannot be read, because {row.reason}, and it may belong to this instance"
        for state, (rows, is_newest_first) in self.truncated_lists.items():
            is_open = any_open_counts and not states.is_terminal(state)
            if is_open or not (is_newest_first and self._was_before(rows[-1], since)):
                return f"the list of state {state!r} may be cut off at its {row_count(rows)} rows"
        if self.are_unsteady:
            return "instances move from state to state faster than they can be listed"
        return None

    def _may_be_wanted(self, row: UnreadableRow, bpm_name: str | None) -> bool:
        if row.id in self.instances or not row.may_be(bpm_name=bpm_name):
            return False
        if "businessKey" in row.unread or self.resembles(row.business_key):
            return True
        if not self._keys.is_proven and row.business_key in (None, row.id):
            return True
        name = bpm_name or row.name or ""
        return self.wanted(
            BpmInstance(id=row.id or "", name=name, state=UNKNOWN_STATE, business_key=row.business_key)
        )

    def _was_before(self, instance: BpmInstance, since: float | None) -> bool:
        return since is not None and self.place(instance, since) is Placement.BEFORE


def find_matches(
    matches: KeyMatches,
    *,
    is_enough: Callable[[KeyMatches], bool] = lambda matches: matches.has_open,
    shuffle: Callable[[list[str]], None] = random.shuffle,
) -> Flow[KeyMatches]:
    """Find all instances with the requested business keys, as thoroughly as the documented query allows.

    :param is_enough: returns whether the search can stop, because anything it may have missed no longer matters.
    :raises CallError: if a call fails.
    """
    every_state, open_states = list(states.STATES), list(states.OPEN_STATES)
    first = yield from list_matches(every_state, matches)
    if is_enough(matches):
        return matches
    shuffle(every_state)
    second = yield from list_matches(every_state, matches)
    yield from check_longest_lists(second, matches)
    passes = [_open_ids(first), _open_ids(second)]
    while not is_enough(matches) and len(passes) < FEWEST_PASSES + MAX_EXTRA_PASSES:
        shuffle(open_states)
        passes.append(_open_ids((yield from list_matches(open_states, matches))))
        if len(passes) >= FEWEST_PASSES and not _have_missed_any(passes[-4:]):
            return matches
    matches.are_unsteady = True
    return matches


def list_matches(where: Iterable[str], matches: KeyMatches) -> Flow[dict[str, Sequence[BpmInstance]]]:
    """List states once, and return their rows.

    :raises CallError: if a call fails.
    """
    lists: dict[str, Sequence[BpmInstance]] = {}
    for state in where:
        lists[state] = rows = yield operations.query(state)
        matches.add_list(rows)
    return lists


def check_longest_lists(lists: dict[str, Sequence[BpmInstance]], matches: KeyMatches) -> Flow[None]:
    """Check whether the longest lists are complete, because those are the ones that a server truncates.

    :param lists: the rows of all states.
    :raises CallError: if a call fails.
    """
    longest = max(row_count(rows) for rows in lists.values())
    for state, rows in lists.items():
        if longest and row_count(rows) == longest:
            yield from _check_whole(state, rows, matches)


def _open_ids(lists: dict[str, Sequence[BpmInstance]]) -> set[str]:
    return {row.id for rows in lists.values() for row in rows if not row.is_closed}


def _have_missed_any(passes: list[set[str]]) -> bool:
    """Return whether a pass missed an instance that the passes before and after it show."""
    return any(
        (before & after) - between
        for before, between, after in zip(passes, passes[1:], passes[2:], strict=False)
    )


def _check_whole(state: str, rows: Sequence[BpmInstance], matches: KeyMatches) -> Flow[None]:
    """Check one list by requesting it in the other order, or ordered by id if all its instances started at the same time."""
    oldest_first = yield operations.query(state, order_type="asc")
    matches.add_list(oldest_first)
    newest, oldest = ([row.start_time or "" for row in each] for each in (rows, oldest_first))
    is_ordered = _is_ordered(newest, oldest)
    if _ids(rows) == _ids(oldest_first) and (row_count(rows) == 1 or is_ordered):
        return
    if len({row.start_time for row in rows}) == 1:
        descending = yield operations.query(state, order_field="id", order_type="desc")
        ascending = yield operations.query(state, order_field="id", order_type="asc")
        matches.add_list(ascending)
        ids_are_ordered = _is_ordered([row.id for row in descending], [row.id for row in ascending])
        if ids_are_ordered and _ids(descending) == _ids(ascending):
            return
    matches.truncated_lists[state] = rows, is_ordered


def _ids(rows: Sequence[BpmInstance]) -> set[str | None]:
    """Return the ids of all rows, including unreadable ones."""
    return {row.id for row in rows} | {row.id for row in unreadable_in(rows)}


def _is_ordered(descending: list[str], ascending: list[str]) -> bool:
    """Return whether the server was seen to order two lists of the same state."""
    return (
        len(set(descending)) > 1
        and descending == sorted(descending, reverse=True)
        and ascending == sorted(ascending)
    )
