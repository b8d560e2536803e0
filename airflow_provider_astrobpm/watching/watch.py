"""A watch reports which instances of a process enter a watched state or business status. It never ends by itself.

Astro Zero does not report entries, it only lists what is in a state. So a watch compares two polls: an instance that is on a
target now and was not there before has entered it. It keeps what it has reported as entry keys, which can be stored and
read again after a restart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.client.search import may_be_truncated
from airflow_provider_astrobpm.client.wire import row_count, unreadable_in
from airflow_provider_astrobpm.waiting.wait import BaseWait
from airflow_provider_astrobpm.watching.targets import instance_digest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from airflow_provider_astrobpm.client.errors import CallError
    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.search import SearchRequest
    from airflow_provider_astrobpm.client.search_result import SearchResult
    from airflow_provider_astrobpm.watching.targets import WatchTargets


MAX_POLL_FAILURE_SECONDS = 600.0  # after which the connection is read again
MISSING_GRACE_SECONDS = 3600.0  # for which an unseen instance counts as overlooked, not as gone


class _Sightings(NamedTuple):
    """What the lists of one poll show on the watch targets."""

    of: SearchResult
    digests: dict[str, str]
    """The digest of each instance of the process, by its id."""
    there: dict[str, BpmInstance]
    """What is on a target, by entry key: state by state, oldest instance first."""
    doubtful: frozenset[str | None]
    """The digests of instances about which the poll decides nothing, and ``None`` for one of unknown id."""


class Watch(BaseWait[None]):
    """State of a watch: what was reported, and which entries are still to report.

    Refused credentials end it, and so does a long series of failed polls. It is resumed after the connection was read again.

    The caller takes ``entries``, reports them, calls ``mark_reported``, and stores ``entry_keys``.

    :param targets: what to watch for.
    :param entry_keys: what was reported before; ``None`` if nothing is known, so that the first poll sets the baseline.
    :param include_existing: whether instances that the first poll finds on a target count as entries.
    """

    def __init__(
        self,
        targets: WatchTargets,
        entry_keys: Iterable[str] | None = None,
        *,
        include_existing: bool = False,
    ) -> None:
        super().__init__(None, MAX_POLL_FAILURE_SECONDS)
        self._targets = targets
        self._has_begun = entry_keys is not None
        self._include_existing = include_existing
        self._digests: dict[str, str] = {}
        self._absent_since: dict[str, float] = {}
        self._capped: set[str] = set()
        self._has_polled = False
        self._sightings: _Sightings | None = None
        self.entry_keys: set[str] = set(entry_keys or ())
        """What was there at the start, or was reported."""
        self.entries: dict[str, BpmInstance] = {}
        """What has entered and was not reported yet, by entry key: state by state, oldest instance first."""
        self.polls = 0
        """How many polls have read all lists."""
        self.is_saved = True
        """Whether the stored entry keys are up to date. The caller sets it after storing them."""

    @property
    def size(self) -> int:
        """How many instances the last poll showed."""
        return len(self._digests)

    def has_news(self) -> bool:
        """Return whether there is something to log, or the last poll brought something to report or to store."""
        return super().has_news() or (self._has_polled and (bool(self.entries) or not self.is_saved))

    def acknowledge(self) -> None:
        """Note that the caller handles what the last poll brought. The rest is news again after the next poll."""
        self._has_polled = False

    def add_to_query(self, sought: SearchRequest) -> None:
        """Add the lists that show the watch targets."""
        sought.lists.update(self._targets.lists)

    def mark_reported(self, entry_keys: Collection[str]) -> None:
        """Record that the entries with these keys were reported."""
        self.entry_keys.update(entry_keys)
        for key in entry_keys:
            self.entries.pop(key, None)
        self.is_saved = self.is_saved and not entry_keys

    def rows_to_sort(self, search_result: SearchResult) -> int:
        """Return how many rows the lists of the targets have."""
        return sum(len(search_result.lists.get(state, ())) for state in self._targets.lists)

    def sort_rows(self, search_result: SearchResult) -> None:
        """Sort the rows of the lists by watch target, ahead of ``record_poll``."""
        self._sightings = self._sorted(search_result)

    def _sorted(self, search_result: SearchResult) -> _Sightings:
        digests: dict[str, str] = {}
        there: dict[str, BpmInstance] = {}
        doubtful: set[str | None] = {instance_digest(one) for one in search_result.contradictions}
        for state in self._targets.lists:
            rows = search_result.lists.get(state, ())
            unreadable = [row for row in unreadable_in(rows) if row.may_be(bpm_name=self._targets.bpm_name)]
            doubtful |= {None if row.id is None else instance_digest(row.id) for row in unreadable}
            for row in reversed(rows):  # lists show the newest instance first
                if row.name != self._targets.bpm_name:
                    continue
                digest = digests[row.id] = self._digests.get(row.id) or instance_digest(row.id)
                if row.id in search_result.contradictions:
                    continue
                for key in self._targets.entry_keys_of(row, digest):
                    there[key] = row
        return _Sightings(search_result, digests, there, frozenset(doubtful))

    def _judge_result(self, search_result: SearchResult, now: float) -> CallError | None:
        failed = [state for state in self._targets.lists if state not in search_result.lists]
        failure = search_result.failure_of(failed[0]) if failed else None
        if len(failed) == len(self._targets.lists) or (failed and not self._has_begun):
            return failure  # At the start, instances in a failed list would seem new once it can be read.
        sightings, self._sightings = self._sightings, None
        if sightings is None or sightings.of is not search_result:
            sightings = self._sorted(search_result)
        _, self._digests, there, doubtful = sightings
        for state in self._targets.lists:
            self._note_if_capped(state, row_count(search_result.lists.get(state, ())))
        # No object for each entry: garbage collection, which stops the event loop too, would have to walk through them all.
        # What has entered is still reported if it has left before Airflow took its event.
        self.entries.update((key, row) for key, row in there.items() if key not in self.entry_keys)
        if not self._has_begun:
            self._begin()
        self._forget(there, failed, doubtful, now)
        self.polls += failure is None
        self._has_polled = True
        return failure

    def _begin(self) -> None:
        """Set the baseline, and decide whether the instances found count as entries."""
        self._has_begun, self.is_saved = True, False
        fate = "are reported" if self._include_existing else "are not reported"
        self._note(f"Watching {self._targets}; {len(self.entries)} are already there and {fate}")
        if not self._include_existing:
            self.entry_keys.update(self.entries)
            self.entries = {}

    def _forget(
        self, there: Collection[str], failed: Collection[str], doubtful: frozenset[str | None], now: float
    ) -> None:
        """Forget instances that have left their target. Instances that a failed list may show count as neither there nor gone.

        ``doubtful`` has the digests of instances about which this poll decides nothing, and ``None`` for one of unknown id.
        """
        unseen = self.entry_keys.difference(there)
        hidden = {key for key in unseen if self._targets.may_be_hidden(key, failed)}
        absent = unseen - hidden
        since = {key: self._absent_since.get(key, now) for key in absent}
        seen = frozenset(self._digests.values()) if since else frozenset()
        left = {
            key
            for key in absent
            if now - since[key] >= MISSING_GRACE_SECONDS
            or (doubtful.isdisjoint({None, key[2:]}) and self._targets.has_left(key, seen))
        }
        kept = {key: moment for key, moment in self._absent_since.items() if key in hidden}
        self._absent_since = kept | {key: moment for key, moment in since.items() if key not in left}
        if left:
            self.entry_keys -= left
            self.is_saved = False

    def _note_if_capped(self, state: str, rows: int) -> None:
        if may_be_truncated(rows) and state not in self._capped:
            self._capped.add(state)
            self._note(
                f"The list of state {state!r} has exactly {rows} rows and may be truncated: instances started before those "
                "may enter unnoticed",
                warning=True,
            )
