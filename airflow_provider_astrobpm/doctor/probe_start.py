"""Probes of a start: what it needs, when the instance shows, and what it carries. They start up to two instances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_astrobpm.bpm import api
from airflow_provider_astrobpm.bpm.errors import CallError, ThrottledError
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

    from airflow_provider_astrobpm.bpm.csrf import Method
    from airflow_provider_astrobpm.bpm.settings import Settings
    from airflow_provider_astrobpm.doctor.observation import Observation, ProbeFlow, Row

UNKNOWN_VARIABLE = "NoSuchVariableOfTheDoctor"
# Whether a start carries a CSRF token, and whether it sets a variable that the process does not have.
CSRF_METHODS: tuple[Method, ...] = ("POST", "GET")
CSRF_TOKEN_ACTION = api.get_csrf_token().attempt
START_FORMS = ((False, True), (False, False), (True, True), (True, False))


def probe_first_start(
    own: StartedInstances, key: str, settings: Settings, *, refuses_with_5xx: bool
) -> ProbeFlow[tuple[Row, Observation] | None]:
    """Start one instance, and find out what a start needs for it.

    :param key: the business key that it is to carry.
    :param refuses_with_5xx: whether this endpoint is known to refuse with HTTP 5xx. What such a start may have left is looked
        for when all is done.
    :returns: the instance as the start's answer shows it, and the answer; ``None`` if none was started.
    """
    seen_so_far: list[Observation] = []
    for csrf, with_variable in START_FORMS:
        start, seen = yield from _start(
            own, key, csrf=csrf, with_variable=with_variable, refuses_with_5xx=refuses_with_5xx
        )
        seen_so_far.append(seen)
        instance = instance_of(seen)
        if instance is not None:
            own.csrf = csrf
            start.instance_id = instance["id"]
            yield Finding.known(
                "start", "started", f"{start} was started, in state {text(instance, 'state')!r}", seen
            )
            yield _csrf_finding(settings, *seen_so_far, needed=csrf)
            yield from _probe_csrf_method(needed=csrf)
            yield _unknown_variable_finding(*seen_so_far, taken=with_variable)
            yield timezone_finding(instance, seen, settings)
            return instance, seen
        if seen.error is None or not (start.refused or is_not_sent(seen)):
            words = f"whether an instance of {own.process!r} was started is not known: {_describe(seen)}"
            yield Finding.unknown("start", words, *seen_so_far)
            yield Finding.unknown("csrf", "whether a start was taken is not known", *seen_so_far)
            return None
        if (
            _is_futile_to_vary(seen.error)
            and answer_kind(seen, refuses_with_5xx=refuses_with_5xx) is not AnswerKind.REFUSED
        ):
            break
    # Where there was no CSRF token, the start without one tells more.
    refused = [each for each in seen_so_far if each.error and each.error.attempt != CSRF_TOKEN_ACTION] or [
        seen
    ]
    words = f"{own.process!r} was not started: {_describe(refused[-1])}"
    yield Finding.known("start", "failed", words, *seen_so_far, fine=False)
    without_token = "" if len(seen_so_far) == len(START_FORMS) else ", and none with a CSRF token was sent"
    if refused != seen_so_far and seen.error:
        without_token = f", and no CSRF token could be fetched: {_describe(seen)}"
    yield Finding.unknown("csrf", f"no start was taken{without_token}", *seen_so_far)
    yield from _probe_csrf_method(needed=None)
    return None


def probe_started_instance(
    own: StartedInstances,
    instance: Row,
    answer: Observation,
    *,
    settings: Settings,
    places: Iterable[str],
    clock: Callable[[], float],
    refuses_with_5xx: bool,
) -> ProbeFlow[tuple[Row, Observation] | None]:
    """Tell when the instance shows and what its row says, and what a second start with its key does.

    :param instance: as the start's answer shows it.
    :param answer: the start's answer.
    :param places: the states that show instances.
    :param clock: the time, in seconds since the epoch.
    :param refuses_with_5xx: whether this endpoint is known to refuse with HTTP 5xx.
    :returns: its row and the list that shows it, or ``None`` if it never showed.
    """
    begun = clock()
    awaited = yield from await_row(instance["id"], text(instance, "state"), lambda _row: True, clock)
    row, seen, at = awaited.wanted, awaited.observation, awaited.at
    if row is None:
        words = f"it did not show in any list within {at - begun:.0f} s, or the lists hide what has ended or are cut off"
        yield Finding.unknown("start_lag", words, seen)
    else:
        own.first.shown = True
        lag = round(at - begun, 1)
        words = (
            "the first look at its list showed it"
            if lag < 1
            else f"it showed at a look {lag:g} s after its start"
        )
        yield Finding.known("start_lag", lag, words, seen, fine=is_within_grace(lag, settings))
        yield business_key_finding(row, own.first.business_key, seen)
        yield from _probe_others(row, places)
    yield long_key_finding(own.first.business_key, instance, row, answer, seen)
    yield start_time_finding(instance, row, answer.at, answer, seen)
    yield from _probe_unknown_variable(own, instance["id"], refuses_with_5xx=refuses_with_5xx)
    yield from _probe_duplicate_key(own, own.first.business_key, refuses_with_5xx=refuses_with_5xx)
    return None if row is None else (row, seen)


def _start(
    own: StartedInstances, key: str, *, csrf: bool, with_variable: bool, refuses_with_5xx: bool
) -> ProbeFlow[tuple[SentStart, Observation]]:
    """Send one start, written down before it is sent, and crossed out if it certainly was not."""
    variables = {UNKNOWN_VARIABLE: "x"} if with_variable else None
    operation = raw(api.start(own.process, variables=variables, business_key=key, title=title_for(key)))
    remarks = [
        "an unknown variable" if with_variable else "",
        "a CSRF token" if csrf else "",
    ]
    start = own.begin(key)
    seen = yield Probe(operation, csrf=csrf, remark=" and ".join(filter(None, remarks)))
    if is_not_sent(seen):
        own.starts.remove(start)
    is_refused = answer_kind(seen, refuses_with_5xx=refuses_with_5xx) is AnswerKind.REFUSED
    start.refused = is_refused or (seen.error is not None and seen.error.taken is False)
    return start, seen


def is_not_sent(seen: Observation) -> bool:
    """Return whether a request certainly did not reach the server."""
    return seen.error is not None and seen.error.never_reached


def _is_futile_to_vary(error: CallError) -> bool:
    """Tell whether another form of the same start would fare no better."""
    return error.passing or isinstance(error, ThrottledError)


def _describe(seen: Observation) -> str:
    if seen.error is None:
        return "the answer is no instance"
    said = f" ({seen.error.res_msg})" if seen.error.res_msg else ""
    return f"{seen.error.problem}{said}"


def _csrf_finding(settings: Settings, *seen: Observation, needed: bool) -> Finding:
    if needed:
        fine = settings.csrf
        return Finding.known(
            "csrf", "needed", "refused without one, taken with one: set 'csrf'", *seen, fine=fine
        )
    return Finding.known("csrf", "not needed", "a start was taken without one", seen[-1])


def _probe_csrf_method(*, needed: bool | None) -> ProbeFlow[None]:
    """Fetch a CSRF token by either method. This provider tries the other one where there is nothing by the first.

    :param needed: whether a write needs one; ``None`` where that could not be told.
    """
    answers = {}
    for method in CSRF_METHODS:
        answers[method] = yield Probe(raw(api.get_csrf_token(method)))
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
        words = "neither by POST nor by GET; a connection with 'csrf' cannot write anything here"
        yield Finding.known("csrf_method", "none", words, *seen, fine=needed is False)


def is_csrf_token(result: object) -> bool:
    """Return whether this is what a CSRF token is documented to be, a text."""
    return isinstance(result, str) and bool(result)


def _unknown_variable_finding(*seen: Observation, taken: bool) -> Finding:
    if taken:
        return Finding.known(
            "unknown_variable_at_start", "ignored", "the start was taken all the same", seen[-1]
        )
    return Finding.known(
        "unknown_variable_at_start", "refused", "refused; without it the start was taken", *seen[-2:]
    )


def _probe_others(row: Row, places: Iterable[str]) -> ProbeFlow[None]:
    """Compare who created the instances that show with who created the new one."""
    mine, creators = "", set()
    for state in dict.fromkeys((text(row, "state"), *places)):
        seen = yield Probe(raw(api.query(state, fields=None, order_field=None)), remark="who created them")
        for each in rows_of(seen) or ():
            creators.add(text(each, CREATOR))
            mine = text(each, CREATOR) if each["id"] == row["id"] else mine
        if mine and creators - {mine, ""}:
            yield Finding.known("others", "seen", "instances that somebody else created show", seen)
            return
    if not mine:
        yield Finding.unknown("others", "no list says who created the new instance", seen)
        return
    words = (
        "only instances of this user show: either there are no others, or this user does not see them, or the lists are cut off "
        "before them"
    )
    yield Finding.known("others", "none seen", words, seen)


def _probe_unknown_variable(
    own: StartedInstances, instance_id: str, *, refuses_with_5xx: bool
) -> ProbeFlow[None]:
    operation = raw(api.set_variables(instance_id, {UNKNOWN_VARIABLE: "x"}))
    seen = yield Probe(operation, csrf=own.csrf, remark="an unknown variable")
    found = answer_kind(seen, refuses_with_5xx=refuses_with_5xx)
    if found is AnswerKind.UNCLEAR:
        yield Finding.unknown("unknown_variable", why_unclear(seen), seen)
    elif found is AnswerKind.REFUSED and is_forbidden(seen):
        words = f"refused, as for want of a right to set variables: {_describe(seen)}"
        yield Finding.known("unknown_variable", "refused", words, seen, fine=False)
    elif found is AnswerKind.REFUSED:
        reason = f"refused, for its name or for want of a right to set variables: {_describe(seen)}"
        yield Finding.unknown("unknown_variable", reason, seen)
    else:
        own.granted.add("variables")
        yield Finding.known(
            "unknown_variable", "ignored", "accepted without a word, as it is documented", seen
        )


def _probe_duplicate_key(own: StartedInstances, key: str, *, refuses_with_5xx: bool) -> ProbeFlow[None]:
    start, seen = yield from _start(
        own, key, csrf=own.csrf, with_variable=False, refuses_with_5xx=refuses_with_5xx
    )
    instance = instance_of(seen)
    if instance is not None:
        start.instance_id = instance["id"]
        yield Finding.known("duplicate_key", "started", "another instance was started", seen)
        yield from terminate_one(own, start)
        return
    if is_forbidden(seen):
        reason = (
            f"refused, as for want of a right, with HTTP {seen.status}, though the first start was granted"
        )
        yield Finding.unknown("duplicate_key", reason, seen)
    elif answer_kind(seen, refuses_with_5xx=refuses_with_5xx) is AnswerKind.REFUSED:
        words = "refused: a key that an instance carries is not taken for another one"
        yield Finding.known("duplicate_key", "refused", words, seen)
    else:
        yield Finding.unknown("duplicate_key", why_unclear(seen), seen)
