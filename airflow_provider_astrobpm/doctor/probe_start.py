"""Probes of a start: what it requires, when the instance shows, and with which data. They start up to two instances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.client.errors import CallError, ThrottledError
from airflow_provider_astrobpm.doctor.findings import Finding
from airflow_provider_astrobpm.doctor.key_findings import business_key_finding, long_key_finding
from airflow_provider_astrobpm.doctor.observation import (
    AnswerKind,
    Probe,
    answer_kind,
    instance_of,
    is_forbidden,
    raw,
    rows_of,
    text,
    why_unclear,
)
from airflow_provider_astrobpm.doctor.probe_lists import CREATOR
from airflow_provider_astrobpm.doctor.recommended_settings import is_within_grace
from airflow_provider_astrobpm.doctor.start_markers import title_for
from airflow_provider_astrobpm.doctor.started_instances import (
    SentStart,
    StartedInstances,
    await_row,
    terminate_one,
)
from airflow_provider_astrobpm.doctor.timestamp_findings import start_time_finding, timezone_finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_astrobpm.client.csrf import Method
    from airflow_provider_astrobpm.client.settings import Settings
    from airflow_provider_astrobpm.doctor.observation import InstanceRow, Observation, ProbeFlow

NONEXISTENT_VARIABLE = "NoSuchVariableOfTheDoctor"
CSRF_METHODS: tuple[Method, ...] = ("POST", "GET")
CSRF_TOKEN_ACTION = operations.get_csrf_token().attempt
# Whether a start has a CSRF token, and whether it sets a variable that the process does not have.
START_FORMS = ((False, True), (False, False), (True, True), (True, False))


def probe_first_start(
    started: StartedInstances, key: str, settings: Settings, *, refuses_with_5xx: bool
) -> ProbeFlow[tuple[InstanceRow, Observation] | None]:
    """Start one instance, and report what a start requires.

    :param key: the business key of the instance.
    :param refuses_with_5xx: whether this endpoint is known to refuse with HTTP 5xx. An instance that such a start may have
        created is searched for at the end of the run.
    :returns: the instance from the answer, and the answer; ``None`` if none was started.
    """
    seen_so_far: list[Observation] = []
    for csrf, with_variable in START_FORMS:
        start, seen = yield from _start(
            started, key, csrf=csrf, with_variable=with_variable, refuses_with_5xx=refuses_with_5xx
        )
        seen_so_far.append(seen)
        instance = instance_of(seen)
        if instance is not None:
            started.csrf = csrf
            start.instance_id = instance["id"]
            yield Finding.known(
                "start", "started", f"{start} was started, in state {text(instance, 'state')!r}", seen
            )
            yield _csrf_finding(settings, *seen_so_far, needed=csrf)
            yield from _probe_csrf_method(needed=csrf)
            yield _unknown_variable_finding(*seen_so_far, accepted=with_variable)
            yield timezone_finding(instance, seen, settings)
            return instance, seen
        if seen.error is None or not (start.refused or is_not_sent(seen)):
            words = f"an instance of {started.process!r} may have been started: {_describe(seen)}"
            yield Finding.unknown("start", words, *seen_so_far)
            yield Finding.unknown("csrf", "the start may or may not have been processed", *seen_so_far)
            return None
        if (
            _is_futile_to_vary(seen.error)
            and answer_kind(seen, refuses_with_5xx=refuses_with_5xx) is not AnswerKind.REFUSED
        ):
            break
    # If no CSRF token could be fetched, the refusal of a start without one is better evidence.
    refused = [each for each in seen_so_far if each.error and each.error.attempt != CSRF_TOKEN_ACTION] or [
        seen
    ]
    words = f"{started.process!r} was not started: {_describe(refused[-1])}"
    yield Finding.known("start", "failed", words, *seen_so_far, fine=False)
    without_token = (
        "" if len(seen_so_far) == len(START_FORMS) else ", and no start with a CSRF token was sent"
    )
    if refused != seen_so_far and seen.error:
        without_token = f", and no CSRF token could be fetched: {_describe(seen)}"
    yield Finding.unknown("csrf", f"no start was accepted{without_token}", *seen_so_far)
    yield from _probe_csrf_method(needed=None)
    return None


def probe_started_instance(
    started: StartedInstances,
    instance: InstanceRow,
    answer: Observation,
    *,
    settings: Settings,
    filled_states: Iterable[str],
    clock: Callable[[], float],
    refuses_with_5xx: bool,
) -> ProbeFlow[tuple[InstanceRow, Observation] | None]:
    """Report when the instance is visible, what its row shows, and what a second start with its key does.

    :param instance: the instance from the answer to the start.
    :param answer: the answer to the start.
    :param filled_states: the states with instances.
    :param clock: returns the time, in seconds since the epoch.
    :param refuses_with_5xx: whether this endpoint is known to refuse with HTTP 5xx.
    :returns: its row and the list that shows it, or ``None`` if it was never visible.
    """
    begun = clock()
    awaited = yield from await_row(instance["id"], text(instance, "state"), lambda _row: True, clock)
    row, seen, at = awaited.wanted, awaited.observation, awaited.at
    if row is None:
        words = (
            f"it was in no list within {at - begun:.0f} s, or the lists are truncated or hide ended instances"
        )
        yield Finding.unknown("start_lag", words, seen)
    else:
        started.first.shown = True
        lag = round(at - begun, 1)
        words = (
            "shown by the first poll of its list" if lag < 1 else f"shown by a poll {lag:g} s after its start"
        )
        yield Finding.known("start_lag", lag, words, seen, fine=is_within_grace(lag, settings))
        yield business_key_finding(row, started.first.business_key, seen)
        yield from _probe_others(row, filled_states)
    yield long_key_finding(started.first.business_key, instance, row, answer, seen)
    yield start_time_finding(instance, row, answer.at, answer, seen)
    yield from _probe_unknown_variable(started, instance["id"], refuses_with_5xx=refuses_with_5xx)
    yield from _probe_duplicate_key(started, started.first.business_key, refuses_with_5xx=refuses_with_5xx)
    return None if row is None else (row, seen)


def _start(
    started: StartedInstances, key: str, *, csrf: bool, with_variable: bool, refuses_with_5xx: bool
) -> ProbeFlow[tuple[SentStart, Observation]]:
    """Send one start. It is recorded first, and removed again if it certainly did not reach the server."""
    variables = {NONEXISTENT_VARIABLE: "x"} if with_variable else None
    operation = raw(
        operations.start(started.process, variables=variables, business_key=key, title=title_for(key))
    )
    remarks = [
        "an unknown variable" if with_variable else "",
        "a CSRF token" if csrf else "",
    ]
    start = started.record(key)
    seen = yield Probe(operation, csrf=csrf, remark=" and ".join(filter(None, remarks)))
    if is_not_sent(seen):
        started.starts.remove(start)
    is_refused = answer_kind(seen, refuses_with_5xx=refuses_with_5xx) is AnswerKind.REFUSED
    start.refused = is_refused or (seen.error is not None and seen.error.was_processed is False)
    return start, seen


def is_not_sent(seen: Observation) -> bool:
    """Return whether a request certainly did not reach the server."""
    return seen.error is not None and seen.error.never_reached


def _is_futile_to_vary(error: CallError) -> bool:
    """Return whether other forms of the same start would fail too."""
    return error.is_transient or isinstance(error, ThrottledError)


def _describe(seen: Observation) -> str:
    if seen.error is None:
        return "the answer is not an instance"
    said = f" ({seen.error.res_msg})" if seen.error.res_msg else ""
    return f"{seen.error.problem}{said}"


def _csrf_finding(settings: Settings, *seen: Observation, needed: bool) -> Finding:
    if needed:
        fine = settings.csrf
        return Finding.known(
            "csrf", "needed", "refused without one, accepted with one: set 'csrf'", *seen, fine=fine
        )
    return Finding.known("csrf", "not needed", "a start was accepted without one", seen[-1])


def _probe_csrf_method(*, needed: bool | None) -> ProbeFlow[None]:
    """Fetch a CSRF token with each method. If the first method returns none, this provider uses the other.

    :param needed: whether a write needs one; ``None`` if that is unknown.
    """
    answers = {}
    for method in CSRF_METHODS:
        answers[method] = yield Probe(raw(operations.get_csrf_token(method)))
    given = [method for method, seen in answers.items() if seen.error is None and is_csrf_token(seen.result)]
    seen = list(answers.values())
    unclear = next((each for each in seen if answer_kind(each) is AnswerKind.UNCLEAR), None)
    if given:
        words = " and ".join(f"by {method}" for method in given)
        only = " only" if len(given) == 1 else ""
        yield Finding.known("csrf_method", " and ".join(given), f"{words}{only}", *seen)
    elif unclear is not None:
        yield Finding.unknown("csrf_method", why_unclear(unclear), *seen)
    else:
        words = "neither by POST nor by GET; a connection with 'csrf' cannot write here"
        yield Finding.known("csrf_method", "none", words, *seen, fine=needed is False)


def is_csrf_token(result: object) -> bool:
    """Return whether a result is a CSRF token as documented, a string."""
    return isinstance(result, str) and bool(result)


def _unknown_variable_finding(*seen: Observation, accepted: bool) -> Finding:
    if accepted:
        return Finding.known(
            "unknown_variable_at_start", "ignored", "the start was accepted anyway", seen[-1]
        )
    return Finding.known(
        "unknown_variable_at_start", "refused", "refused; the start was accepted without it", *seen[-2:]
    )


def _probe_others(row: InstanceRow, filled_states: Iterable[str]) -> ProbeFlow[None]:
    """Compare the creators of the visible instances with the creator of the new one."""
    own_creator, creators = "", set()
    for state in dict.fromkeys((text(row, "state"), *filled_states)):
        seen = yield Probe(
            raw(operations.query(state, fields=None, order_field=None)), remark="with creators"
        )
        for each in rows_of(seen) or ():
            creators.add(text(each, CREATOR))
            own_creator = text(each, CREATOR) if each["id"] == row["id"] else own_creator
        if own_creator and creators - {own_creator, ""}:
            yield Finding.known("others", "seen", "instances created by other users are visible", seen)
            return
    if not own_creator:
        yield Finding.unknown("others", "no list shows who created the new instance", seen)
        return
    words = (
        "only instances of this user are visible: there are no others, or this user may not see them, or truncated lists hide "
        "them"
    )
    yield Finding.known("others", "none seen", words, seen)


def _probe_unknown_variable(
    started: StartedInstances, instance_id: str, *, refuses_with_5xx: bool
) -> ProbeFlow[None]:
    operation = raw(operations.set_variables(instance_id, {NONEXISTENT_VARIABLE: "x"}))
    seen = yield Probe(operation, csrf=started.csrf, remark="an unknown variable")
    found = answer_kind(seen, refuses_with_5xx=refuses_with_5xx)
    if found is AnswerKind.UNCLEAR:
        yield Finding.unknown("unknown_variable", why_unclear(seen), seen)
    elif found is AnswerKind.REFUSED and is_forbidden(seen):
        words = f"refused, which suggests a missing permission to set variables: {_describe(seen)}"
        yield Finding.known("unknown_variable", "refused", words, seen, fine=False)
    elif found is AnswerKind.REFUSED:
        reason = f"refused, because of the name or a missing permission to set variables: {_describe(seen)}"
        yield Finding.unknown("unknown_variable", reason, seen)
    else:
        started.granted.add("variables")
        yield Finding.known("unknown_variable", "ignored", "accepted silently, as documented", seen)


def _probe_duplicate_key(started: StartedInstances, key: str, *, refuses_with_5xx: bool) -> ProbeFlow[None]:
    start, seen = yield from _start(
        started, key, csrf=started.csrf, with_variable=False, refuses_with_5xx=refuses_with_5xx
    )
    instance = instance_of(seen)
    if instance is not None:
        start.instance_id = instance["id"]
        yield Finding.known("duplicate_key", "started", "another instance was started", seen)
        yield from terminate_one(started, start)
        return
    if is_forbidden(seen):
        reason = f"refused with HTTP {seen.status}, which suggests a missing permission, though the first start was granted"
        yield Finding.unknown("duplicate_key", reason, seen)
    elif answer_kind(seen, refuses_with_5xx=refuses_with_5xx) is AnswerKind.REFUSED:
        words = "refused: a business key cannot be used for a second instance"
        yield Finding.known("duplicate_key", "refused", words, seen)
    else:
        yield Finding.unknown("duplicate_key", why_unclear(seen), seen)
