"""Probes of the lists: what the token may see, and which columns, order and length the lists have."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.client import operations, states, timestamps
from airflow_provider_astrobpm.client.instance import ROW_FIELDS
from airflow_provider_astrobpm.client.wire import EMPTY_RESULTS
from airflow_provider_astrobpm.doctor.findings import Finding, all_unknown
from airflow_provider_astrobpm.doctor.observation import Probe, text
from airflow_provider_astrobpm.doctor.probe_order import (
    has_distinct_starts,
    own_order_finding,
    probe_order_and_cap,
)
from airflow_provider_astrobpm.doctor.timestamp_findings import CLOCK_TOLERANCE, is_plausible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_astrobpm.doctor.observation import InstanceRow, Observation, ProbeFlow

NO_INSTANCE_VISIBLE = "the token sees no instance at all"
NEEDS_START = "a run with --start can find out"
CREATOR = "createdBy"


class StateLists:
    """The list of each state, requested as this provider does: newest first, with its columns.

    :param answers: the observation for each state.
    """

    def __init__(self, answers: Mapping[str, Observation]) -> None:
        self.answers = answers
        self.rows = {state: rows for state, seen in answers.items() if (rows := seen.rows) is not None}
        self.max_rows = max(map(len, self.rows.values()), default=0)
        """The maximum number of rows observed in a list: a list with fewer is not truncated."""
        self.row_cap: int | None = None
        """The number of rows at which lists are truncated, if that was observed."""

    @property
    def non_empty(self) -> list[str]:
        """The states with instances, the longest list first."""
        return sorted(filter(self.rows.get, self.rows), key=lambda state: -len(self.rows[state]))

    @property
    def granted(self) -> str | None:
        """A state whose list could be read, preferably ``Completed OK``; ``None`` if there is none."""
        return states.COMPLETED if states.COMPLETED in self.rows else next(iter(self.rows), None)

    @property
    def why_no_rows(self) -> str:
        """Why no list shows an instance, in words."""
        missing = next((state for state in self.answers if state not in self.rows), None)
        if missing is None:
            return NO_INSTANCE_VISIBLE
        if self.rows:
            return f"{self.why_unread(missing)}, and the other lists show no instance"
        return f"no list of instances could be read ({self.answers[missing].why_unclear})"

    def why_unread(self, state: str) -> str:
        """Return why the list of a state has no rows, in words."""
        return f"the list of {state!r} could not be read ({self.answers[state].why_unclear})"

    @property
    def empty(self) -> list[str]:
        """The states that certainly have no instance."""
        return [state for state, rows in self.rows.items() if not rows]

    @property
    def instance_to_read(self) -> InstanceRow | None:
        """An instance to read by its id, preferably an open one, which stays visible."""
        filled = [state for state in self.non_empty if state in states.OPEN_STATES] or self.non_empty
        return self.rows[filled[0]][0] if filled else None

    @property
    def best_ordered_state(self) -> str | None:
        """The state whose list is the best evidence of the order: the longest with different start times."""
        distinct = [state for state in self.non_empty if has_distinct_starts(self.rows[state])]
        return next(iter(distinct or self.non_empty), None)


def fetch_lists() -> ProbeFlow[StateLists]:
    """List definitions and every state, and report what the token may read."""
    seen = yield Probe(operations.definitions(limit=1))
    if seen.error is None and (seen.result in EMPTY_RESULTS or isinstance(seen.result, list)):
        shown = "shows at least one" if seen.result else "shows none"
        words = f"the token may list definitions, and the list {shown}"
        yield Finding.known("definitions", "yes", words, seen)
    elif seen.error is None:
        yield Finding.unknown("definitions", "the answer is not a list", seen)
    elif seen.is_denied:
        words = "the token may not list definitions" if seen.is_forbidden else "the list was refused"
        yield Finding.known("definitions", "refused", words, seen, fine=False)
    else:
        yield Finding.unknown("definitions", seen.why_unclear, seen)
    answers = {}
    for state in states.STATES:
        answers[state] = yield Probe(operations.query(state))
    lists = StateLists(answers)
    yield _access_finding(lists)
    answered = next((seen for seen in answers.values() if seen.error is None), None)
    if answered is None:
        yield Finding.unknown("success_message", "no list was answered")
    else:
        message = answered.envelope[1] or ""
        yield Finding.known("success_message", message, f"{message!r}", answered)
    return lists


def probe_lists(lists: StateLists) -> ProbeFlow[None]:
    """Report the columns, order, length and contents of the lists."""
    yield _ended_finding(lists)
    yield _newest_finding(lists)
    yield _business_keys_finding(lists)
    state = lists.best_ordered_state
    if state is None:
        yield from all_unknown(("fields", "order", "own_order", "row_cap", "others"), lists.why_no_rows)
        return
    operation = operations.query(state, fields=None, order_field=None)
    unordered = yield Probe(operation, remark="no order, no fields")
    yield _fields_finding(lists, state, unordered)
    yield own_order_finding(unordered)
    yield _others_finding(unordered)
    yield from probe_order_and_cap(lists, state)


def _access_finding(lists: StateLists) -> Finding:
    refused = [state for state, seen in lists.answers.items() if seen.is_denied]
    unclear = [state for state in lists.answers if state not in lists.rows and state not in refused]
    counts = ", ".join(f"{len(lists.rows[state])} in {state!r}" for state in lists.non_empty)
    shown = f"the lists show {counts}" if counts else "the lists show no instance"
    evidence = [lists.answers[state] for state in (*refused, *unclear, *lists.non_empty)[:4]]
    if refused:
        words = f"refused for {', '.join(map(repr, refused))}; {shown}"
        return Finding.known("instances", "refused", words, *evidence, fine=False)
    if unclear:
        reason = lists.answers[unclear[0]].why_unclear
        words = f"{', '.join(map(repr, unclear))} could not be listed ({reason})"
        return Finding.unknown("instances", words, *evidence)
    evidence = evidence or list(lists.answers.values())[:1]
    words = f"the token may list all {len(lists.rows)} states; {shown}"
    return Finding.known("instances", "all", words, *evidence)


def _fields_finding(lists: StateLists, state: str, unordered: Observation) -> Finding:
    """Compare the columns of a list with the same list requested without ``fields=``."""
    columns, seen = set().union(*lists.rows[state]), lists.answers[state]
    more, lacking = sorted(columns.difference(ROW_FIELDS)), sorted(set(ROW_FIELDS) - columns)
    also = f"; not sent: {', '.join(lacking)}" if lacking else ""
    if more:
        words = f"ignored: {len(more)} more columns were sent, such as {more[0]!r}; answers are longer than necessary{also}"
        return Finding.known("fields", "ignored", words, seen)
    others = unordered.rows
    if others is None:
        reason = f"the list without fields= could not be read: {unordered.why_unclear}"
        return Finding.unknown("fields", reason, unordered)
    if not set().union(*others).difference(ROW_FIELDS):
        reason = "the list without fields= has no other columns either"
        return Finding.unknown("fields", reason, seen, unordered)
    words = f"honoured: only the requested columns were sent{also}"
    return Finding.known("fields", "honoured", words, seen, unordered)


def _ended_finding(lists: StateLists) -> Finding:
    shown = [state for state in lists.non_empty if states.is_terminal(state)]
    if shown:
        words = f"visible, in {', '.join(map(repr, shown))}"
        return Finding.known("ended", "kept", words, lists.answers[shown[0]])
    unread = [state for state in lists.answers if states.is_terminal(state) and state not in lists.rows]
    if unread:
        reason = f"{lists.why_unread(unread[0])}, and no other list shows an ended instance"
        return Finding.unknown("ended", reason, lists.answers[unread[0]])
    return Finding.unknown("ended", f"the token sees no ended instance; {NEEDS_START}")


def _newest_finding(lists: StateLists) -> Finding:
    """Report what the timestamps alone prove about their zone: a start cannot be in the future."""
    starts = [(text(row, "startTime"), state) for state, rows in lists.rows.items() for row in rows]
    stamps = [(stamp, state) for start, state in starts if (stamp := timestamps.read(start)) is not None]
    if not stamps:
        what = f"{starts[0][0]!r} instead of the documented timestamp format" if starts else "no timestamp"
        return Finding.unknown("timezone", f"the lists show {what}; {NEEDS_START}")
    stamp, state = max(stamps)
    seen = lists.answers[state]
    ahead = stamp - datetime.fromtimestamp(seen.server_time or seen.at, timezone.utc).replace(tzinfo=None)
    if ahead <= CLOCK_TOLERANCE:
        bound = ""
    elif is_plausible(ahead):
        bound = f", {ahead} ahead of UTC, so the zone is at least that far east"
    else:
        bound = f", {ahead} ahead of UTC, and no zone is so far east"
    return Finding.unknown("timezone", f"the newest instance started at {stamp}{bound}; {NEEDS_START}", seen)


def _business_keys_finding(lists: StateLists) -> Finding:
    rows = [(row, state) for state, each in lists.rows.items() for row in each]
    for row, state in rows:
        if text(row, "businessKey") not in ("", row["id"]):
            words = "rows show business keys that differ from their ids"
            return Finding.known("business_keys", "carried", words, lists.answers[state])
    if not rows:
        return Finding.unknown("business_keys", f"{lists.why_no_rows}; {NEEDS_START}")
    reason = "every row shows its own id or nothing as the key, which may mean that no instance has one"
    return Finding.unknown("business_keys", f"{reason}; {NEEDS_START}", lists.answers[rows[0][1]])


def _others_finding(seen: Observation) -> Finding:
    rows = seen.rows
    if rows is None:
        return Finding.unknown("others", seen.why_unclear, seen)
    creators = {text(row, CREATOR) for row in rows if text(row, CREATOR)}
    if len(creators) > 1:
        return Finding.known("others", "seen", f"instances of {len(creators)} creators are visible", seen)
    what = "all instances in a list have the same creator" if creators else "the rows show no creator"
    return Finding.unknown("others", f"{what}; {NEEDS_START}", seen)
