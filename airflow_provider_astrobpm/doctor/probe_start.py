"""Probes of a start: what it requires, when the instance shows, and with which data. They start up to two instances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.client.errors import ThrottledError
from airflow_provider_astrobpm.doctor.findings import Finding
from airflow_provider_astrobpm.doctor.key_findings import business_key_finding, long_key_finding
from airflow_provider_astrobpm.doctor.observation import Probe, report_findings, text
from airflow_provider_astrobpm.doctor.probe_lists import CREATOR
from airflow_provider_astrobpm.doctor.recommended_settings import is_within_grace
from airflow_provider_astrobpm.doctor.start_markers import title_for
from airflow_provider_astrobpm.doctor.started_instances import await_row, terminate_one
from airflow_provider_astrobpm.doctor.timestamp_findings import start_time_finding, timezone_finding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_astrobpm.client.csrf import Method
    from airflow_provider_astrobpm.client.settings import Settings
    from airflow_provider_astrobpm.doctor.observation import InstanceRow, Observation, ProbeFlow
    from airflow_provider_astrobpm.doctor.started_instances import SentStart, StartedInstances

NONEXISTENT_VARIABLE = "NoSuchVariableOfTheDoctor"
CSRF_METHODS: tuple[Method, ...] = ("POST", "GET")
CSRF_TOKEN_ACTION = operations.get_csrf_token().attempt
# Whether a start has a CSRF token, and whether it sets a variable that the process does not have.
START_FORMS = ((False, True), (False, False), (True, True), (True, False))


def probe_first_start(
    started: StartedInstances, key: str, settings: Settings
) -> ProbeFlow[tuple[InstanceRow, Observation] | None]:
    """Start one instance, and report what a start requires. What a refused start created anyway is searched for at the end.

    :param key: the business key of the instance.
    :returns: the instance from the answer, and the answer; ``None`` if none was started.
    """
    seen_so_far: list[Observation] = []
    for csrf, with_variable in START_FORMS:
        start, seen = yield from _start(started, key, csrf=csrf, with_variable=with_variable)
        seen_so_far.append(seen)
        instance = seen.instance
        if instance is not None:
            started.csrf = csrf
            start.instance_id = instance["id"]
            words = f"{start} was started, in state {text(instance, 'state')!r}"
            yield Finding.known("start", "started", words, seen)
            yield _csrf_finding(settings, *seen_so_far, needed=csrf)
            yield from report_findings(_probe_csrf_method(needed=csrf))
            yield _unknown_variable_finding(*seen_so_far, accepted=with_variable)
            yield timezone_finding(instance, seen, settings)
            return instance, seen
        if seen.error is None or not (start.refused or seen.never_reached):
            words = f"an instance of {started.process!r} may have been started: {_describe(seen)}"
            yield Finding.unknown("start", words, *seen_so_far)
            yield Finding.unknown("csrf", "the start may or may not have been processed", *seen_so_far)
            return None
        is_futile = seen.error.is_transient or isinstance(seen.error, ThrottledError)
        if is_futile and not seen.is_refusal:
            break  # other forms of the same start would fail too
    # If no CSRF token could be fetched, the refusal of a start without one is better evidence.
    refused = [each for each in seen_so_far if each.error and each.error.attempt != CSRF_TOKEN_ACTION]
    words = f"{started.process!r} was not started: {_describe(refused[-1])}"
    yield Finding.known("start", "failed", words, *seen_so_far, fine=False)
    if refused != seen_so_far:
        and_also = f", and no CSRF token could be fetched: {_describe(seen)}"
    elif len(seen_so_far) < len(START_FORMS):
        and_also = ", and no start with a CSRF token was sent"
    else:
        and_also = ""
    yield Finding.unknown("csrf", f"no start was accepted{and_also}", *seen_so_far)
    yield from report_findings(_probe_csrf_method(needed=None))
    return None


def probe_started_instance(
    started: StartedInstances,
    instance: InstanceRow,
    answer: Observation,
    *,
    settings: Settings,
    filled_states: Iterable[str],
) -> ProbeFlow[tuple[InstanceRow, Observation] | None]:
    """Report when the instance is visible, what its row shows, and what a second start with its key does.

    :param instance: the instance from the answer to the start.
    :param answer: the answer to the start.
    :param filled_states: the states with instances.
    :returns: its row and the list that shows it, or ``None`` if it was never visible.
    """
    key = started.first.business_key
    row, _, lag, seen = yield from await_row(instance, answer.at, lambda _row: True)
    if row is None:
        words = f"it was in no list within {lag:.0f} s, or the lists are truncated or hide ended instances"
        yield Finding.unknown("start_lag", words, seen)
    else:
        started.first.shown = True
        how = "the first poll of its list" if lag < 1 else f"a poll {lag:g} s after its start"
        yield Finding.known("start_lag", lag, f"shown by {how}", seen, fine=is_within_grace(lag, settings))
        yield business_key_finding(row, key, seen)
        yield from report_findings(_probe_others(row, filled_states))
    yield long_key_finding(key, instance, row, answer, seen)
    yield start_time_finding(instance, row, answer.at, answer, seen)
    yield from report_findings(_probe_unknown_variable(started, instance["id"]))
    yield from _probe_duplicate_key(started, key)
    return None if row is None else (row, seen)


def _start(
    started: StartedInstances, key: str, *, csrf: bool, with_variable: bool
) -> ProbeFlow[tuple[SentStart, Observation]]:
    """Send one start. It is recorded first, and removed again if it certainly did not reach the server."""
    variables = {NONEXISTENT_VARIABLE: "x"} if with_variable else None
    operation = operations.start(started.process, variables=variables, business_key=key, title=title_for(key))
    remarks = ("an unknown variable" if with_variable else "", "a CSRF token" if csrf else "")
    start = started.record(key)
    seen = yield Probe(operation, csrf=csrf, remark=" and ".join(filter(None, remarks)))
    if seen.never_reached:
        started.starts.remove(start)
    start.refused = seen.is_refusal or (seen.error is not None and seen.error.was_processed is False)
    return start, seen


def _describe(seen: Observation) -> str:
    if seen.error is None:
        return "the answer is not an instance"
    said = f" ({seen.error.res_msg})" if seen.error.res_msg else ""
    return f"{seen.error.problem}{said}"


def _csrf_finding(settings: Settings, *seen: Observation, needed: bool) -> Finding:
    if needed:
        words = "refused without one, accepted with one: set 'csrf'"
        return Finding.known("csrf", "needed", words, *seen, fine=settings.csrf)
    return Finding.known("csrf", "not needed", "a start was accepted without one", seen[-1])


def _probe_csrf_method(*, needed: bool | None) -> ProbeFlow[Finding]:
    """Fetch a CSRF token with each method. If the first method returns none, this provider uses the other.

    :param needed: whether a write needs one; ``None`` if that is unknown.
    """
    given, seen = [], []
    for method in CSRF_METHODS:
        answer: Observation = yield Probe(operations.get_csrf_token(method))
        seen.append(answer)
        if isinstance(answer.result, str) and answer.result:
            given.append(method)
    unclear = next((each for each in seen if each.is_unclear), None)
    if given:
        words = " and ".join(f"by {method}" for method in given)
        only = " only" if len(given) == 1 else ""
        return Finding.known("csrf_method", " and ".join(given), f"{words}{only}", *seen)
    if unclear is not None:
        return Finding.unknown("csrf_method", unclear.why_unclear, *seen)
    words = "neither by POST nor by GET; a connection with 'csrf' cannot write here"
    return Finding.known("csrf_method", "none", words, *seen, fine=needed is False)


def _unknown_variable_finding(*seen: Observation, accepted: bool) -> Finding:
    name = "unknown_variable_at_start"
    if accepted:
        return Finding.known(name, "ignored", "the start was accepted anyway", seen[-1])
    return Finding.known(name, "refused", "refused; the start was accepted without it", *seen[-2:])


def _probe_others(row: InstanceRow, filled_states: Iterable[str]) -> ProbeFlow[Finding]:
    """Compare the creators of the visible instances with the creator of the new one."""
    own_creator, creators = "", set()
    for state in dict.fromkeys((text(row, "state"), *filled_states)):
        operation = operations.query(state, fields=None, order_field=None)
        seen = yield Probe(operation, remark="with creators")
        for each in seen.rows or ():
            creators.add(text(each, CREATOR))
            own_creator = text(each, CREATOR) if each["id"] == row["id"] else own_creator
        if own_creator and creators - {own_creator, ""}:
            return Finding.known("others", "seen", "instances created by other users are visible", seen)
    if not own_creator:
        return Finding.unknown("others", "no list shows who created the new instance", seen)
    words = (
        "only instances of this user are visible: there are no others, or this user may not see them, or truncated lists hide "
        "them"
    )
    return Finding.known("others", "none seen", words, seen)


def _probe_unknown_variable(started: StartedInstances, instance_id: str) -> ProbeFlow[Finding]:
    operation = operations.set_variables(instance_id, {NONEXISTENT_VARIABLE: "x"})
    seen = yield Probe(operation, csrf=started.csrf, remark="an unknown variable")
    if seen.is_unclear:
        return Finding.unknown("unknown_variable", seen.why_unclear, seen)
    if seen.is_refusal and seen.is_forbidden:
        words = f"refused, which suggests a missing permission to set variables: {_describe(seen)}"
        return Finding.known("unknown_variable", "refused", words, seen, fine=False)
    if seen.is_refusal:
        reason = f"refused, because of the name or a missing permission to set variables: {_describe(seen)}"
        return Finding.unknown("unknown_variable", reason, seen)
    started.granted.add("setting variables")
    return Finding.known("unknown_variable", "ignored", "accepted silently, as documented", seen)


def _probe_duplicate_key(started: StartedInstances, key: str) -> ProbeFlow[None]:
    start, seen = yield from _start(started, key, csrf=started.csrf, with_variable=False)
    instance = seen.instance
    if instance is not None:
        start.instance_id = instance["id"]
        yield Finding.known("duplicate_key", "started", "another instance was started", seen)
        yield from terminate_one(started, start)
    elif seen.is_forbidden:
        reason = f"refused{seen.permission_hint}, though the first start was granted"
        yield Finding.unknown("duplicate_key", reason, seen)
    elif seen.is_refusal:
        words = "refused: a business key cannot be used for a second instance"
        yield Finding.known("duplicate_key", "refused", words, seen)
    else:
        yield Finding.unknown("duplicate_key", seen.why_unclear, seen)
