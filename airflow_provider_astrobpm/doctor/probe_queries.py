"""Probes of undocumented reads: by id, with several states, with nonexistent names, and with other spellings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import msgspec

from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.client.errors import RefusedError
from airflow_provider_astrobpm.client.states import COMPLETED, STATES
from airflow_provider_astrobpm.doctor.findings import Finding, all_unknown
from airflow_provider_astrobpm.doctor.observation import Probe, as_instance, report_findings
from airflow_provider_astrobpm.doctor.probe_lists import NO_INSTANCE_VISIBLE

if TYPE_CHECKING:
    from airflow_provider_astrobpm.client.operations import Operation
    from airflow_provider_astrobpm.doctor.observation import InstanceRow, Observation, ProbeFlow
    from airflow_provider_astrobpm.doctor.probe_lists import StateLists

NONEXISTENT_STATE = "NoSuchState"
NONEXISTENT_COLUMN = "noSuchColumn"
NONEXISTENT_ID = "0000noSuchInstance00"
SEVERAL_STATES_FINDINGS = ("states_with_commas", "states_repeated")
QUERY_FINDINGS = ("unknown_state", "unknown_field", *SEVERAL_STATES_FINDINGS, "plus", "content_type")
STATES_WITH_BLANKS = [state for state in STATES if " " in state]


def probe_refusal(lists: StateLists) -> ProbeFlow[bool]:
    """Omit a parameter that is documented as required, and return whether this endpoint refuses that with HTTP 5xx."""
    if lists.granted is None:
        yield Finding.unknown("refusal", _no_evidence(lists))
        return False
    seen = yield Probe(_listing(), remark="without states")
    how = f"with HTTP {seen.status} and resCode {seen.envelope[0]!r}"
    if seen.may_be_refusal:
        control = yield Probe(_listing(lists.granted))
        if control.error is None:
            words = (
                f"{how}, like a failure: a refused start counts as one that the server may have processed, and a refused read is "
                "resent to no purpose"
            )
            yield Finding.known("refusal", f"HTTP {seen.status}", words, seen, control, fine=False)
            return True
    if isinstance(seen.error, RefusedError):
        yield Finding.known("refusal", f"HTTP {seen.status}", how, seen)
    elif seen.error is None:
        yield Finding.unknown("refusal", "a list without the required parameter states is not refused", seen)
    else:
        yield Finding.unknown("refusal", seen.why_unclear, seen)
    return False


def probe_queries(lists: StateLists) -> ProbeFlow[None]:
    """Report undocumented reads. A refusal is evidence only if the documented form of the same list is granted."""
    granted = lists.granted
    if granted is None:
        yield from all_unknown(QUERY_FINDINGS, _no_evidence(lists))
        return
    unknown_state = yield from _probe_unknown_state()
    yield unknown_state
    yield from report_findings(
        _probe_unknown_field(lists, granted),
        *(_probe_several_states(lists, name) for name in SEVERAL_STATES_FINDINGS),
        _probe_plus(lists, unknown_state),
        _probe_content_type(granted),
    )


def probe_by_id(row: InstanceRow | None, no_row: str = NO_INSTANCE_VISIBLE) -> ProbeFlow[None]:
    """Report whether an instance and its variables can be read by id.

    :param row: an instance from the lists, if there is one.
    :param no_row: why there is none, in words.
    """
    if row is None:
        seen = yield Probe(operations.get_instance(NONEXISTENT_ID), remark="a nonexistent id")
        if seen.status == 405:
            yield _not_by_id_finding("get_by_id", "not allowed", seen)
        else:
            yield Finding.unknown("get_by_id", f"{no_row}, so there is none to read", seen)
        yield Finding.unknown("get_variables", f"{no_row}, so there is none to read")
        return
    operation = operations.get_instance(row["id"])
    is_there = yield from _by_id_finding(row, (yield Probe(operation)))
    path = f"{operation.path}/variables"
    seen = yield Probe(msgspec.structs.replace(operation, path=path, attempt="read the variables"))
    yield _variables_finding(row, seen, is_there=is_there)


def _no_evidence(lists: StateLists) -> str:
    return f"{lists.why_no_rows}, so a refusal would be no evidence"


def _listing(*values: str) -> Operation[Any]:
    query = tuple(("states", value) for value in values)
    return msgspec.structs.replace(operations.query(COMPLETED), query=query)


def _probe_unknown_state() -> ProbeFlow[Finding]:
    seen = yield Probe(_listing(NONEXISTENT_STATE))
    if seen.is_refusal:
        return Finding.known("unknown_state", "refused", "refused", seen)
    if seen.rows == []:
        return Finding.known("unknown_state", "empty", "a list without rows, as if the state existed", seen)
    if seen.rows:
        return Finding.known("unknown_state", "rows", "rows of other states", seen, fine=False)
    return Finding.unknown("unknown_state", seen.why_unclear, seen)


def _probe_unknown_field(lists: StateLists, granted: str) -> ProbeFlow[Finding]:
    state = next(iter(lists.non_empty), granted)
    fields = ("id", "name", "state", NONEXISTENT_COLUMN)
    seen = yield Probe(operations.query(state, fields=fields, order_field=None))
    if seen.is_refusal:
        return Finding.known("unknown_field", "refused", "refused", seen)
    if any(row.get(NONEXISTENT_COLUMN) is not None for row in seen.rows or ()):
        return Finding.unknown("unknown_field", "the rows have a column that should not exist", seen)
    if seen.rows is not None:
        return Finding.known("unknown_field", "ignored", "ignored: the list was sent without it", seen)
    return Finding.unknown("unknown_field", seen.why_unclear, seen)


def _probe_several_states(lists: StateLists, name: str) -> ProbeFlow[Finding]:
    """Request a state with rows together with an empty one, in both orders: each answer must have the rows."""
    full, empty = next(iter(lists.non_empty), None), next(iter(lists.empty), None)
    if len(lists.rows) == 1:
        return Finding.unknown(name, "only one state can be listed, and this needs two")
    other, one, *_ = dict.fromkeys(filter(None, (empty, full, *lists.rows)))  # each is granted by itself
    seen = yield Probe(_both(name, other, one))
    if seen.is_refusal:
        return Finding.known(name, "refused", "refused", seen)
    if seen.rows is None:
        return Finding.unknown(name, seen.why_unclear, seen)
    if full is None or empty is None:
        return Finding.unknown(name, lists.why_no_rows if full is None else "every state has rows", seen)
    turned = yield Probe(_both(name, one, other))
    if turned.rows is None:
        return Finding.unknown(name, turned.why_unclear, seen, turned)
    last, first = bool(seen.rows), bool(turned.rows)
    value, words = {
        (True, True): ("honoured", "honoured: the instances of all states are sent"),
        (True, False): ("last only", "only the last one counts"),
        (False, True): ("first only", "only the first one counts"),
        (False, False): ("none", "the instances of neither state are sent"),
    }[last, first]
    return Finding.known(name, value, f"{words}; this provider requests one state at a time", seen, turned)


def _both(name: str, one: str, other: str) -> Operation[Any]:
    return _listing(f"{one},{other}") if name == "states_with_commas" else _listing(one, other)


def _probe_plus(lists: StateLists, unknown_state: Finding) -> ProbeFlow[Finding]:
    state = next((state for state in lists.non_empty if " " in state), STATES_WITH_BLANKS[0])
    plain = _listing(state)
    seen = yield Probe(plain, target=plain.target.replace(quote(state), quote_plus(state)))
    expected = lists.rows.get(state)
    rows = seen.rows
    sent = "this provider sends %20"
    if expected is None or (rows is None and not seen.is_refusal):
        return Finding.unknown("plus", seen.why_unclear, seen)
    if any(row["state"] != state for row in rows or ()):
        return Finding.unknown("plus", "the list has rows of other states", seen)
    if seen.is_refusal or (expected and not rows):
        words = f"no: a list with rows for %20 is refused or empty for +; {sent}"
        return Finding.known("plus", "no", words, seen)
    if expected or unknown_state.value == "refused":
        return Finding.known("plus", "yes", f"yes; {sent} anyway", seen)
    reason = "the states with a space have no rows, and a nonexistent state would show none either"
    return Finding.unknown("plus", reason, seen)


def _probe_content_type(granted: str) -> ProbeFlow[Finding]:
    seen = yield Probe(_listing(granted), content_type=False, remark="no Content-Type")
    if seen.is_unclear:
        return Finding.unknown("content_type", seen.why_unclear, seen)
    value, words = ("needed", "required even") if seen.is_refusal else ("not needed", "not required")
    return Finding.known("content_type", value, f"{words} for a GET; this provider always sends it", seen)


def _by_id_finding(row: InstanceRow, seen: Observation) -> ProbeFlow[bool]:
    """Report a read by id, and return whether the instance certainly exists."""
    name = "get_by_id"
    if seen.error is None:
        finding = _shape_finding(name, row, seen)
        yield finding
        return finding.value != "other"
    if seen.is_unclear:
        yield Finding.unknown(name, seen.why_unclear, seen)
        return False
    control = yield Probe(operations.query(row["state"]), remark="whether it is still listed")
    is_there = any(each["id"] == row["id"] for each in control.rows or ())
    if seen.status == 405:
        yield _not_by_id_finding(name, "not allowed", seen)
    elif not is_there:
        yield Finding.unknown(name, "the instance also left its list meanwhile; run it again", seen, control)
    elif seen.is_forbidden:
        words = f"refused{seen.permission_hint}; instances are searched in the lists"
        yield Finding.known(name, "refused", words, seen, control, fine=False)
    else:
        yield _not_by_id_finding(name, "absent" if seen.status == 404 else "refused", seen, control)
    return is_there


def _shape_finding(name: str, row: InstanceRow, seen: Observation) -> Finding:
    columns = seen.instance or {}
    instance = as_instance(columns)
    if instance is None or instance.id != row["id"]:
        words = "the answer is not this instance; instances are searched in the lists"
        return Finding.known(name, "other", words, seen)
    if "isClosed" in columns or "nextElem" in columns:
        return Finding.known(name, "action", "works, in the shape of an action's answer", seen)
    return Finding.known(name, "row", "works, in the shape of a row of a list", seen)


def _not_by_id_finding(name: str, value: str, *seen: Observation) -> Finding:
    words = "does not exist" if value == "absent" else value
    return Finding.known(name, value, f"{words}; instances are searched in the lists", *seen)


def _variables_finding(row: InstanceRow, seen: Observation, *, is_there: bool) -> Finding:
    name, unused = "get_variables", "this provider does not read variables"
    if seen.is_unclear:
        return Finding.unknown(name, seen.why_unclear, seen)
    if seen.error is None:
        if isinstance(seen.result, dict):
            words = f"works: names with values, {len(seen.result)} for instance {row['id']!r}; {unused}"
            return Finding.known(name, "map", words, seen)
        return Finding.known(name, "other", f"the answer does not have names and values; {unused}", seen)
    if seen.status != 405 and not is_there:
        return Finding.unknown(name, "the instance may not exist any more", seen)
    if seen.status in (404, 405):
        return Finding.known(name, "absent", f"does not exist; {unused}", seen)
    words = f"refused{seen.permission_hint}; {unused}"
    return Finding.known(name, "refused", words, seen, fine=not seen.is_forbidden)
