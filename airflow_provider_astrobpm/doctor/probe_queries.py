"""Probes of undocumented reads: by id, with several states, with nonexistent names, and with other spellings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, quote_plus

import msgspec

from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.client.states import COMPLETED, OPEN_STATES, STATES
from airflow_provider_astrobpm.client.wire import decode_instance
from airflow_provider_astrobpm.doctor.findings import Finding
from airflow_provider_astrobpm.doctor.observation import (
    AnswerKind,
    Probe,
    answer_kind,
    instance_of,
    is_forbidden,
    may_be_refusal,
    raw,
    rows_of,
    why_unclear,
)
from airflow_provider_astrobpm.doctor.probe_lists import NO_INSTANCE_VISIBLE

if TYPE_CHECKING:
    from airflow_provider_astrobpm.client.operations import Operation
    from airflow_provider_astrobpm.doctor.observation import InstanceRow, Observation, ProbeFlow
    from airflow_provider_astrobpm.doctor.probe_lists import StateLists

NONEXISTENT_STATE = "NoSuchState"
NONEXISTENT_COLUMN = "noSuchColumn"
NONEXISTENT_ID = "0000noSuchInstance00"
QUERY_FINDINGS = (
    "refusal",
    "unknown_state",
    "unknown_field",
    "states_with_commas",
    "states_repeated",
    "plus",
    "content_type",
)
STATES_WITH_BLANKS = [state for state in STATES if " " in state]


def probe_queries(lists: StateLists) -> ProbeFlow[bool]:
    """Report undocumented reads, and return whether this endpoint refuses with HTTP 5xx.

    A refusal is evidence only if the documented form of the same list is granted.
    """
    granted = lists.granted
    if granted is None:
        for name in QUERY_FINDINGS:
            yield Finding.unknown(name, f"{lists.why_no_rows}, so a refusal would be no evidence")
        return False
    refuses_with_5xx = yield from _probe_refusal(granted)
    unknown_states = yield from _probe_unknown_state(refuses_with_5xx=refuses_with_5xx)
    yield from _probe_unknown_field(lists, granted, refuses_with_5xx=refuses_with_5xx)
    yield from _probe_several_states(lists, "states_with_commas", refuses_with_5xx=refuses_with_5xx)
    yield from _probe_several_states(lists, "states_repeated", refuses_with_5xx=refuses_with_5xx)
    yield from _probe_plus(lists, unknown_states, refuses_with_5xx=refuses_with_5xx)
    yield from _probe_content_type(granted, refuses_with_5xx=refuses_with_5xx)
    return refuses_with_5xx


def probe_by_id(row: InstanceRow | None, no_row: str = NO_INSTANCE_VISIBLE) -> ProbeFlow[None]:
    """Report whether an instance and its variables can be read by id.

    :param row: an instance from the lists, if there is one.
    :param no_row: why there is none, in words.
    """
    if row is None:
        seen = yield Probe(raw(operations.get_instance(NONEXISTENT_ID)), remark="a nonexistent id")
        if seen.status == 405:
            yield _not_by_id_finding("get_by_id", "not allowed", seen)
        else:
            yield Finding.unknown("get_by_id", f"{no_row}, so there is none to read", seen)
        yield Finding.unknown("get_variables", f"{no_row}, so there is none to read")
        return
    operation = raw(operations.get_instance(row["id"]))
    is_there = yield from _by_id_finding(row, (yield Probe(operation)))
    path = f"{operation.path}/variables"
    seen = yield Probe(msgspec.structs.replace(operation, path=path, attempt="read the variables"))
    yield _variables_finding(row, seen, is_there=is_there)


def instance_to_read(lists: StateLists) -> InstanceRow | None:
    """Return an instance to read by its id, preferably an open one, which stays visible."""
    states = [state for state in lists.non_empty if state in OPEN_STATES] or lists.non_empty
    return lists.rows[states[0]][0] if states else None


def _listing(*values: str) -> Operation[object]:
    return raw(operations.query(COMPLETED), query=tuple(("states", value) for value in values))


def _probe_refusal(granted: str) -> ProbeFlow[bool]:
    """Omit a parameter that is documented as required: the endpoint must refuse that."""
    seen = yield Probe(_listing(), remark="without states")
    code, _ = seen.envelope()
    if may_be_refusal(seen):
        control = yield Probe(_listing(granted))
        if control.error is None:
            words = (
                f"with HTTP {seen.status} and resCode {code!r}, like a failure: a refused start counts as one that the server may "
                "have processed, and a refused read is resent to no purpose"
            )
            yield Finding.known("refusal", f"HTTP {seen.status}", words, seen, control, fine=False)
            return True
    if answer_kind(seen) is AnswerKind.REFUSED:
        yield Finding.known(
            "refusal", f"HTTP {seen.status}", f"with HTTP {seen.status} and resCode {code!r}", seen
        )
    elif answer_kind(seen) is AnswerKind.ANSWERED:
        yield Finding.unknown("refusal", "a list without the required parameter states is not refused", seen)
    else:
        yield Finding.unknown("refusal", why_unclear(seen), seen)
    return False


def _probe_unknown_state(*, refuses_with_5xx: bool) -> ProbeFlow[str | None]:
    seen = yield Probe(_listing(NONEXISTENT_STATE))
    found = answer_kind(seen, refuses_with_5xx=refuses_with_5xx)
    if found is AnswerKind.REFUSED:
        yield Finding.known("unknown_state", "refused", "refused", seen)
        return "refused"
    if rows_of(seen) == []:
        yield Finding.known("unknown_state", "empty", "a list without rows, as if the state existed", seen)
        return "empty"
    if rows_of(seen):
        yield Finding.known("unknown_state", "rows", "rows of other states", seen, fine=False)
        return "rows"
    yield Finding.unknown("unknown_state", why_unclear(seen), seen)
    return None


def _probe_unknown_field(lists: StateLists, granted: str, *, refuses_with_5xx: bool) -> ProbeFlow[None]:
    state = next(iter(lists.non_empty), granted)
    fields = ("id", "name", "state", NONEXISTENT_COLUMN)
    seen = yield Probe(raw(operations.query(state, fields=fields, order_field=None)))
    found = answer_kind(seen, refuses_with_5xx=refuses_with_5xx)
    if found is AnswerKind.REFUSED:
        yield Finding.known("unknown_field", "refused", "refused", seen)
    elif any(row.get(NONEXISTENT_COLUMN) is not None for row in rows_of(seen) or ()):
        yield Finding.unknown("unknown_field", "the rows have a column that should not exist", seen)
    elif rows_of(seen) is not None:
        yield Finding.known("unknown_field", "ignored", "ignored: the list was sent without it", seen)
    else:
        yield Finding.unknown("unknown_field", why_unclear(seen), seen)


def _probe_several_states(
    lists: StateLists, name: Literal["states_with_commas", "states_repeated"], *, refuses_with_5xx: bool
) -> ProbeFlow[None]:
    """Request a state with rows together with an empty one, in both orders: each answer must have the rows."""
    full, empty = next(iter(lists.non_empty), None), next(iter(lists.empty), None)
    granted = dict.fromkeys(
        filter(None, (empty, full, *lists.rows))
    )  # each of these lists is granted by itself
    if len(granted) == 1:
        yield Finding.unknown(name, "only one state can be listed, and this needs two")
        return
    other, one = list(granted)[:2]
    seen = yield Probe(_both(name, other, one))
    if answer_kind(seen, refuses_with_5xx=refuses_with_5xx) is AnswerKind.REFUSED:
        yield Finding.known(name, "refused", "refused", seen)
        return
    if rows_of(seen) is None or full is None or empty is None:
        reason = why_unclear(seen)
        if rows_of(seen) is not None:
            reason = lists.why_no_rows if full is None else "every state has rows"
        yield Finding.unknown(name, reason, seen)
        return
    turned = yield Probe(_both(name, one, other))
    if rows_of(turned) is None:
        yield Finding.unknown(name, why_unclear(turned), seen, turned)
        return
    last, first = bool(rows_of(seen)), bool(rows_of(turned))
    value, words = {
        (True, True): ("honoured", "honoured: the instances of all states are sent"),
        (True, False): ("last only", "only the last one counts"),
        (False, True): ("first only", "only the first one counts"),
        (False, False): ("none", "the instances of neither state are sent"),
    }[last, first]
    yield Finding.known(name, value, f"{words}; this provider requests one state at a time", seen, turned)


def _both(name: str, one: str, other: str) -> Operation[object]:
    return _listing(f"{one},{other}") if name == "states_with_commas" else _listing(one, other)


def _probe_plus(lists: StateLists, unknown_states: str | None, *, refuses_with_5xx: bool) -> ProbeFlow[None]:
    state = next((state for state in lists.non_empty if " " in state), STATES_WITH_BLANKS[0])
    plain = _listing(state)
    seen = yield Probe(plain, target=plain.target.replace(quote(state), quote_plus(state)))
    expected = lists.rows.get(state)
    found = answer_kind(seen, refuses_with_5xx=refuses_with_5xx)
    rows = rows_of(seen)
    sent = "this provider sends %20"
    if expected is None or (found is AnswerKind.ANSWERED and rows is None) or found is AnswerKind.UNCLEAR:
        yield Finding.unknown("plus", why_unclear(seen), seen)
    elif any(row["state"] != state for row in rows or ()):
        yield Finding.unknown("plus", "the list has rows of other states", seen)
    elif found is AnswerKind.REFUSED or (expected and not rows):
        yield Finding.known(
            "plus", "no", f"no: a list with rows for %20 is refused or empty for +; {sent}", seen
        )
    elif expected or unknown_states == "refused":
        yield Finding.known("plus", "yes", f"yes; {sent} anyway", seen)
    else:
        yield Finding.unknown(
            "plus",
            "the states with a space have no rows, and a nonexistent state would show none either",
            seen,
        )


def _probe_content_type(granted: str, *, refuses_with_5xx: bool) -> ProbeFlow[None]:
    seen = yield Probe(_listing(granted), content_type=False, remark="no Content-Type")
    found = answer_kind(seen, refuses_with_5xx=refuses_with_5xx)
    if found is AnswerKind.UNCLEAR:
        yield Finding.unknown("content_type", why_unclear(seen), seen)
    elif found is AnswerKind.REFUSED:
        yield Finding.known(
            "content_type", "needed", "required even for a GET; this provider always sends it", seen
        )
    else:
        yield Finding.known(
            "content_type", "not needed", "not required for a GET; this provider always sends it", seen
        )


def _by_id_finding(row: InstanceRow, seen: Observation) -> ProbeFlow[bool]:
    """Report a read by id, and return whether the instance certainly exists."""
    name = "get_by_id"
    if answer_kind(seen) is AnswerKind.ANSWERED:
        finding = _shape_finding(name, row, seen)
        yield finding
        return finding.value != "other"
    if answer_kind(seen) is AnswerKind.UNCLEAR:
        yield Finding.unknown(name, why_unclear(seen), seen)
        return False
    control = yield Probe(raw(operations.query(row["state"])), remark="whether it is still listed")
    is_there = any(each["id"] == row["id"] for each in rows_of(control) or ())
    if seen.status == 405:
        yield _not_by_id_finding(name, "not allowed", seen)
    elif not is_there:
        yield Finding.unknown(name, "the instance also left its list meanwhile; run it again", seen, control)
    elif is_forbidden(seen):
        words = f"refused with HTTP {seen.status}, which suggests a missing permission; instances are searched in the lists"
        yield Finding.known(name, "refused", words, seen, control, fine=False)
    else:
        yield _not_by_id_finding(name, "absent" if seen.status == 404 else "refused", seen, control)
    return is_there


def _shape_finding(name: str, row: InstanceRow, seen: Observation) -> Finding:
    instance = instance_of(seen)
    try:
        readable = instance is not None and decode_instance(msgspec.json.encode(instance)).id == row["id"]
    except msgspec.ValidationError:
        readable = False
    if instance is None or not readable:
        words = "the answer is not this instance; instances are searched in the lists"
        return Finding.known(name, "other", words, seen)
    value = "action" if "isClosed" in instance or "nextElem" in instance else "row"
    shape = "an action's answer" if value == "action" else "a row of a list"
    return Finding.known(name, value, f"works, in the shape of {shape}", seen)


def _not_by_id_finding(name: str, value: str, *seen: Observation) -> Finding:
    words = "does not exist" if value == "absent" else value
    return Finding.known(name, value, f"{words}; instances are searched in the lists", *seen)


def _variables_finding(row: InstanceRow, seen: Observation, *, is_there: bool) -> Finding:
    name, unused = "get_variables", "this provider does not read variables"
    if answer_kind(seen) is AnswerKind.UNCLEAR:
        return Finding.unknown(name, why_unclear(seen), seen)
    if answer_kind(seen) is AnswerKind.ANSWERED:
        if isinstance(seen.result, dict):
            words = f"works: names with values, {len(seen.result)} for instance {row['id']!r}; {unused}"
            return Finding.known(name, "map", words, seen)
        return Finding.known(name, "other", f"the answer does not have names and values; {unused}", seen)
    if seen.status != 405 and not is_there:
        return Finding.unknown(name, "the instance may not exist any more", seen)
    value = "absent" if seen.status in (404, 405) else "refused"
    what = "does not exist" if value == "absent" else "refused"
    hint = f" with HTTP {seen.status}, which suggests a missing permission" if is_forbidden(seen) else ""
    return Finding.known(name, value, f"{what}{hint}; {unused}", seen, fine=not is_forbidden(seen))
