"""Probes of the lists: what the token may see, and what columns, order and length its lists have."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.bpm import api, states, timestamps
from airflow_provider_astrobpm.bpm.instance import ROW_FIELDS
from airflow_provider_astrobpm.bpm.wire import EMPTY_RESULTS
from airflow_provider_astrobpm.doctor.asking import (
    Ask,
    is_forbidden,
    is_refused,
    raw,
    rows_of,
    text,
    why_unclear,
)
from airflow_provider_astrobpm.doctor.lengths import differ, own_order, probe_order_and_cap
from airflow_provider_astrobpm.doctor.moments import TOLERANCE, is_plausible
from airflow_provider_astrobpm.doctor.points import Point, told, untold

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_astrobpm.doctor.asking import Probing, Row, Seen

NO_ROWS = "the token sees no instance at all"
ONLY_WITH_START = "only a run with --start can tell it"
CREATOR = "createdBy"


class Lists:
    """The list of each state, as this provider asks for it: newest first, with its columns.

    :param seen: what came of asking for each state.
    """

    def __init__(self, seen: Mapping[str, Seen]) -> None:
        self.seen = seen
        self.rows: dict[str, list[Row]] = {}
        for state, answer in seen.items():
            rows = rows_of(answer)
            if rows is not None:
                self.rows[state] = rows
        self.longest = max(map(len, self.rows.values()), default=0)
        """The most rows that a list was seen to hold: a list with fewer is not cut off."""
        self.cap: int | None = None
        """At how many rows lists are cut off, where that was seen."""

    @property
    def filled(self) -> list[str]:
        """The states that show instances, the longest list first."""
        return sorted(filter(self.rows.get, self.rows), key=lambda state: -len(self.rows[state]))

    @property
    def granted(self) -> str | None:
        """A state whose list was answered, ``Completed OK`` if that was; ``None`` where no list was."""
        return states.COMPLETED if states.COMPLETED in self.rows else next(iter(self.rows), None)

    @property
    def no_rows(self) -> str:
        """Why no list shows an instance, in words."""
        missing = [state for state in self.seen if state not in self.rows]
        if not missing:
            return NO_ROWS
        which = "no list of instances" if not self.rows else f"the list of {missing[0]!r}"
        others = "" if not self.rows else ", and those that could be read show no instance"
        return f"{which} could be read ({why_unclear(self.seen[missing[0]])}){others}"

    @property
    def empty(self) -> list[str]:
        """The states that certainly show none."""
        return [state for state, rows in self.rows.items() if not rows]

    def telling(self) -> str | None:
        """Return the state whose list tells most of order: with different start times, the longest."""
        several = [state for state in self.filled if len(self.rows[state]) > 1]
        return next((state for state in several if differ(self.rows[state])), next(iter(self.filled), None))


def list_all() -> Probing[Lists]:
    """List definitions and every state, and tell what the token may read."""
    seen = yield Ask(raw(api.definitions(limit=1)))
    if seen.error is None and (seen.result in EMPTY_RESULTS or isinstance(seen.result, list)):
        shown = "shows at least one" if seen.result else "shows none"
        yield told("definitions", "yes", f"the token may list definitions, and the list {shown}", seen)
    elif seen.error is None:
        yield untold("definitions", "the answer is not a list", seen)
    elif is_refused(seen):
        words = "the token may not list definitions" if is_forbidden(seen) else "their list was refused"
        yield told("definitions", "refused", words, seen, fine=False)
    else:
        yield untold("definitions", why_unclear(seen), seen)
    answers = {}
    for state in states.STATES:
        answers[state] = yield Ask(raw(api.query(state)))
    lists = Lists(answers)
    yield _access(lists)
    yield _message(next((seen for seen in answers.values() if seen.error is None), None))
    return lists


def probe_lists(lists: Lists) -> Probing[None]:
    """Tell of columns, order, length and contents of the lists."""
    yield _ended(lists)
    yield _newest(lists)
    yield _keys(lists)
    state = lists.telling()
    if state is None:
        for name in ("fields", "order", "own_order", "row_cap", "others"):
            yield untold(name, lists.no_rows)
        return
    own = yield Ask(raw(api.query(state, fields=None, order_field=None)), remark="no order, no fields")
    yield _fields(lists, state, own)
    yield own_order(own)
    yield _others(own)
    yield from probe_order_and_cap(lists, state)


def _access(lists: Lists) -> Point:
    refused = [state for state, seen in lists.seen.items() if is_refused(seen)]
    unclear = [state for state in lists.seen if state not in lists.rows and state not in refused]
    counts = ", ".join(f"{len(lists.rows[state])} in {state!r}" for state in lists.filled)
    shown = f"it shows {counts}" if counts else "it shows no instance"
    evidence = [lists.seen[state] for state in (*refused, *unclear, *lists.filled)[:4]]
    if refused:
        words = f"refused for {', '.join(map(repr, refused))}; {shown}"
        return told("instances", "refused", words, *evidence, fine=False)
    if unclear:
        reason = why_unclear(lists.seen[unclear[0]])
        return untold(
            "instances", f"{', '.join(map(repr, unclear))} could not be listed ({reason})", *evidence
        )
    evidence = evidence or list(lists.seen.values())[:1]
    return told("instances", "all", f"the token may list all {len(lists.rows)} states; {shown}", *evidence)


def _message(seen: Seen | None) -> Point:
    if seen is None:
        return untold("success_message", "no list was answered")
    message = seen.envelope()[1] or ""
    return told("success_message", message, f"{message!r}", seen)


def _fields(lists: Lists, state: str, own: Seen) -> Point:
    """Compare the columns of a list with those of the same list where none were asked for."""
    columns, seen = _columns(lists.rows[state]), lists.seen[state]
    more, lacking = sorted(columns.difference(ROW_FIELDS)), sorted(set(ROW_FIELDS) - columns)
    also = f"; not sent: {', '.join(lacking)}" if lacking else ""
    if more:
        words = f"ignored: {len(more)} columns more came, such as {more[0]!r}; answers are longer than need be{also}"
        return told("fields", "ignored", words, seen)
    others = rows_of(own)
    if others is None:
        return untold("fields", f"the list without it could not be read: {why_unclear(own)}", own)
    if not _columns(others).difference(ROW_FIELDS):
        return untold("fields", "the columns that were asked for come without it, and no others", seen, own)
    words = f"honoured: the columns that were asked for, and no others{also}"
    return told("fields", "honoured", words, seen, own)


def _columns(rows: list[Row]) -> set[str]:
    return set().union(*rows)


def _ended(lists: Lists) -> Point:
    shown = [state for state in lists.filled if states.is_terminal(state)]
    if shown:
        words = f"they stay in the lists, in {', '.join(map(repr, shown))}"
        return told("ended", "kept", words, lists.seen[shown[0]])
    unread = [state for state in lists.seen if states.is_terminal(state) and state not in lists.rows]
    if unread:
        reason = f"the list of {unread[0]!r} could not be read ({why_unclear(lists.seen[unread[0]])})"
        return untold(
            "ended", f"{reason}, and no other shows an instance that has ended", lists.seen[unread[0]]
        )
    return untold("ended", f"the token sees no instance that has ended; {ONLY_WITH_START}")


def _newest(lists: Lists) -> Point:
    """Tell what the timestamps alone say of their zone: a start cannot lie in the future."""
    starts = [(text(row, "startTime"), state) for state, rows in lists.rows.items() for row in rows]
    stamps = [(stamp, state) for start, state in starts if (stamp := timestamps.read(start)) is not None]
    if not stamps:
        what = f"no timestamp in the documented format, but {starts[0][0]!r}" if starts else "no timestamp"
        return untold("timezone", f"{what} was seen; {ONLY_WITH_START}")
    stamp, state = max(stamps)
    seen = lists.seen[state]
    ahead = stamp - datetime.fromtimestamp(seen.server_time or seen.at, timezone.utc).replace(tzinfo=None)
    if ahead <= TOLERANCE:
        bound = ""
    elif is_plausible(ahead):
        bound = f", {ahead} ahead of UTC, so the zone is at least that far east"
    else:
        bound = f", {ahead} ahead of UTC, and no zone is so far east"
    return untold("timezone", f"the newest instance began at {stamp}{bound}; {ONLY_WITH_START}", seen)


def _keys(lists: Lists) -> Point:
    rows = [(row, state) for state, each in lists.rows.items() for row in each]
    for row, state in rows:
        if text(row, "businessKey") not in ("", row["id"]):
            words = "rows carry business keys that are not their ids"
            return told("business_keys", "carried", words, lists.seen[state])
    if not rows:
        return untold("business_keys", f"{lists.no_rows}; {ONLY_WITH_START}")
    reason = "every row has its own id there, or nothing, as an instance without a key may have"
    return untold("business_keys", f"{reason}; {ONLY_WITH_START}", lists.seen[rows[0][1]])


def _others(seen: Seen) -> Point:
    rows = rows_of(seen)
    if rows is None:
        return untold("others", why_unclear(seen), seen)
    creators = {text(row, CREATOR) for row in rows if text(row, CREATOR)}
    if len(creators) > 1:
        return told("others", "seen", f"instances of {len(creators)} creators show", seen)
    what = "all instances in one list have the same creator" if creators else "the rows name no creator"
    return untold("others", f"{what}; {ONLY_WITH_START}", seen)
