"""Probes of a start: what it needs, when the instance shows, and what it carries. They start up to two instances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_astrobpm.bpm import api
from airflow_provider_astrobpm.bpm.errors import CallError, ThrottledError
from airflow_provider_astrobpm.doctor.asking import (
    Ask,
    Verdict,
    instance_of,
    is_forbidden,
    raw,
    rows_of,
    text,
    verdict,
    why_unclear,
)
from airflow_provider_astrobpm.doctor.extras import is_in_grace
from airflow_provider_astrobpm.doctor.keys import key_in_row, long_key
from airflow_provider_astrobpm.doctor.lists import CREATOR
from airflow_provider_astrobpm.doctor.moments import start_time, time_zone
from airflow_provider_astrobpm.doctor.own import Own, Started, end_one, find_until
from airflow_provider_astrobpm.doctor.points import Point, told, untold
from airflow_provider_astrobpm.doctor.signs import title_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_astrobpm.bpm.csrf import Method
    from airflow_provider_astrobpm.bpm.settings import Settings
    from airflow_provider_astrobpm.doctor.asking import Probing, Row, Seen

NO_SUCH_VARIABLE = "NoSuchVariableOfTheDoctor"
# Whether a start carries a CSRF token, and whether it sets a variable that the process does not have.
METHODS: tuple[Method, ...] = ("POST", "GET")
CSRF = api.get_csrf_token().attempt
ATTEMPTS = ((False, True), (False, False), (True, True), (True, False))


def start_one(
    own: Own, key: str, settings: Settings, *, refuses_with_5xx: bool
) -> Probing[tuple[Row, Seen] | None]:
    """Start one instance, and find out what a start needs for it.

    :param key: the business key that it is to carry.
    :param refuses_with_5xx: whether this endpoint is known to refuse with HTTP 5xx. What such a start may have left is looked
        for when all is done.
    :returns: the instance as the start's answer shows it, and the answer; ``None`` if none was started.
    """
    seen_so_far: list[Seen] = []
    for csrf, with_variable in ATTEMPTS:
        start, seen = yield from _start(
            own, key, csrf=csrf, with_variable=with_variable, refuses_with_5xx=refuses_with_5xx
        )
        seen_so_far.append(seen)
        instance = instance_of(seen)
        if instance is not None:
            own.csrf = csrf
            start.instance_id = instance["id"]
            yield told("start", "started", f"{start} was started, in state {text(instance, 'state')!r}", seen)
            yield _csrf(settings, *seen_so_far, needed=csrf)
            yield from _csrf_method(needed=csrf)
            yield _unknown_variable(*seen_so_far, taken=with_variable)
            yield time_zone(instance, seen, settings)
            return instance, seen
        if seen.error is None or not (start.refused or is_not_sent(seen)):
            words = f"whether an instance of {own.process!r} was started is not known: {_words(seen)}"
            yield untold("start", words, *seen_so_far)
            yield untold("csrf", "whether a start was taken is not known", *seen_so_far)
            return None
        if (
            _will_not_help(seen.error)
            and verdict(seen, refuses_with_5xx=refuses_with_5xx) is not Verdict.REFUSED
        ):
            break
    # Where there was no CSRF token, the start without one tells more.
    refused = [each for each in seen_so_far if each.error and each.error.attempt != CSRF] or [seen]
    words = f"{own.process!r} was not started: {_words(refused[-1])}"
    yield told("start", "failed", words, *seen_so_far, fine=False)
    without_token = "" if len(seen_so_far) == len(ATTEMPTS) else ", and none with a CSRF token was sent"
    if refused != seen_so_far and seen.error:
        without_token = f", and no CSRF token could be fetched: {_words(seen)}"
    yield untold("csrf", f"no start was taken{without_token}", *seen_so_far)
    yield from _csrf_method(needed=None)
    return None


def probe_start(
    own: Own,
    instance: Row,
    answer: Seen,
    *,
    settings: Settings,
    places: Iterable[str],
    clock: Callable[[], float],
    refuses_with_5xx: bool,
) -> Probing[tuple[Row, Seen] | None]:
    """Tell when the instance shows and what its row says, and what a second start with its key does.

    :param instance: as the start's answer shows it.
    :param answer: the start's answer.
    :param places: the states that show instances.
    :param clock: the time, in seconds since the epoch.
    :param refuses_with_5xx: whether this endpoint is known to refuse with HTTP 5xx.
    :returns: its row and the list that shows it, or ``None`` if it never showed.
    """
    begun = clock()
    look = yield from find_until(instance["id"], text(instance, "state"), lambda _row: True, clock)
    row, seen, at = look.wanted, look.seen, look.at
    if row is None:
        words = f"it did not show in any list within {at - begun:.0f} s, or the lists hide what has ended or are cut off"
        yield untold("start_lag", words, seen)
    else:
        own.first.shown = True
        lag = round(at - begun, 1)
        words = (
            "the first look at its list showed it"
            if lag < 1
            else f"it showed at a look {lag:g} s after its start"
        )
        yield told("start_lag", lag, words, seen, fine=is_in_grace(lag, settings))
        yield key_in_row(row, own.first.business_key, seen)
        yield from _others(row, places)
    yield long_key(own.first.business_key, instance, row, answer, seen)
    yield start_time(instance, row, answer.at, answer, seen)
    yield from _set_unknown_variable(own, instance["id"], refuses_with_5xx=refuses_with_5xx)
    yield from _start_again(own, own.first.business_key, refuses_with_5xx=refuses_with_5xx)
    return None if row is None else (row, seen)


def _start(
    own: Own, key: str, *, csrf: bool, with_variable: bool, refuses_with_5xx: bool
) -> Probing[tuple[Started, Seen]]:
    """Send one start, written down before it is sent, and crossed out if it certainly was not."""
    variables = {NO_SUCH_VARIABLE: "x"} if with_variable else None
    operation = raw(api.start(own.process, variables=variables, business_key=key, title=title_of(key)))
    remarks = [
        "an unknown variable" if with_variable else "",
        "a CSRF token" if csrf else "",
    ]
    start = own.begin(key)
    seen = yield Ask(operation, csrf=csrf, remark=" and ".join(filter(None, remarks)))
    if is_not_sent(seen):
        own.starts.remove(start)
    is_refused = verdict(seen, refuses_with_5xx=refuses_with_5xx) is Verdict.REFUSED
    start.refused = is_refused or (seen.error is not None and seen.error.taken is False)
    return start, seen


def is_not_sent(seen: Seen) -> bool:
    """Return whether a request certainly did not reach the server."""
    return seen.error is not None and seen.error.never_reached


def _will_not_help(error: CallError) -> bool:
    """Tell whether another form of the same start would fare no better."""
    return error.passing or isinstance(error, ThrottledError)


def _words(seen: Seen) -> str:
    if seen.error is None:
        return "the answer is no instance"
    said = f" ({seen.error.res_msg})" if seen.error.res_msg else ""
    return f"{seen.error.problem}{said}"


def _csrf(settings: Settings, *seen: Seen, needed: bool) -> Point:
    if needed:
        fine = settings.csrf
        return told("csrf", "needed", "refused without one, taken with one: set 'csrf'", *seen, fine=fine)
    return told("csrf", "not needed", "a start was taken without one", seen[-1])


def _csrf_method(*, needed: bool | None) -> Probing[None]:
    """Fetch a CSRF token by either method. This provider tries the other one where there is nothing by the first.

    :param needed: whether a write needs one; ``None`` where that could not be told.
    """
    answers = {}
    for method in METHODS:
        answers[method] = yield Ask(raw(api.get_csrf_token(method)))
    given = [method for method, seen in answers.items() if seen.error is None and is_csrf_token(seen.result)]
    seen = list(answers.values())
    unclear = next((each for each in seen if verdict(each) is Verdict.UNCLEAR), None)
    if given:
        words = " and ".join(f"by {method}" for method in given)
        only = " only" if len(given) == 1 else ""
        yield told("csrf_method", " and ".join(given), f"{words}{only}", *seen)
    elif unclear is not None:
        yield untold("csrf_method", why_unclear(unclear), *seen)
    else:
        words = "neither by POST nor by GET; a connection with 'csrf' cannot write anything here"
        yield told("csrf_method", "none", words, *seen, fine=needed is False)


def is_csrf_token(result: object) -> bool:
    """Return whether this is what a CSRF token is documented to be, a text."""
    return isinstance(result, str) and bool(result)


def _unknown_variable(*seen: Seen, taken: bool) -> Point:
    if taken:
        return told("unknown_variable_at_start", "ignored", "the start was taken all the same", seen[-1])
    return told("unknown_variable_at_start", "refused", "refused; without it the start was taken", *seen[-2:])


def _others(row: Row, places: Iterable[str]) -> Probing[None]:
    """Compare who created the instances that show with who created the new one."""
    mine, creators = "", set()
    for state in dict.fromkeys((text(row, "state"), *places)):
        seen = yield Ask(raw(api.query(state, fields=None, order_field=None)), remark="who created them")
        for each in rows_of(seen) or ():
            creators.add(text(each, CREATOR))
            mine = text(each, CREATOR) if each["id"] == row["id"] else mine
        if mine and creators - {mine, ""}:
            yield told("others", "seen", "instances that somebody else created show", seen)
            return
    if not mine:
        yield untold("others", "no list says who created the new instance", seen)
        return
    words = (
        "only instances of this user show: either there are no others, or this user does not see them, or the lists are cut off "
        "before them"
    )
    yield told("others", "none seen", words, seen)


def _set_unknown_variable(own: Own, instance_id: str, *, refuses_with_5xx: bool) -> Probing[None]:
    operation = raw(api.set_variables(instance_id, {NO_SUCH_VARIABLE: "x"}))
    seen = yield Ask(operation, csrf=own.csrf, remark="an unknown variable")
    found = verdict(seen, refuses_with_5xx=refuses_with_5xx)
    if found is Verdict.UNCLEAR:
        yield untold("unknown_variable", why_unclear(seen), seen)
    elif found is Verdict.REFUSED and is_forbidden(seen):
        words = f"refused, as for want of a right to set variables: {_words(seen)}"
        yield told("unknown_variable", "refused", words, seen, fine=False)
    elif found is Verdict.REFUSED:
        reason = f"refused, for its name or for want of a right to set variables: {_words(seen)}"
        yield untold("unknown_variable", reason, seen)
    else:
        own.granted.add("variables")
        yield told("unknown_variable", "ignored", "accepted without a word, as it is documented", seen)


def _start_again(own: Own, key: str, *, refuses_with_5xx: bool) -> Probing[None]:
    start, seen = yield from _start(
        own, key, csrf=own.csrf, with_variable=False, refuses_with_5xx=refuses_with_5xx
    )
    instance = instance_of(seen)
    if instance is not None:
        start.instance_id = instance["id"]
        yield told("duplicate_key", "started", "another instance was started", seen)
        yield from end_one(own, start)
        return
    if is_forbidden(seen):
        reason = (
            f"refused, as for want of a right, with HTTP {seen.status}, though the first start was granted"
        )
        yield untold("duplicate_key", reason, seen)
    elif verdict(seen, refuses_with_5xx=refuses_with_5xx) is Verdict.REFUSED:
        words = "refused: a key that an instance carries is not taken for another one"
        yield told("duplicate_key", "refused", words, seen)
    else:
        yield untold("duplicate_key", why_unclear(seen), seen)
