"""What one search has found, which calls of it failed, and what follows from both for each instance that was sought.

A list that failed after all its attempts costs only those that it might have shown. In the order of the rows:

| sought by                    | the search                                                | then                         |
|------------------------------|-----------------------------------------------------------|------------------------------|
| its id                       | has rows of it that contradict each other                 | that error                   |
| its id                       | has found it                                              | the instance                 |
| its id                       | has a row of it that cannot be read                       | that error                   |
| its id                       | has not found it, and a list failed                       | the error of the list        |
| its id                       | has not found it, and a row shows no id                   | the error of the row         |
| its id                       | has not found it                                          | ``InstanceNotFoundError``    |
| its business key             | could not list a state at all                             | the error of the list        |
| its business key             | has a row with the key that cannot be read                | that error                   |
| its business key             | has carriers whose rows contradict each other             | that error                   |
| its business key             | has found none, and no row shows a key                    | ``KeysNotShownError``        |
| its business key             | has found none                                            | ``InstanceNotFoundError``    |
| its business key             | has found none but ended ones, and an open state's list   | that error: it may hide an   |
|                              | failed once, or a row cannot be read whose key is unread  | open one                     |
| its business key             | has found one, or one that is open                        | the instance                 |
| its business key             | has found several                                         | ``SeveralInstancesError``    |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_astrobpm.bpm import states
from airflow_provider_astrobpm.bpm.errors import (
    AstroZeroError,
    AuthenticationError,
    CallError,
    InstanceNotFoundError,
    NotSentError,
    RefusedError,
    SeveralInstancesError,
    ThrottledError,
    UnexpectedAnswerError,
)
from airflow_provider_astrobpm.bpm.sameness import doubt_between, doubts_within
from airflow_provider_astrobpm.bpm.shown_keys import ShownKeys
from airflow_provider_astrobpm.bpm.wire import length_of, unreadable_in

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.bpm.search import BusinessKey
    from airflow_provider_astrobpm.bpm.wire import Unreadable

MOST_IN_VAIN = 2
"""Calls in a row that fail as those to a server that is down do, after which a search asks for nothing more. Each of them
has had all its attempts: with time-outs, the 24 lists of a search would take an hour."""


class Findings:
    """What one search has found.

    :param last_seen: for each id that is sought the state in which it was last seen, or ``None``.
    :param keys: the business keys that are sought.
    :param wanted_lists: the states whose every instance is wanted.
    :param reads_only: whether an instance that cannot be read by its id counts as not found, whatever the lists show.
    """

    def __init__(
        self,
        last_seen: Mapping[str, str | None],
        keys: Collection[BusinessKey] = (),
        wanted_lists: Collection[str] = (),
        *,
        reads_only: bool = False,
    ) -> None:
        self.instances: dict[str, BpmInstance] = {}
        """Those that were sought by their ids and found. ``doubts`` count before them."""
        self.lists: dict[str, Sequence[BpmInstance]] = {}
        """The instances of each state that was wanted whole and could be listed, in the order of the server."""
        self.rows: dict[str, BpmInstance] = {}
        """All of these by their ids, each as the last list shows it."""
        self.doubts: dict[str, CallError] = {}
        """Why nothing is decided about an instance, by its id: its rows contradict each other."""
        self.failed_lists: dict[str, CallError] = {}
        """How the list of a state failed, where it has failed at least once."""
        self.stopped_by: CallError | None = None
        """The error after which nothing more was asked for."""
        self._last_seen = last_seen
        self._wanted_lists = wanted_lists
        self._reads_only = reads_only
        self._keys: dict[str, list[BusinessKey]] = {}
        self._carriers: dict[BusinessKey, dict[str, BpmInstance]] = {key: {} for key in keys}
        for key in self._carriers:
            self._keys.setdefault(key.value, []).append(key)
        self.shown_keys = ShownKeys()
        """What the lists show of business keys, where some are sought."""
        self._listed: set[str] = set()
        self._unreadable: list[tuple[Unreadable, UnexpectedAnswerError]] = []
        self._unread: dict[str, UnexpectedAnswerError] = {}
        self._read: dict[str, CallError | None] = {}
        self._most_rows: int | None = None
        self._has_answer = False
        self._in_vain = 0
        self._first_failure: CallError | None = None

    # What follows for those who have sought.

    def instance(self, instance_id: str) -> BpmInstance:
        """Return an instance that was sought by its id.

        :raises InstanceNotFoundError: if it is in none of the states.
        :raises CallError: if that is not known.
        """
        return _raised(self.instance_or_error(instance_id))

    def instance_or_error(self, instance_id: str) -> BpmInstance | CallError | InstanceNotFoundError:
        """Return what ``instance`` returns or raises. Thousands may share one error."""
        if (doubt := self.doubts.get(instance_id) or self._unread.get(instance_id)) is not None:
            return doubt
        if (found := self.instances.get(instance_id)) is not None:
            return found
        return self._why_unknown(instance_id) or self._not_found(instance_id)

    def carrier(self, key: BusinessKey) -> BpmInstance:
        """Return the instance that carries a business key: the only one, or the only one that is open.

        :raises InstanceNotFoundError: if there is none.
        :raises KeysNotShownError: if no row shows a key, so nobody can tell.
        :raises SeveralInstancesError: if the key does not say which one is meant.
        :raises CallError: if that is not known.
        """
        return _raised(self.carrier_or_error(key))

    def carrier_or_error(self, key: BusinessKey) -> BpmInstance | AstroZeroError:
        """Return what ``carrier`` returns or raises."""
        carriers = list(self._carriers[key].values())
        still_open = [row for row in carriers if not row.is_closed]
        if doubt := self._doubt_about(key, carriers, only_ended=bool(carriers) and not still_open):
            return doubt
        if not carriers and (error := self.shown_keys.why_not_found(key.value, key.bpm_name)):
            return error
        if not carriers:
            return InstanceNotFoundError(f"an instance with {key}", most_rows=self._most_rows or 0)
        if len(carriers) > 1 and len(still_open) != 1:
            return SeveralInstancesError(f"business key {key.value!r}", still_open or carriers)
        return still_open[0] if still_open else carriers[0]

    def _doubt_about(
        self, key: BusinessKey, carriers: Sequence[BpmInstance], *, only_ended: bool
    ) -> CallError | None:
        """Return the first reason why nothing is decided about a business key, if there is one.

        :param only_ended: whether an open instance would count, and those that were found do not.
        """
        for state in states.STATES:
            if state not in self._listed and (error := self.failure_of(state)):
                return error
        for row in carriers:
            if error := self.doubts.get(row.id) or self._unread.get(row.id):
                return error
        for odd, unreadable in self._unreadable:
            # With its key unread it may be any: it may hide an open instance, and is no reason to doubt one that shows.
            counts = odd.business_key == key.value or only_ended
            if counts and odd.may_be(business_key=key.value, bpm_name=key.bpm_name):
                return unreadable
        hidden = (self.failed_lists[state] for state in states.OPEN_STATES if state in self.failed_lists)
        return next(hidden, None) if only_ended else None

    def rows_of(self, state: str) -> Sequence[BpmInstance]:
        """Return the instances of a state that was wanted whole.

        :raises CallError: if it could not be listed.
        """
        if state not in self.lists and (error := self.failure_of(state)):
            raise error
        return self.lists[state]

    def failure_of(self, state: str) -> CallError | None:
        """Return why a state could not be listed, if a list of it failed or was not asked for any more."""
        return self._down() or self.failed_lists.get(state) or self.stopped_by

    @property
    def has_gaps(self) -> bool:
        """Whether a call failed that might have shown something."""
        return self._first_failure is not None

    @property
    def failure(self) -> CallError | None:
        """Why the server counts as down: it throttles, refuses or cannot be reached, or no call brought anything."""
        return self._down() or (None if self._has_answer else self._first_failure)

    def _down(self) -> CallError | None:
        return self.stopped_by if self.stopped_by is not None and _ends_all(self.stopped_by) else None

    # What the search tells.

    def take(self, state: str, rows: Sequence[BpmInstance]) -> None:
        """Take a list. An instance that moved meanwhile shows in two of them; the later one counts."""
        self._take_answer()
        self._listed.add(state)
        self._most_rows = max(self._most_rows or 0, length_of(rows))
        for odd in unreadable_in(rows):
            self._take_unreadable(state, odd)
        if state in self._wanted_lists:
            self.lists[state] = rows
            for row in rows:
                self._take_row(self.rows, row)
        if len({row.id for row in rows}) < len(rows):
            self.doubts |= doubts_within(state, rows)
        if self._last_seen or self._keys:
            self._take_sought(rows)

    def _take_sought(self, rows: Sequence[BpmInstance]) -> None:
        if self._keys:
            self.shown_keys.take(rows)
        for row in rows:
            if row.id in self._last_seen:
                self._take_row(self.instances, row)
            for key in self._keys.get(row.business_key or "", ()):
                if key.bpm_name in (None, row.name):
                    self._take_row(self._carriers[key], row)

    def _take_unreadable(self, state: str, row: Unreadable) -> None:
        which = f"the row of instance {row.id!r}" if row.id else "a row"
        error = UnexpectedAnswerError(
            f"{which} in the list of state {state!r} cannot be read, because {row.reason}"
        )
        error.advice = "What cannot be read decides nothing. Look at the instance in Astro Zero."
        self._unreadable.append((row, error))
        if row.id is not None:
            self._unread[row.id] = error

    def _take_row(self, found: dict[str, BpmInstance], row: BpmInstance) -> None:
        before = found.get(row.id)
        if before is not None and (doubt := doubt_between(before, row)):
            self.doubts.setdefault(row.id, doubt)
        found[row.id] = row

    def take_failed_list(self, state: str, error: CallError) -> None:
        """Take that a list failed."""
        self.failed_lists[state] = error
        self._take_failure(error)

    def take_read(self, instance_id: str, answer: BpmInstance | None) -> bool:
        """Take the answer to reading an instance by its id, and return whether it is that instance."""
        self._take_answer()
        self._read[instance_id] = None
        if answer is None or answer.id != instance_id:
            return False
        self.instances[instance_id] = answer
        return True

    def take_failed_read(self, instance_id: str, error: CallError) -> None:
        """Take that reading an instance by its id failed; the lists may show it all the same."""
        self._read[instance_id] = error
        if self._reads_only:
            says_something = not isinstance(error, RefusedError)
        else:
            says_something = error.came_before or isinstance(error, (NotSentError, ThrottledError))
        if says_something:
            self._take_failure(error)

    def _take_answer(self) -> None:
        self._has_answer, self._in_vain = True, 0

    def _take_failure(self, error: CallError) -> None:
        self._first_failure = self._first_failure or error
        self._in_vain = self._in_vain + 1 if error.passing or error.unreadable else 0
        if _ends_all(error) or self._in_vain >= MOST_IN_VAIN:
            self.stopped_by = error

    # What the search asks.

    def wants_list(self, state: str) -> bool:
        """Return whether a state was not listed yet whose every instance is wanted."""
        return state in self._wanted_lists and state not in self.lists and state not in self.failed_lists

    def lacking(self) -> list[str]:
        """Return the ids that were not found yet, and that another call may show."""
        decided = (self.instances, self.doubts, self._unread)
        return [one for one in self._last_seen if not any(one in each for each in decided)]

    def lacks_an_id(self) -> bool:
        """Return whether another list may still show an id that was not found yet, or show that there is none.

        Where the list failed in which an instance was last seen, it is most likely there.
        """
        return any(self._last_seen[one] not in self.failed_lists for one in self.lacking())

    def not_read(self) -> list[str]:
        """Return the ids that were neither found yet nor read."""
        return [one for one in self.lacking() if one not in self._read]

    def lacks_a_key(self) -> bool:
        """Return whether nothing was found for a key."""
        return not all(self._carriers.values())

    def lacks_an_open_carrier(self) -> bool:
        """Return whether nothing but ended instances were found for a key."""
        return any(all(row.is_closed for row in rows.values()) for rows in self._carriers.values())

    def shows_what_was_read(self) -> bool:
        """Return whether something was found that reading by its id was tried for."""
        return any(one in self.instances for one in self._read)

    # Why an instance was not found.

    def _why_unknown(self, instance_id: str) -> CallError | None:
        """Return the error for which it is not known whether there is an instance, if there is one."""
        read = self._read.get(instance_id)
        if self._reads_only:
            if isinstance(read, RefusedError):
                return None
            return read or (None if instance_id in self._read else self.stopped_by)
        hint = self._last_seen.get(instance_id)
        nameless = (error for row, error in self._unreadable if row.id is None)
        return self.failure_of(hint or "") or next(iter([*self.failed_lists.values(), *nameless]), None)

    def _not_found(self, instance_id: str) -> InstanceNotFoundError:
        refusal = self._read.get(instance_id)
        missing = InstanceNotFoundError(
            f"instance {instance_id!r}", most_rows=self._most_rows or 0, refusal=refusal
        )
        if self._most_rows is None:
            missing.problem = f"instance {instance_id!r} could not be read by its id"
            missing.advice = (
                "Either there is none, or this endpoint does not read instances by id (undocumented): then set the "
                "extra 'instance_lookup' to \"list\"."
            )
        elif refusal is not None:
            missing.problem += ", and could not be read by its id either"
        return missing


def _ends_all(error: CallError) -> bool:
    """Return whether every other call would end so too: there is no server, no token, or no permission to ask now."""
    return error.came_before or isinstance(error, (NotSentError, ThrottledError, AuthenticationError))


def _raised(result: BpmInstance | AstroZeroError) -> BpmInstance:
    if isinstance(result, AstroZeroError):
        raise result
    return result
