"""Probes of tokens: how one is requested, how long it is good, and what a wrong one does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from airflow_provider_astrobpm.bpm import api
from airflow_provider_astrobpm.bpm.errors import AuthenticationError
from airflow_provider_astrobpm.bpm.exchange import TokenFault, token_fault
from airflow_provider_astrobpm.bpm.settings import ClientCredentials
from airflow_provider_astrobpm.bpm.states import COMPLETED
from airflow_provider_astrobpm.doctor.asking import Ask, Verdict, is_alike, raw, verdict, why_unclear
from airflow_provider_astrobpm.doctor.points import Point, told, untold

if TYPE_CHECKING:
    from airflow_provider_astrobpm.bpm.settings import Settings
    from airflow_provider_astrobpm.doctor.asking import Probing, Seen

Encoding = Literal["form", "json"]

WRONG_TOKEN = "airflow-provider-astrobpm-doctor-wrong-token"  # noqa: S105 - it opens nothing
LONGEST_LIFETIME = 40  # characters of an expires_in that makes no sense
MOST_CLOCK_DIFFERENCE = 300  # seconds; with more, times in logs do not go together
READY = "the connection holds a ready token, so none was requested"


def sign_in(settings: Settings) -> Probing[bool]:
    """Get a token, in each encoding that a request may have, and return whether there is one."""
    credentials = settings.credentials
    if not isinstance(credentials, ClientCredentials):
        return (yield from _with_ready_token(settings))
    answers: dict[Encoding, Seen] = {}
    for encoding in ("form", "json"):
        answers[encoding] = yield Ask(_request(credentials, encoding), remark=encoding)
        if answers[encoding].response is None:
            break
    seen = list(answers.values())
    yield _connection(settings, *seen)
    if seen[0].response is None:
        return False
    taken: list[Encoding] = [encoding for encoding, answer in answers.items() if answer.error is None]
    yield _token_request(taken, seen)
    if not taken:
        return False
    first = answers[taken[0]]
    yield _lifetime(first)
    yield _clock(first)
    another = seen[1] if len(taken) == 2 else (yield Ask(_request(credentials, taken[0]), remark=taken[0]))
    yield from _older_tokens(first, another)
    return True


def wrong_token(state: str, right: Seen) -> Probing[None]:
    """List with a token that cannot be right, once.

    :param state: the state to list.
    :param right: what came of listing it with the right token.
    """
    seen = yield Ask(raw(api.query(state)), token=WRONG_TOKEN, remark="a wrong token")
    if is_alike(seen, right):
        reason = f"the right token gets the same answer: {why_unclear(right)}"
        yield untold("bad_token", reason, seen, right)
        return
    if seen.error is None:
        yield told(
            "bad_token", "accepted", "a wrong token is accepted: this is no Astro Zero", seen, fine=False
        )
        return
    fault = token_fault(seen.response) if seen.response else None
    if seen.response is None or ((seen.status or 0) >= 500 and fault is None):
        yield untold("bad_token", why_unclear(seen), seen)
        return
    code, _ = seen.envelope()
    media = seen.response.headers.get("content-type", "no content type").partition(";")[0]
    value = f"HTTP {seen.status}, {f'resCode {code}' if code else media}"
    if fault is None:
        meaning = "this provider does not see that the token is at fault, and does not renew it"
    elif fault is TokenFault.CERTAIN:
        meaning = "this provider renews its token then"
    elif (seen.status or 0) >= 500:
        meaning = "this provider renews its token once then, but sends no start and no deletion again"
    else:
        meaning = "this provider renews its token once then, and believes what is answered after that"
    yield told("bad_token", value, f"with {value}: {meaning}", seen, fine=fault is not None)


def _request(credentials: ClientCredentials, encoding: Encoding) -> api.Operation[api.TokenAnswer]:
    return api.get_token(credentials.client_id, credentials.client_secret, encoding=encoding)


def _with_ready_token(settings: Settings) -> Probing[bool]:
    seen = yield Ask(raw(api.definitions(limit=1)))
    yield _connection(settings, seen)
    if seen.response is None:
        return False
    works = not isinstance(seen.error, AuthenticationError)
    if works:
        yield untold("token_request", READY)
    else:
        sentence = (
            "the ready token of the connection was refused: it has expired, or it is of another environment"
        )
        yield told("token_request", "refused", sentence, seen, fine=False)
    yield untold("token_lifetime", READY)
    yield untold("older_tokens", READY)
    yield _clock(seen)
    return works


def _connection(settings: Settings, *seen: Seen) -> Point:
    first = seen[0]
    if first.response is None:
        problem, advice = (first.error.problem, first.error.advice) if first.error else ("", "")
        return told(
            "connection", "failed", f"{settings.base_url}: {problem}. {advice}".rstrip(), first, fine=False
        )
    scheme = settings.base_url.partition(":")[0]
    tls = "its certificate was checked" if settings.verify else "its certificate was not checked ('verify')"
    how = f"over TLS, {tls}" if scheme == "https" else "in the clear"
    return told("connection", scheme, f"{settings.base_url} answers {how}", first)


def _token_request(taken: list[Encoding], seen: list[Seen]) -> Point:
    if len(taken) == 2:
        return told("token_request", "both", "taken as a form and as JSON", *seen)
    if taken:
        refused = [answer for answer in seen if answer.error is not None]
        if verdict_of_token(refused) is Verdict.UNCLEAR:
            words = f"taken as {taken[0]}; the other encoding could not be told: {why_unclear(refused[0])}"
            return told("token_request", taken[0], words, *seen)
        return told("token_request", taken[0], f"taken as {taken[0]} only", *seen)
    error = seen[0].error
    words = f"no token: {error.problem}. {error.advice}".rstrip() if error else "no token"
    return told("token_request", "refused", words, *seen, fine=False)


def verdict_of_token(refused: list[Seen]) -> Verdict:
    """Tell whether a token request that got no token was refused."""
    if refused and isinstance(refused[0].error, AuthenticationError):
        return Verdict.REFUSED
    return verdict(refused[0]) if refused else Verdict.UNCLEAR


def _lifetime(seen: Seen) -> Point:
    lifetime = seen.result.expires_in
    until = "it is used until it is refused, and renewed then"
    if lifetime is None:
        sent = _sent_lifetime(seen)
        if sent is None:
            return told("token_lifetime", "not said", f"no expires_in tells when a token ends: {until}", seen)
        return told(
            "token_lifetime", "unusable", f"expires_in is {sent}, which is no lifetime: {until}", seen
        )
    return told(
        "token_lifetime", lifetime, f"{lifetime:g} s by expires_in; it is renewed a little earlier", seen
    )


def _sent_lifetime(seen: Seen) -> str | None:
    """Return ``expires_in`` as it was sent, cut to what a line holds; ``None`` where it was not."""
    try:
        body = json.loads(seen.response.body) if seen.response else {}
    except ValueError:
        return None
    sent = body.get("expires_in") if isinstance(body, dict) else None
    return None if sent is None else repr(sent)[:LONGEST_LIFETIME]


def _clock(seen: Seen) -> Point:
    server = seen.server_time
    if server is None:
        return untold("clock", "the answer has no header Date", seen)
    ahead = round(server - seen.at)
    where = f"{abs(ahead)} s {'ahead of' if ahead > 0 else 'behind'}" if ahead else "the same as"
    fine = abs(ahead) <= MOST_CLOCK_DIFFERENCE
    return told(
        "clock", ahead, f"the server's clock is {where} this machine's, to a second or two", seen, fine=fine
    )


def _older_tokens(first: Seen, another: Seen) -> Probing[None]:
    if another.error is not None:
        yield untold("older_tokens", f"a second token was not given: {why_unclear(another)}", another)
        return
    older = first.result.access_token
    if another.result.access_token == older:
        yield told("older_tokens", "same", "a second request yields the same token", first, another)
        return
    seen = yield Ask(raw(api.query(COMPLETED)), token=older, remark="the older of two tokens")
    if seen.error is None:
        yield told("older_tokens", "kept", "a token stays good when another is requested", seen)
        return
    evidence = [seen]
    fault = token_fault(seen.response) if seen.response else None
    if fault is None:
        yield untold("older_tokens", why_unclear(seen), *evidence)
        return
    # This client may not be allowed to list instances at all.
    evidence.append((yield Ask(raw(api.query(COMPLETED)), remark="the newer of two tokens")))
    if evidence[1].error is not None:
        reason = f"the newer token cannot list instances either: {why_unclear(evidence[1])}"
        yield untold("older_tokens", reason, *evidence)
        return
    sentence = (
        "a token ends as soon as the same client requests another, and each task of Airflow requests one. Tasks and waits "
        "go on with a new token, which costs requests: give Airflow a client of its own, and best the triggerer another"
    )
    yield told("older_tokens", "replaced", sentence, *evidence, fine=False)
