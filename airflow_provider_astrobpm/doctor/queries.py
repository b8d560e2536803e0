"""Probes of reads that are not documented: by id, several states at once, names that do not exist, how things are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, quote_plus

import msgspec

from airflow_provider_astrobpm.bpm import api
from airflow_provider_astrobpm.bpm.states import COMPLETED, OPEN_STATES, STATES
from airflow_provider_astrobpm.bpm.wire import decode_instance
from airflow_provider_astrobpm.doctor.asking import (
    Ask,
    Verdict,
    instance_of,
    may_be_refusal,
    raw,
    rows_of,
    verdict,
    why_unclear,
)
from airflow_provider_astrobpm.doctor.lists import NO_ROWS
from airflow_provider_astrobpm.doctor.points import Point, told, untold

if TYPE_CHECKING:
    from airflow_provider_astrobpm.bpm.api import Operation
    from airflow_provider_astrobpm.doctor.asking import Probing, Row, Seen
    from airflow_provider_astrobpm.doctor.lists import Lists

NO_SUCH_STATE = "NoSuchState"
NO_SUCH_COLUMN = "noSuchColumn"
NO_SUCH_ID = "0000noSuchInstance00"
STATES_WITH_BLANKS = [state for state in STATES if " " in state]


def probe_queries(lists: Lists) -> Probing[bool]:
    """Tell of reads that are not documented, and return whether this endpoint refuses with HTTP 5xx."""
    refuses_with_5xx = yield from _refusal()
    unknown_states = yield from _unknown_state(refuses_with_5xx=refuses_with_5xx)
    yield from _unknown_field(lists, refuses_with_5xx=refuses_with_5xx)
    yield from _several_states(lists, "states_with_commas", refuses_with_5xx=refuses_with_5xx)
    yield from _several_states(lists, "states_repeated", refuses_with_5xx=refuses_with_5xx)
    yield from _plus(lists, unknown_states, refuses_with_5xx=refuses_with_5xx)
    yield from _content_type(refuses_with_5xx=refuses_with_5xx)
    return refuses_with_5xx


def probe_by_id(row: Row | None) -> Probing[None]:
    """Tell whether one instance, and its variables, can be read by its id.

    :param row: an instance that shows in the lists, if there is one.
    """
    if row is None:
        seen = yield Ask(raw(api.get_instance(NO_SUCH_ID)), remark="an id that does not exist")
        if seen.status == 405:
            yield _not_by_id("get_by_id", "not allowed", seen)
        else:
            yield untold("get_by_id", f"{NO_ROWS}, so there is none to read", seen)
        yield untold("get_variables", f"{NO_ROWS}, so there is none to read")
        return
    operation = raw(api.get_instance(row["id"]))
    yield from _by_id(row, (yield Ask(operation)))
    path = f"{operation.path}/variables"
    seen = yield Ask(msgspec.structs.replace(operation, path=path, attempt="read the variables"))
    yield from _variables(row, seen)


def best_to_read(lists: Lists) -> Row | None:
    """Return an instance to read by its id, one that has not ended and so stays, if there is one."""
    states = [state for state in lists.filled if state in OPEN_STATES] or lists.filled
    return lists.rows[states[0]][0] if states else None


def _listing(*values: str) -> Operation[object]:
    return raw(api.query(COMPLETED), query=tuple(("states", value) for value in values))


def _refusal() -> Probing[bool]:
    """Leave out what is documented as required: that must be refused."""
    seen = yield Ask(_listing(), remark="without states")
    code, _ = seen.envelope()
    if may_be_refusal(seen):
        control = yield Ask(_listing(COMPLETED))
        if control.error is None:
            words = (
                f"with HTTP {seen.status} and resCode {code!r}, as a failure is: a start that is refused counts as one that "
                "may have been taken, and a refused read is sent again in vain"
            )
            yield told("refusal", f"HTTP {seen.status}", words, seen, control, fine=False)
            return True
    if verdict(seen) is Verdict.REFUSED:
        yield told("refusal", f"HTTP {seen.status}", f"with HTTP {seen.status} and resCode {code!r}", seen)
    elif verdict(seen) is Verdict.ANSWERED:
        yield untold("refusal", "a list without states, which are required, is not refused", seen)
    else:
        yield untold("refusal", why_unclear(seen), seen)
    return False


def _unknown_state(*, refuses_with_5xx: bool) -> Probing[str | None]:
    seen = yield Ask(_listing(NO_SUCH_STATE))
    found = verdict(seen, refuses_with_5xx=refuses_with_5xx)
    if found is Verdict.REFUSED:
        yield told("unknown_state", "refused", "refused", seen)
        return "refused"
    if rows_of(seen) == []:
        yield told("unknown_state", "empty", "a list without rows, as if there were such a state", seen)
        return "empty"
    if rows_of(seen):
        yield told("unknown_state", "rows", "rows of other states", seen, fine=False)
        return "rows"
    yield untold("unknown_state", why_unclear(seen), seen)
    return None


def _unknown_field(lists: Lists, *, refuses_with_5xx: bool) -> Probing[None]:
    state = next(iter(lists.filled), COMPLETED)
    fields = ("id", "name", "state", NO_SUCH_COLUMN)
    seen = yield Ask(raw(api.query(state, fields=fields, order_field=None)))
    found = verdict(seen, refuses_with_5xx=refuses_with_5xx)
    if found is Verdict.REFUSED:
        yield told("unknown_field", "refused", "refused", seen)
    elif rows_of(seen) is not None:
        yield told("unknown_field", "ignored", "ignored: the list comes without it", seen)
    else:
        yield untold("unknown_field", why_unclear(seen), seen)


def _several_states(
    lists: Lists, name: Literal["states_with_commas", "states_repeated"], *, refuses_with_5xx: bool
) -> Probing[None]:
    """Ask for a state that shows rows and one that shows none: in either order the rows must come."""
    full, empty = next(iter(lists.filled), None), next(iter(lists.empty), None)
    one, other = full or COMPLETED, empty or NO_SUCH_STATE
    seen = yield Ask(_both(name, other, one))
    if verdict(seen, refuses_with_5xx=refuses_with_5xx) is Verdict.REFUSED:
        yield told(name, "refused", "refused", seen)
        return
    if rows_of(seen) is None or full is None or empty is None:
        reason = NO_ROWS if full is None else "every state shows rows" if empty is None else why_unclear(seen)
        yield untold(name, reason, seen)
        return
    turned = yield Ask(_both(name, one, other))
    if rows_of(turned) is None:
        yield untold(name, why_unclear(turned), seen, turned)
        return
    last, first = bool(rows_of(seen)), bool(rows_of(turned))
    value, words = {
        (True, True): ("honoured", "honoured: the instances of each state come"),
        (True, False): ("last only", "only the last one counts"),
        (False, True): ("first only", "only the first one counts"),
        (False, False): ("none", "no instance of either comes"),
    }[last, first]
    yield told(name, value, f"{words}; this provider asks for one state at a time", seen, turned)


def _both(name: str, one: str, other: str) -> Operation[object]:
    return _listing(f"{one},{other}") if name == "states_with_commas" else _listing(one, other)


def _plus(lists: Lists, unknown_states: str | None, *, refuses_with_5xx: bool) -> Probing[None]:
    state = next((state for state in lists.filled if " " in state), STATES_WITH_BLANKS[0])
    plain = _listing(state)
    seen = yield Ask(plain, target=plain.target.replace(quote(state), quote_plus(state)))
    expected = lists.rows.get(state)
    found = verdict(seen, refuses_with_5xx=refuses_with_5xx)
    rows = rows_of(seen)
    sent = "this provider sends %20"
    if expected is None or (found is Verdict.ANSWERED and rows is None) or found is Verdict.UNCLEAR:
        yield untold("plus", why_unclear(seen), seen)
    elif found is Verdict.REFUSED or (expected and not rows):
        yield told("plus", "no", f"no: a list that %20 shows is refused or empty with +; {sent}", seen)
    elif expected or unknown_states == "refused":
        yield told("plus", "yes", f"yes; {sent} all the same", seen)
    else:
        yield untold("plus", "the states with a blank show no rows, nor would one that does not exist", seen)


def _content_type(*, refuses_with_5xx: bool) -> Probing[None]:
    seen = yield Ask(_listing(COMPLETED), content_type=False, remark="no Content-Type")
    found = verdict(seen, refuses_with_5xx=refuses_with_5xx)
    if found is Verdict.UNCLEAR:
        yield untold("content_type", why_unclear(seen), seen)
    elif found is Verdict.REFUSED:
        yield told("content_type", "needed", "needed even by a GET; this provider sends it always", seen)
    else:
        yield told(
            "content_type", "not needed", "not needed by a GET; this provider sends it all the same", seen
        )


def _by_id(row: Row, seen: Seen) -> Probing[None]:
    name = "get_by_id"
    if seen.status == 404:
        control = yield Ask(raw(api.query(row["state"])), remark="whether it still shows")
        if any(each["id"] == row["id"] for each in rows_of(control) or ()):
            yield _not_by_id(name, "absent", seen, control)
        else:
            yield untold(name, "the instance was gone from its list as well; run it again", seen, control)
    elif seen.status == 405:
        yield _not_by_id(name, "not allowed", seen)
    elif verdict(seen) is Verdict.REFUSED:
        yield _not_by_id(name, "refused", seen)
    elif verdict(seen) is Verdict.UNCLEAR:
        yield untold(name, why_unclear(seen), seen)
    else:
        yield _shape(name, row, seen)


def _shape(name: str, row: Row, seen: Seen) -> Point:
    instance = instance_of(seen)
    try:
        readable = instance is not None and decode_instance(msgspec.json.encode(instance)).id == row["id"]
    except msgspec.ValidationError:
        readable = False
    if instance is None or not readable:
        words = "it answers with something that is not this instance; the lists serve instead"
        return told(name, "other", words, seen)
    value = "action" if "isClosed" in instance or "nextElem" in instance else "row"
    shape = "an action's answer" if value == "action" else "a row of a list"
    return told(name, value, f"works, in the shape of {shape}", seen)


def _not_by_id(name: str, value: str, *seen: Seen) -> Point:
    words = "is not there" if value == "absent" else f"is {value}"
    return told(name, value, f"{words}; instances are found in the lists", *seen)


def _variables(row: Row, seen: Seen) -> Probing[None]:
    name, unused = "get_variables", "this provider does not read variables"
    if seen.status in (404, 405):
        yield told(name, "absent", f"is not there; {unused}", seen)
    elif verdict(seen) is Verdict.REFUSED:
        yield told(name, "refused", f"is refused; {unused}", seen)
    elif verdict(seen) is Verdict.UNCLEAR:
        yield untold(name, why_unclear(seen), seen)
    elif isinstance(seen.result, dict):
        words = f"works: names with values, {len(seen.result)} for instance {row['id']!r}; {unused}"
        yield told(name, "map", words, seen)
    else:
        yield told(name, "other", f"answers, but not with names and values; {unused}", seen)
