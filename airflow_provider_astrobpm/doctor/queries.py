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
    is_forbidden,
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
OF_QUERIES = (
    "refusal",
    "unknown_state",
    "unknown_field",
    "states_with_commas",
    "states_repeated",
    "plus",
    "content_type",
)
STATES_WITH_BLANKS = [state for state in STATES if " " in state]


def probe_queries(lists: Lists) -> Probing[bool]:
    """Tell of reads that are not documented, and return whether this endpoint refuses with HTTP 5xx.

    A refusal tells something only where the same list, as it is documented, is granted.
    """
    granted = lists.granted
    if granted is None:
        for name in OF_QUERIES:
            yield untold(name, f"{lists.no_rows}, so a refusal would tell nothing")
        return False
    refuses_with_5xx = yield from _refusal(granted)
    unknown_states = yield from _unknown_state(refuses_with_5xx=refuses_with_5xx)
    yield from _unknown_field(lists, granted, refuses_with_5xx=refuses_with_5xx)
    yield from _several_states(lists, "states_with_commas", refuses_with_5xx=refuses_with_5xx)
    yield from _several_states(lists, "states_repeated", refuses_with_5xx=refuses_with_5xx)
    yield from _plus(lists, unknown_states, refuses_with_5xx=refuses_with_5xx)
    yield from _content_type(granted, refuses_with_5xx=refuses_with_5xx)
    return refuses_with_5xx


def probe_by_id(row: Row | None, no_row: str = NO_ROWS) -> Probing[None]:
    """Tell whether one instance, and its variables, can be read by its id.

    :param row: an instance that shows in the lists, if there is one.
    :param no_row: why there is none, in words.
    """
    if row is None:
        seen = yield Ask(raw(api.get_instance(NO_SUCH_ID)), remark="an id that does not exist")
        if seen.status == 405:
            yield _not_by_id("get_by_id", "not allowed", seen)
        else:
            yield untold("get_by_id", f"{no_row}, so there is none to read", seen)
        yield untold("get_variables", f"{no_row}, so there is none to read")
        return
    operation = raw(api.get_instance(row["id"]))
    is_there = yield from _by_id(row, (yield Ask(operation)))
    path = f"{operation.path}/variables"
    seen = yield Ask(msgspec.structs.replace(operation, path=path, attempt="read the variables"))
    yield _variables(row, seen, is_there=is_there)


def best_to_read(lists: Lists) -> Row | None:
    """Return an instance to read by its id, one that has not ended and so stays, if there is one."""
    states = [state for state in lists.filled if state in OPEN_STATES] or lists.filled
    return lists.rows[states[0]][0] if states else None


def _listing(*values: str) -> Operation[object]:
    return raw(api.query(COMPLETED), query=tuple(("states", value) for value in values))


def _refusal(granted: str) -> Probing[bool]:
    """Leave out what is documented as required: that must be refused."""
    seen = yield Ask(_listing(), remark="without states")
    code, _ = seen.envelope()
    if may_be_refusal(seen):
        control = yield Ask(_listing(granted))
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


def _unknown_field(lists: Lists, granted: str, *, refuses_with_5xx: bool) -> Probing[None]:
    state = next(iter(lists.filled), granted)
    fields = ("id", "name", "state", NO_SUCH_COLUMN)
    seen = yield Ask(raw(api.query(state, fields=fields, order_field=None)))
    found = verdict(seen, refuses_with_5xx=refuses_with_5xx)
    if found is Verdict.REFUSED:
        yield told("unknown_field", "refused", "refused", seen)
    elif any(row.get(NO_SUCH_COLUMN) is not None for row in rows_of(seen) or ()):
        yield untold("unknown_field", "the rows have a column that should not exist", seen)
    elif rows_of(seen) is not None:
        yield told("unknown_field", "ignored", "ignored: the list comes without it", seen)
    else:
        yield untold("unknown_field", why_unclear(seen), seen)


def _several_states(
    lists: Lists, name: Literal["states_with_commas", "states_repeated"], *, refuses_with_5xx: bool
) -> Probing[None]:
    """Ask for a state that shows rows and one that shows none: in either order the rows must come."""
    full, empty = next(iter(lists.filled), None), next(iter(lists.empty), None)
    granted = dict.fromkeys(filter(None, (empty, full, *lists.rows)))  # the list of each alone is granted
    if len(granted) == 1:
        yield untold(name, "the list of one state alone could be read")
        return
    other, one = list(granted)[:2]
    seen = yield Ask(_both(name, other, one))
    if verdict(seen, refuses_with_5xx=refuses_with_5xx) is Verdict.REFUSED:
        yield told(name, "refused", "refused", seen)
        return
    if rows_of(seen) is None or full is None or empty is None:
        reason = why_unclear(seen)
        if rows_of(seen) is not None:
            reason = lists.no_rows if full is None else "every state shows rows"
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
    elif any(row["state"] != state for row in rows or ()):
        yield untold("plus", "rows of other states came", seen)
    elif found is Verdict.REFUSED or (expected and not rows):
        yield told("plus", "no", f"no: a list that %20 shows is refused or empty with +; {sent}", seen)
    elif expected or unknown_states == "refused":
        yield told("plus", "yes", f"yes; {sent} all the same", seen)
    else:
        yield untold("plus", "the states with a blank show no rows, nor would one that does not exist", seen)


def _content_type(granted: str, *, refuses_with_5xx: bool) -> Probing[None]:
    seen = yield Ask(_listing(granted), content_type=False, remark="no Content-Type")
    found = verdict(seen, refuses_with_5xx=refuses_with_5xx)
    if found is Verdict.UNCLEAR:
        yield untold("content_type", why_unclear(seen), seen)
    elif found is Verdict.REFUSED:
        yield told("content_type", "needed", "needed even by a GET; this provider sends it always", seen)
    else:
        yield told(
            "content_type", "not needed", "not needed by a GET; this provider sends it all the same", seen
        )


def _by_id(row: Row, seen: Seen) -> Probing[bool]:
    """Tell of a read by id, and return whether the instance certainly is there."""
    name = "get_by_id"
    if verdict(seen) is Verdict.ANSWERED:
        point = _shape(name, row, seen)
        yield point
        return point.value != "other"
    if verdict(seen) is Verdict.UNCLEAR:
        yield untold(name, why_unclear(seen), seen)
        return False
    control = yield Ask(raw(api.query(row["state"])), remark="whether it still shows")
    is_there = any(each["id"] == row["id"] for each in rows_of(control) or ())
    if seen.status == 405:
        yield _not_by_id(name, "not allowed", seen)
    elif not is_there:
        yield untold(name, "the instance was gone from its list as well; run it again", seen, control)
    elif is_forbidden(seen):
        words = (
            f"is refused, as for want of a right, with HTTP {seen.status}; instances are found in the lists"
        )
        yield told(name, "refused", words, seen, control, fine=False)
    else:
        yield _not_by_id(name, "absent" if seen.status == 404 else "refused", seen, control)
    return is_there


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


def _variables(row: Row, seen: Seen, *, is_there: bool) -> Point:
    name, unused = "get_variables", "this provider does not read variables"
    if verdict(seen) is Verdict.UNCLEAR:
        return untold(name, why_unclear(seen), seen)
    if verdict(seen) is Verdict.ANSWERED:
        if isinstance(seen.result, dict):
            words = f"works: names with values, {len(seen.result)} for instance {row['id']!r}; {unused}"
            return told(name, "map", words, seen)
        return told(name, "other", f"answers, but not with names and values; {unused}", seen)
    if seen.status != 405 and not is_there:
        return untold(name, "whether the instance is still there could not be told", seen)
    value = "absent" if seen.status in (404, 405) else "refused"
    what = "is not there" if value == "absent" else "is refused"
    right = f", as for want of a right, with HTTP {seen.status}" if is_forbidden(seen) else ""
    return told(name, value, f"{what}{right}; {unused}", seen, fine=not is_forbidden(seen))
