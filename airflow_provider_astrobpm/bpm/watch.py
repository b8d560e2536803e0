"""A watch: it sees which instances of a process enter a place, look by look, and never ends by itself.

Astro Zero tells of no entries; it lists what is in a state. So a watch compares two looks: what is in a place now and was
not there before has entered. What it has seen it keeps as marks, which can be written down and read after a restart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.bpm.places import MISSING_GRACE_SECONDS, instance_digest
from airflow_provider_astrobpm.bpm.search import looks_capped
from airflow_provider_astrobpm.bpm.wait import AnyWait
from airflow_provider_astrobpm.bpm.wire import length_of, unreadable_in

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from airflow_provider_astrobpm.bpm.errors import CallError
    from airflow_provider_astrobpm.bpm.findings import Findings
    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.bpm.places import Places
    from airflow_provider_astrobpm.bpm.search import Sought


PATIENCE = 600.0  # seconds of failed polls after which the connection is worth reading again


class Entry(NamedTuple):
    """An instance that has entered a place."""

    mark: str
    instance: BpmInstance


class Watch(AnyWait[None]):
    """What a watch has seen, and what of it was not reported yet.

    Refused credentials end it, and polls that have failed for long. It is resumed when the connection was read again.

    Whoever watches takes ``entries``, reports them, says so with ``reported``, and writes ``marks`` down.

    :param places: what is watched.
    :param marks: what had been reported before; ``None`` where nothing is known, so that the first look begins it.
    :param include_existing: whether what the first look finds counts as having entered.
    """

    def __init__(
        self, places: Places, marks: Iterable[str] | None = None, *, include_existing: bool = False
    ) -> None:
        super().__init__(None, PATIENCE)
        self._places = places
        self._has_begun = marks is not None
        self._include_existing = include_existing
        self._digests: dict[str, str] = {}
        self._absent_since: dict[str, float] = {}
        self._capped: set[str] = set()
        self._has_looked = False
        self.marks: set[str] = set(marks or ())
        """What was there before, or was reported."""
        self.entries: list[Entry] = []
        """What has entered and was not reported, state by state, in the order in which it was started."""
        self.looks = 0
        """How many polls have shown all lists."""
        self.is_saved = True
        """Whether the marks are written down as they are; whoever does that says so here."""

    @property
    def size(self) -> int:
        """How many instances the last look showed."""
        return len(self._digests)

    def has_news(self) -> bool:
        """Tell whether there is something to log, or a look has brought something to report or to write down."""
        return super().has_news() or (self._has_looked and (bool(self.entries) or not self.is_saved))

    def acknowledge(self) -> None:
        """Take that somebody deals with what the last look has brought; what is left counts again after the next."""
        self._has_looked = False

    def seek(self, sought: Sought) -> None:
        """Add the lists that show the places."""
        sought.lists.update(self._places.lists)

    def reported(self, marks: Collection[str]) -> None:
        """Take that the entries with these marks were reported."""
        self.marks.update(marks)
        self.entries = [entry for entry in self.entries if entry.mark not in marks]
        self.is_saved = self.is_saved and not marks

    def _take(self, findings: Findings, began: float, now: float) -> CallError | None:
        there: set[str] = set()
        doubtful: set[str | None] = {instance_digest(one) for one in findings.doubts}
        entries: dict[str, Entry] = {}
        failed = [state for state in self._places.lists if state not in findings.lists]
        failure = findings.failure_of(failed[0]) if failed else None
        if len(failed) == len(self._places.lists) or (failed and not self._has_begun):
            return failure  # At the beginning what is in a list that failed would count as new once it shows.
        before, self._digests = self._digests, {}
        for state in self._places.lists:
            rows = findings.lists.get(state, ())
            self._tell_of_cap(state, length_of(rows))
            unreadable = [row for row in unreadable_in(rows) if row.may_be(bpm_name=self._places.bpm_name)]
            doubtful |= {None if row.id is None else instance_digest(row.id) for row in unreadable}
            for row in reversed(rows):  # they come newest first
                if row.name != self._places.bpm_name:
                    continue
                digest = self._digests[row.id] = before.get(row.id) or instance_digest(row.id)
                if row.id in findings.doubts:
                    continue
                for mark in self._places.entry_keys_of(row, digest):
                    there.add(mark)
                    if mark not in self.marks:
                        entries[mark] = Entry(mark, row)
        if not self._has_begun:
            entries = self._begin(entries)
        self._forget(there, failed, doubtful, now)
        self.entries = [*entries.values()]
        self.looks += failure is None
        self._has_looked = True
        return failure

    def _begin(self, there: dict[str, Entry]) -> dict[str, Entry]:
        """Begin with what is there, and return what of it counts as having entered."""
        self._has_begun, self.is_saved = True, False
        count = "count as new" if self._include_existing else "do not count"
        self._note(f"Watching {self._places}; {len(there)} are there already and {count}")
        if self._include_existing:
            return there
        self.marks.update(there)
        return {}

    def _forget(
        self, there: set[str], failed: Collection[str], doubtful: set[str | None], now: float
    ) -> None:
        """Forget what has left its place. What a list that failed may show is neither there nor absent.

        :param there: the marks of what is in its place.
        :param failed: the states whose lists failed.
        :param doubtful: the digests of instances of which this poll decides nothing, and ``None`` for one that may be any:
            they may be where they were.
        """
        hidden = {mark for mark in self.marks - there if failed and self._places.may_be_hidden(mark, failed)}
        absent = self.marks - there - hidden
        since = {mark: self._absent_since.get(mark, now) for mark in absent}
        seen = frozenset(self._digests.values()) if since else frozenset()
        left = {
            mark
            for mark in absent
            if now - since[mark] >= MISSING_GRACE_SECONDS
            or (
                doubtful.isdisjoint({None, mark[2:]}) and self._places.has_left(mark, seen, now - since[mark])
            )
        }
        kept = {mark: moment for mark, moment in self._absent_since.items() if mark in hidden}
        self._absent_since = kept | {mark: moment for mark, moment in since.items() if mark not in left}
        if left:
            self.marks -= left
            self.is_saved = False

    def _tell_of_cap(self, state: str, rows: int) -> None:
        if looks_capped(rows) and state not in self._capped:
            self._capped.add(state)
            self._note(
                f"The list of state {state!r} has exactly {rows} rows and looks cut off: instances that were started "
                "before those may enter unseen",
                warning=True,
            )
