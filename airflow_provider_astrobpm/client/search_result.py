"""The result of one search: what it found, which of its calls failed, and what that means for each requested instance.

A list that failed after all its attempts affects only the instances that it might have shown. The first row that applies
decides:

| searched by                  | the search                                                | result                       |
|------------------------------|-----------------------------------------------------------|------------------------------|
| id                           | found rows that contradict each other                     | that error                   |
| id                           | found the instance                                        | the instance                 |
| id                           | found an unreadable row with the id                       | that error                   |
| id                           | did not find it, and a list failed                        | the error of the list        |
| id                           | did not find it, and a row shows no id                    | the error of the row         |
| id                           | did not find it                                           | ``InstanceNotFoundError``    |
| business key                 | could not list a state at all                             | the error of the list        |
| business key                 | found an unreadable row with the key                      | that error                   |
| business key                 | found matches whose rows contradict each other            | that error                   |
| business key                 | found no match, and no row shows a key                    | ``KeysNotShownError``        |
| business key                 | found no match                                            | ``InstanceNotFoundError``    |
| business key                 | found only ended matches, and the list of an open state   | that error: there may be an  |
|                              | failed once or the key of a row is unreadable             | open match                   |
| business key                 | found one match, or one that is open                      | the instance                 |
| business key                 | found several matches                                     | ``SeveralInstancesError``    |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_astrobpm.client import states
from airflow_provider_astrobpm.client.errors import (
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
from airflow_provider_astrobpm.client.sameness import contradiction_between, contradictions_within
from airflow_provider_astrobpm.client.shown_keys import ShownKeys
from airflow_provider_astrobpm.client.wire import row_count, unreadable_in

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.key_form import BusinessKey
    from airflow_provider_astrobpm.client.wire import UnreadableRow

UNREADABLE_ADVICE = "Nothing is concluded from an unreadable row. Check the instance in Astro Zero."
MAX_CONSECUTIVE_FAILURES = 2
"""After this many consecutive calls that failed as if the server were down, a search stops. Each call has used up all its
attempts: with timeouts, the 24 lists of a search would take an hour."""


class SearchResult:
    """The result of one search.

    :param last_seen: for each requested id the state in which it was last seen, or ``None``.
    :param keys: the requested business keys.
    :param wanted_lists: the states whose instances are all requested.
    :param reads_only: whether an instance that cannot be read by its id counts as not found, even if the lists show it.
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
        """The instances found by their ids. Entries in ``contradictions`` take precedence."""
        self.lists: dict[str, Sequence[BpmInstance]] = {}
        """The instances of each state that was requested completely and could be listed, in the order of the server."""
        self.rows: dict[str, BpmInstance] = {}
        """All instances in ``lists`` by their ids, each as the latest list shows it."""
        self.contradictions: dict[str, CallError] = {}
        """By id, the error for an instance whose rows contradict each other. Nothing is decided about it."""
        self.failed_lists: dict[str, CallError] = {}
        """The last error of each state whose list failed at least once."""
        self.stopped_by: CallError | None = None
        """The error that stopped the search, if one did."""
        self._last_seen = last_seen
        self._wanted_lists = wanted_lists
        self._reads_only = reads_only
        self._keys: dict[str | None, list[BusinessKey]] = {}
        self._matches: dict[BusinessKey, dict[str, BpmInstance]] = {key: {} for key in keys}
        for key in self._matches:
            self._keys.setdefault(key.value, []).append(key)
        self.shown_keys = ShownKeys()
        """Whether the lists show business keys, if some were requested."""
        self._listed: set[str] = set()
        self._unreadable: list[tuple[UnreadableRow, UnexpectedAnswerError]] = []
        self._unread: dict[str, UnexpectedAnswerError] = {}
        self._read: dict[str, CallError | None] = {}
        self._most_rows: int | None = None
        self._has_answer = False
        self._consecutive_failures = 0
        self._first_failure: CallError | None = None

    def instance(self, instance_id: str) -> BpmInstance:
        """Return an instance that was requested by its id.

        :raises InstanceNotFoundError: if it is in none of the states.
        :raises CallError: if that is unknown.
        """
        if isinstance(result := self.instance_or_error(instance_id), AstroZeroError):
            raise result
        return result

    def instance_or_error(self, instance_id: str) -> BpmInstance | CallError | InstanceNotFoundError:
        """Return what ``instance`` returns or raises. Thousands of instances may share one error."""
        if (doubt := self.contradictions.get(instance_id) or self._unread.get(instance_id)) is not None:
            return doubt
        if (found := self.instances.get(instance_id)) is not None:
            return found
        return self._why_unknown(instance_id) or self._not_found(instance_id)

    def match_or_error(self, key: BusinessKey) -> BpmInstance | AstroZeroError:
        """Return the instance with a business key, the only one or the only open one, or by the table why there is none."""
        matches = list(self._matches[key].values())
        still_open = [row for row in matches if not row.is_closed]
        if doubt := self._doubt_about(key, matches, only_ended=bool(matches) and not still_open):
            return doubt
        if not matches and (error := self.shown_keys.why_not_found(key.value, key.bpm_name)):
            return error
        if not matches:
            return InstanceNotFoundError(f"an instance with {key}", most_rows=self._most_rows or 0)
        if len(matches) > 1 and len(still_open) != 1:
            return SeveralInstancesError(f"business key {key.value!r}", still_open or matches)
        return still_open[0] if still_open else matches[0]

    def _doubt_about(
        self, key: BusinessKey, matches: Sequence[BpmInstance], *, only_ended: bool
    ) -> CallError | None:
        """Return the first error that leaves a business key undecided. An open match takes precedence over ended ones."""
        for state in states.STATES:
            if state not in self._listed and (error := self.failure_of(state)):
                return error
        for row in matches:
            if error := self.contradictions.get(row.id) or self._unread.get(row.id):
                return error
        for odd, row_error in self._unreadable:
            # A row with an unreadable key may have any key. It may hide an open match, but does not cast doubt on one that was found.
            counts = odd.business_key == key.value or only_ended
            if counts and odd.may_be(business_key=key.value, bpm_name=key.bpm_name):
                return row_error
        hidden = (self.failed_lists[state] for state in states.OPEN_STATES if state in self.failed_lists)
        return next(hidden, None) if only_ended else None

    def rows_in(self, state: str) -> Sequence[BpmInstance]:
        """Return the instances of a state that was requested completely.

        :raises CallError: if it could not be listed.
        """
        if state not in self.lists and (error := self.failure_of(state)):
            raise error
        return self.lists[state]

    def failure_of(self, state: str) -> CallError | None:
        """Return why a state could not be listed: its list failed, or the search stopped before it."""
        return self._server_error() or self.failed_lists.get(state) or self.stopped_by

    @property
    def has_gaps(self) -> bool:
        """Whether a call failed, so that something may be missing."""
        return self._first_failure is not None

    @property
    def failure(self) -> CallError | None:
        """Why the server counts as down: it throttles, refuses or is unreachable, or no call succeeded."""
        return self._server_error() or (None if self._has_answer else self._first_failure)

    def _server_error(self) -> CallError | None:
        return self.stopped_by if self.stopped_by is not None and _is_fatal(self.stopped_by) else None

    def add_list(self, state: str, rows: Sequence[BpmInstance]) -> None:
        """Add a list. An instance that moves during the search is in two lists; the later row counts."""
        self._note_answer()
        self._listed.add(state)
        self._most_rows = max(self._most_rows or 0, row_count(rows))
        for odd in unreadable_in(rows):
            error = odd.error(f" in the list of state {state!r}", UNREADABLE_ADVICE)
            self._unreadable.append((odd, error))
            if odd.id is not None:
                self._unread[odd.id] = error
        if state in self._wanted_lists:
            self.lists[state] = rows
            for row in rows:
                self._add_row(self.rows, row)
        if len({row.id for row in rows}) < len(rows):
            self.contradictions |= contradictions_within(state, rows)
        if self._last_seen or self._keys:
            self._add_requested(rows)

    def _add_requested(self, rows: Sequence[BpmInstance]) -> None:
        if self._keys:
            self.shown_keys.add_list(rows)
        for row in rows:
            if row.id in self._last_seen:
                self._add_row(self.instances, row)
            for key in self._keys.get(row.business_key, ()):
                if key.bpm_name in (None, row.name):
                    self._add_row(self._matches[key], row)

    def _add_row(self, found: dict[str, BpmInstance], row: BpmInstance) -> None:
        before = found.get(row.id)
        if before is not None and (doubt := contradiction_between(before, row)):
            self.contradictions.setdefault(row.id, doubt)
        found[row.id] = row

    def add_failed_list(self, state: str, error: CallError) -> None:
        """Record that a list failed."""
        self.failed_lists[state] = error
        self._add_failure(error)

    def add_read(self, instance_id: str, answer: BpmInstance | None) -> bool:
        """Record the answer to reading an instance by its id. Return whether it is that instance."""
        self._note_answer()
        self._read[instance_id] = None
        if answer is None or answer.id != instance_id:
            return False
        self.instances[instance_id] = answer
        return True

    def add_failed_read(self, instance_id: str, error: CallError) -> None:
        """Record that reading an instance by its id failed. The lists may still show it."""
        self._read[instance_id] = error
        would_fail_lists = error.failed_fetching_token or isinstance(error, (NotSentError, ThrottledError))
        if not isinstance(error, RefusedError) if self._reads_only else would_fail_lists:
            self._add_failure(error)

    def _note_answer(self) -> None:
        self._has_answer, self._consecutive_failures = True, 0

    def _add_failure(self, error: CallError) -> None:
        self._first_failure = self._first_failure or error
        is_like_down = error.is_transient or error.is_malformed
        self._consecutive_failures = self._consecutive_failures + 1 if is_like_down else 0
        if _is_fatal(error) or self._consecutive_failures >= MAX_CONSECUTIVE_FAILURES:
            self.stopped_by = error

    def wants_list(self, state: str) -> bool:
        """Return whether a state that must be listed completely has not been listed yet."""
        return state in self._wanted_lists and state not in self.lists and state not in self.failed_lists

    def missing_ids(self) -> list[str]:
        """Return the requested ids that were not found yet and that another call may show."""
        decided = (self.instances, self.contradictions, self._unread)
        return [one for one in self._last_seen if not any(one in each for each in decided)]

    def may_still_find_ids(self) -> bool:
        """Return whether another list may still show a missing id, or prove that it is missing.

        If the list of its last seen state failed, the instance is most likely there.
        """
        return any(self._last_seen[one] not in self.failed_lists for one in self.missing_ids())

    def unread_ids(self) -> list[str]:
        """Return the ids that were neither found nor read yet."""
        return [one for one in self.missing_ids() if one not in self._read]

    def lacks_a_match(self) -> bool:
        """Return whether a key has no match yet."""
        return not all(self._matches.values())

    def lacks_an_open_match(self) -> bool:
        """Return whether a key has no open match yet."""
        return any(all(row.is_closed for row in rows.values()) for rows in self._matches.values())

    def found_an_id_that_was_read(self) -> bool:
        """Return whether an instance was found whose id the search also tried to read."""
        return any(one in self.instances for one in self._read)

    def _why_unknown(self, instance_id: str) -> CallError | None:
        """Return the error that makes it unknown whether an instance exists, if there is one."""
        read = self._read.get(instance_id)
        if self._reads_only:
            if isinstance(read, RefusedError):
                return None
            return self._server_error() or read or (None if instance_id in self._read else self.stopped_by)
        hint = self._last_seen.get(instance_id)
        nameless = (error for row, error in self._unreadable if row.id is None)
        return self.failure_of(hint or "") or next(iter([*self.failed_lists.values(), *nameless]), None)

    def _not_found(self, instance_id: str) -> InstanceNotFoundError:
        what, refusal = f"instance {instance_id!r}", self._read.get(instance_id)
        missing = InstanceNotFoundError(what, most_rows=self._most_rows or 0, refusal=refusal)
        if self._most_rows is None:
            missing.problem = f"{what} could not be read by its id"
            missing.advice = (
                "Either it does not exist, or this endpoint cannot read instances by id (undocumented). In that case set the "
                "extra 'instance_lookup' to \"list\"."
            )
        elif refusal is not None:
            missing.problem += ", and could not be read by its id either"
        return missing


def _is_fatal(error: CallError) -> bool:
    """Return whether all further calls would fail the same way: no server, no token, or throttling."""
    return error.failed_fetching_token or isinstance(
        error, (NotSentError, ThrottledError, AuthenticationError)
    )
