"""Probes of the order and the length of lists. A list is cut off, or whole, where answers show it, never by its length."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

from airflow_provider_astrobpm.bpm import api
from airflow_provider_astrobpm.doctor.findings import Finding
from airflow_provider_astrobpm.doctor.observation import Probe, raw, rows_of, text, why_unclear

if TYPE_CHECKING:
    from airflow_provider_astrobpm.doctor.observation import Observation, ProbeFlow, Row
    from airflow_provider_astrobpm.doctor.probe_lists import StateLists

MAX_LISTS_FROM_BOTH_ENDS = 3  # lists that are asked for from both ends
MIN_DISTINCT_STARTS = 5  # rows with different start times; fewer may be in order by chance
# Start times that can be ordered as texts.
_SORTABLE = re.compile(r"\s*(\d{4}\D\d\d\D\d\d\D.*|\d{13})", re.ASCII)
_BEYOND = "An instance beyond is found by its id only, where that can be read; keep fewer in one state, or delete old ones"


class BothEnds(NamedTuple):
    """A list as it is asked for from both ends, and what that shows of its length."""

    state: str
    rows: list[Row]
    reverse: list[Row]
    observations: tuple[Observation, ...]
    found: Literal["cut", "whole", "moved", "silent", "unclear"]


class Displacement(NamedTuple):
    """A list that a new instance made no longer, and the rows that were missing from it then."""

    state: str
    rows: int
    missing: frozenset[str]
    observations: tuple[Observation, ...]


def probe_order_and_cap(lists: StateLists, state: str) -> ProbeFlow[None]:
    """Ask for lists from both ends, and report what that shows of their order and of the most rows that they hold.

    :param state: the state whose list tells most of the order.
    """
    ends = yield from _fetch_both_ends(lists, state)
    yield _order_finding(ends)
    judged = [ends]
    for other in lists.non_empty:
        if len(judged) == MAX_LISTS_FROM_BOTH_ENDS or any(each.found == "cut" for each in judged):
            break
        if other != state and len(lists.rows[other]) >= _longest_whole(judged):
            judged.append((yield from _fetch_both_ends(lists, other)))
    yield _row_cap_finding(lists, judged)


def own_order_finding(seen: Observation) -> Finding:
    """Report the order of a list that was asked for in no order."""
    rows = rows_of(seen)
    if rows is None:
        return Finding.unknown("own_order", why_unclear(seen), seen)
    if not has_distinct_starts(rows):
        return Finding.unknown(
            "own_order", "no list has two instances with different start times that can be ordered", seen
        )
    starts = _starts(rows)
    orders = {"newest first": sorted(starts, reverse=True), "oldest first": sorted(starts)}
    for words, ordered in orders.items():
        if starts == ordered and len(set(starts)) < MIN_DISTINCT_STARTS:
            reason = f"{words}, but no list has {MIN_DISTINCT_STARTS} instances with different start times, so this may be chance"
            return Finding.unknown("own_order", reason, seen)
        if starts == ordered:
            return Finding.known("own_order", words, words, seen)
    return Finding.known("own_order", "other", "not by start time", seen)


def find_displacement(lists: StateLists, row: Row, seen: Observation) -> Displacement | None:
    """Compare a list that shows a new instance with the same list before.

    :param row: the new instance.
    :param seen: the list that shows it.
    :returns: what a later look at this list has to settle, if it is not longer than before.
    """
    state, rows = text(row, "state"), rows_of(seen) or []
    before = lists.rows.get(state, [])
    lists.longest = max(lists.longest, len(rows))
    missing = {each["id"] for each in before} - {each["id"] for each in rows}
    if lists.cap is not None or not missing or len(rows) != len(before):
        return None
    return Displacement(state, len(rows), frozenset(missing), (lists.answers[state], seen))


def probe_displacement(lists: StateLists, displacement: Displacement | None) -> ProbeFlow[None]:
    """Ask again for a list in which a new instance took the place of another, once the new one has left that list."""
    if displacement is None:
        return
    seen = yield Probe(raw(api.query(displacement.state)), remark="once the new instance has ended")
    rows = rows_of(seen) or []
    if len(rows) == displacement.rows and displacement.missing & {row["id"] for row in rows}:
        words = (
            f"a list holds {len(rows)} rows at most: in {displacement.state!r} the new instance took the place of another, which "
            f"came back when the new one had ended. {_BEYOND}"
        )
        yield _record_cap(lists, len(rows), words, *displacement.observations, seen)


def has_distinct_starts(rows: list[Row]) -> bool:
    """Return whether rows have different start times that can be ordered."""
    starts = _starts(rows)
    return all(map(_SORTABLE.fullmatch, starts)) and len(set(starts)) > 1


def _fetch_both_ends(lists: StateLists, state: str) -> ProbeFlow[BothEnds]:
    newest_first, rows = lists.answers[state], lists.rows[state]
    oldest_first = yield Probe(raw(api.query(state, order_type="asc")))
    reverse = rows_of(oldest_first)
    seen = (newest_first, oldest_first)
    if reverse is None:
        return BothEnds(state, rows, [], (oldest_first,), "unclear")
    if {row["id"] for row in rows} == {row["id"] for row in reverse}:
        is_whole = has_distinct_starts(rows) and _is_ordered(rows, reverse)
        return BothEnds(state, rows, reverse, seen, "whole" if is_whole else "silent")
    # Either the server shows only one end of the list, or something has moved meanwhile.
    again = yield Probe(raw(api.query(state)))
    same = [row["id"] for row in rows_of(again) or ()] == [row["id"] for row in rows]
    is_cut = same and len(rows) == len(reverse)
    return BothEnds(state, rows, reverse, (*seen, again), "cut" if is_cut else "moved")


def _longest_whole(judged: list[BothEnds]) -> int:
    return max((len(each.rows) for each in judged if each.found == "whole"), default=0)


def _order_finding(ends: BothEnds) -> Finding:
    if ends.found == "unclear":
        return Finding.unknown("order", why_unclear(ends.observations[0]), *ends.observations)
    seen = ends.observations[:2]
    if not has_distinct_starts([*ends.rows, *ends.reverse]):
        reason = "no list has two instances with different start times that can be ordered"
        return Finding.unknown("order", reason, *seen)
    if _is_ordered(ends.rows, ends.reverse):
        return Finding.known("order", "honoured", "honoured, by startTime in both directions", *seen)
    words = "ignored: should lists ever be cut off, the newest instances may be missing"
    return Finding.known("order", "ignored", words, *seen, fine=False)


def _row_cap_finding(lists: StateLists, judged: list[BothEnds]) -> Finding:
    cut = next((each for each in judged if each.found == "cut"), None)
    if cut is not None:
        words = (
            f"a list holds {len(cut.rows)} rows at most: the newest and the oldest instances in {cut.state!r} are others. "
            f"{_BEYOND}"
        )
        return _record_cap(lists, len(cut.rows), words, *cut.observations[:2])
    whole = _longest_whole(judged)
    open_ones = [each for each in judged if each.found != "whole" and len(each.rows) >= whole]
    names = {each.state for each in judged}
    if open_ones:
        return _unproven_cap_finding(max(open_ones, key=lambda each: len(each.rows)))
    if any(len(lists.rows[state]) >= whole for state in lists.non_empty if state not in names):
        return Finding.unknown(
            "row_cap",
            f"{MAX_LISTS_FROM_BOTH_ENDS} lists are whole, and others that are as long were not asked for",
        )
    longest = next(each for each in judged if len(each.rows) == whole)
    words = (
        f"none up to {whole} rows: the list of {longest.state!r} is the same from both ends. A server that cuts a list before "
        "it orders it cannot be told from this"
    )
    return Finding.known("row_cap", "none seen", words, *longest.observations)


def _unproven_cap_finding(ends: BothEnds) -> Finding:
    if ends.found == "unclear":
        return Finding.unknown("row_cap", why_unclear(ends.observations[0]), *ends.observations)
    if ends.found == "moved":
        return Finding.unknown(
            "row_cap", "instances moved between two lists; run it again", *ends.observations
        )
    rows = f"{len(ends.rows)} row{'' if len(ends.rows) == 1 else 's'}"
    words = f"the list of {ends.state!r} has {rows}, and its order does not show that these are all"
    return Finding.unknown("row_cap", words, *ends.observations)


def _record_cap(lists: StateLists, rows: int, words: str, *seen: Observation) -> Finding:
    lists.cap = rows
    return Finding.known("row_cap", rows, words, *seen, fine=False)


def _is_ordered(first: list[Row], reverse: list[Row]) -> bool:
    starts, reverse_starts = _starts(first), _starts(reverse)
    ends_fit = starts[:1] >= reverse_starts[:1]
    return ends_fit and starts == sorted(starts, reverse=True) and reverse_starts == sorted(reverse_starts)


def _starts(rows: list[Row]) -> list[str]:
    return [text(row, "startTime") for row in rows]
