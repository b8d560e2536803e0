"""Probes of the order and the length of lists.

Whether a list is truncated or complete is concluded from answers, never from its length.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.doctor.findings import Finding
from airflow_provider_astrobpm.doctor.observation import Probe, text

if TYPE_CHECKING:
    from airflow_provider_astrobpm.doctor.observation import InstanceRow, Observation, ProbeFlow
    from airflow_provider_astrobpm.doctor.probe_lists import StateLists

MAX_LISTS_FROM_BOTH_ENDS = 3  # lists to request from both ends
MIN_DISTINCT_STARTS = 5  # fewer rows may be in order by chance
# Start times that sort correctly as text.
_SORTABLE = re.compile(r"\s*(\d{4}\D\d\d\D\d\d\D.*|\d{13})", re.ASCII)
_NO_DISTINCT_STARTS = "no list has two instances with different, sortable start times"
_BEYOND = "An instance beyond that is found only by its id, if reading by id works; keep fewer instances in one state, or delete old ones"


class BothEnds(NamedTuple):
    """A list requested from both ends, and what that proves about its length."""

    state: str
    rows: list[InstanceRow]
    reverse: list[InstanceRow]
    observations: tuple[Observation, ...]
    found: Literal["truncated", "complete", "moved", "inconclusive", "unclear"]


class Displacement(NamedTuple):
    """A list that did not grow with a new instance, and the rows that disappeared from it."""

    state: str
    rows: int
    missing: frozenset[str]
    observations: tuple[Observation, ...]


def probe_order_and_cap(lists: StateLists, state: str) -> ProbeFlow[None]:
    """Request lists from both ends, and report what that proves about their order and their maximum length.

    :param state: the state whose list is the best evidence of the order.
    """
    ends = yield from _fetch_both_ends(lists, state)
    yield _order_finding(ends)
    judged = [ends]
    for other in lists.non_empty:
        if len(judged) == MAX_LISTS_FROM_BOTH_ENDS or any(each.found == "truncated" for each in judged):
            break
        if other != state and len(lists.rows[other]) >= _max_complete_rows(judged):
            judged.append((yield from _fetch_both_ends(lists, other)))
    yield _row_cap_finding(lists, judged)


def own_order_finding(seen: Observation) -> Finding:
    """Return the order of a list that was requested without an order."""
    rows = seen.rows
    if rows is None:
        return Finding.unknown("own_order", seen.why_unclear, seen)
    if not has_distinct_starts(rows):
        return Finding.unknown("own_order", _NO_DISTINCT_STARTS, seen)
    starts = _starts(rows)
    if starts == sorted(starts, reverse=True):
        order = "newest first"
    elif starts == sorted(starts):
        order = "oldest first"
    else:
        return Finding.known("own_order", "other", "not by start time", seen)
    if len(set(starts)) < MIN_DISTINCT_STARTS:
        reason = f"{order}, but no list has {MIN_DISTINCT_STARTS} instances with different start times, so this may be chance"
        return Finding.unknown("own_order", reason, seen)
    return Finding.known("own_order", order, order, seen)


def find_displacement(lists: StateLists, row: InstanceRow, seen: Observation) -> Displacement | None:
    """Compare a list with a new instance to the same list before the start.

    :param row: the new instance.
    :param seen: the list that shows it.
    :returns: the rows that disappeared, if the list did not grow. Whether they come back is probed later.
    """
    state, rows = text(row, "state"), seen.rows or []
    before = lists.rows.get(state, [])
    lists.max_rows = max(lists.max_rows, len(rows))
    missing = {each["id"] for each in before} - {each["id"] for each in rows}
    if lists.row_cap is not None or not missing or len(rows) != len(before):
        return None
    return Displacement(state, len(rows), frozenset(missing), (lists.answers[state], seen))


def probe_displacement(lists: StateLists, displacement: Displacement | None) -> ProbeFlow[None]:
    """Request a list again in which a new instance displaced another, after the new one has left that list."""
    if displacement is None:
        return
    seen = yield Probe(operations.query(displacement.state), remark="after the new instance has ended")
    rows = seen.rows or []
    if len(rows) == displacement.rows and displacement.missing & {row["id"] for row in rows}:
        words = (
            f"a list has at most {len(rows)} rows: in {displacement.state!r} the new instance displaced another, which came back "
            f"after the new one had ended. {_BEYOND}"
        )
        yield _record_cap(lists, len(rows), words, *displacement.observations, seen)


def has_distinct_starts(rows: list[InstanceRow]) -> bool:
    """Return whether rows have different start times that can be sorted."""
    starts = _starts(rows)
    return all(map(_SORTABLE.fullmatch, starts)) and len(set(starts)) > 1


def _fetch_both_ends(lists: StateLists, state: str) -> ProbeFlow[BothEnds]:
    newest_first, rows = lists.answers[state], lists.rows[state]
    oldest_first = yield Probe(operations.query(state, order_type="asc"))
    reverse = oldest_first.rows
    seen = (newest_first, oldest_first)
    if reverse is None:
        return BothEnds(state, rows, [], (oldest_first,), "unclear")
    if {row["id"] for row in rows} == {row["id"] for row in reverse}:
        is_complete = has_distinct_starts(rows) and _is_ordered(rows, reverse)
        return BothEnds(state, rows, reverse, seen, "complete" if is_complete else "inconclusive")
    # Either the server returns only one end of the list, or instances changed their states meanwhile.
    again = yield Probe(operations.query(state))
    same = [row["id"] for row in again.rows or ()] == [row["id"] for row in rows]
    is_truncated = same and len(rows) == len(reverse)
    return BothEnds(state, rows, reverse, (*seen, again), "truncated" if is_truncated else "moved")


def _max_complete_rows(judged: list[BothEnds]) -> int:
    return max((len(each.rows) for each in judged if each.found == "complete"), default=0)


def _order_finding(ends: BothEnds) -> Finding:
    if ends.found == "unclear":
        return Finding.unknown("order", ends.observations[0].why_unclear, *ends.observations)
    seen = ends.observations[:2]
    if not has_distinct_starts([*ends.rows, *ends.reverse]):
        return Finding.unknown("order", _NO_DISTINCT_STARTS, *seen)
    if _is_ordered(ends.rows, ends.reverse):
        return Finding.known("order", "honoured", "honoured, by startTime in both directions", *seen)
    words = "ignored: in a truncated list, the newest instances may be missing"
    return Finding.known("order", "ignored", words, *seen, fine=False)


def _row_cap_finding(lists: StateLists, judged: list[BothEnds]) -> Finding:
    truncated = next((each for each in judged if each.found == "truncated"), None)
    if truncated is not None:
        words = (
            f"a list has at most {len(truncated.rows)} rows: the newest and the oldest instances in {truncated.state!r} differ. "
            f"{_BEYOND}"
        )
        return _record_cap(lists, len(truncated.rows), words, *truncated.observations[:2])
    complete_rows = _max_complete_rows(judged)
    unproven = [each for each in judged if each.found != "complete" and len(each.rows) >= complete_rows]
    names = {each.state for each in judged}
    if unproven:
        return _unproven_cap_finding(max(unproven, key=lambda each: len(each.rows)))
    if any(len(lists.rows[state]) >= complete_rows for state in lists.non_empty if state not in names):
        reason = f"{len(judged)} lists are complete, and others of the same length were not requested"
        return Finding.unknown("row_cap", reason)
    longest = next(each for each in judged if len(each.rows) == complete_rows)
    words = (
        f"none up to {complete_rows} rows: the list of {longest.state!r} is the same from both ends. A server that truncates a list "
        "before sorting it would give the same result"
    )
    return Finding.known("row_cap", "none seen", words, *longest.observations)


def _unproven_cap_finding(ends: BothEnds) -> Finding:
    rows = f"{len(ends.rows)} row{'' if len(ends.rows) == 1 else 's'}"
    reason = f"the list of {ends.state!r} has {rows}, but its order does not prove that these are all"
    if ends.found == "unclear":
        reason = ends.observations[0].why_unclear
    elif ends.found == "moved":
        reason = "instances changed their states between two lists; run it again"
    return Finding.unknown("row_cap", reason, *ends.observations)


def _record_cap(lists: StateLists, rows: int, words: str, *seen: Observation) -> Finding:
    lists.row_cap = rows
    return Finding.known("row_cap", rows, words, *seen, fine=False)


def _is_ordered(first: list[InstanceRow], reverse: list[InstanceRow]) -> bool:
    starts, reverse_starts = _starts(first), _starts(reverse)
    ends_fit = starts[:1] >= reverse_starts[:1]
    return ends_fit and starts == sorted(starts, reverse=True) and reverse_starts == sorted(reverse_starts)


def _starts(rows: list[InstanceRow]) -> list[str]:
    return [text(row, "startTime") for row in rows]
