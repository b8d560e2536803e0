"""Probes of tokens: how to request one, how long it is valid, and how a wrong one is reported."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.client.errors import AuthenticationError
from airflow_provider_astrobpm.client.protocol import TokenFault, token_fault
from airflow_provider_astrobpm.client.settings import ClientCredentials
from airflow_provider_astrobpm.client.states import COMPLETED
from airflow_provider_astrobpm.doctor.findings import Finding
from airflow_provider_astrobpm.doctor.observation import (
    AnswerKind,
    Probe,
    answer_kind,
    is_same_failure,
    raw,
    why_unclear,
)

if TYPE_CHECKING:
    from airflow_provider_astrobpm.client.settings import Settings
    from airflow_provider_astrobpm.doctor.observation import Observation, ProbeFlow

Encoding = Literal["form", "json"]

WRONG_TOKEN = "airflow-provider-astrobpm-doctor-wrong-token"  # noqa: S105 - not a real token
MAX_LIFETIME_CHARACTERS = 40  # of an invalid expires_in, in a sentence
MAX_CLOCK_DIFFERENCE_SECONDS = 300  # with more, times in logs cannot be compared
NO_REQUEST_REASON = "the connection sets 'access_token', so no token was requested"


def probe_sign_in(settings: Settings) -> ProbeFlow[bool]:
    """Request a token in each encoding, and return whether there is one."""
    credentials = settings.credentials
    if not isinstance(credentials, ClientCredentials):
        return (yield from _probe_access_token(settings))
    answers: dict[Encoding, Observation] = {}
    for encoding in ("form", "json"):
        answers[encoding] = yield Probe(_request(credentials, encoding), remark=encoding)
        if answers[encoding].response is None:
            break
    seen = list(answers.values())
    yield _connection_finding(settings, *seen)
    if seen[0].response is None:
        return False
    accepted: list[Encoding] = [encoding for encoding, answer in answers.items() if answer.error is None]
    yield _token_request_finding(accepted, seen)
    if not accepted:
        return False
    first = answers[accepted[0]]
    yield _lifetime_finding(first)
    yield _clock_finding(first)
    another = (
        seen[1]
        if len(accepted) == 2
        else (yield Probe(_request(credentials, accepted[0]), remark=accepted[0]))
    )
    yield from _probe_older_tokens(first, another)
    return True


def probe_wrong_token(state: str, right: Observation) -> ProbeFlow[None]:
    """List one state with a token that cannot be valid.

    :param state: the state to list.
    :param right: the same list with the valid token.
    """
    seen = yield Probe(raw(operations.query(state)), token=WRONG_TOKEN, remark="a wrong token")
    if is_same_failure(seen, right):
        reason = f"the valid token gets the same answer: {why_unclear(right)}"
        yield Finding.unknown("bad_token", reason, seen, right)
        return
    if seen.error is None:
        yield Finding.known(
            "bad_token", "accepted", "a wrong token is accepted: this is not Astro Zero", seen, fine=False
        )
        return
    fault = token_fault(seen.response) if seen.response else None
    if seen.response is None or ((seen.status or 0) >= 500 and fault is None):
        yield Finding.unknown("bad_token", why_unclear(seen), seen)
        return
    code, _ = seen.envelope()
    media = seen.response.headers.get("content-type", "no content type").partition(";")[0]
    value = f"HTTP {seen.status}, {f'resCode {code}' if code else media}"
    if fault is None:
        meaning = "this provider does not recognise that the token is at fault, and does not renew it"
    elif fault is TokenFault.CERTAIN:
        meaning = "this provider then renews its token"
    elif (seen.status or 0) >= 500:
        meaning = "this provider then renews its token once, but does not resend a start or a deletion"
    else:
        meaning = "this provider then renews its token once, and accepts the next answer"
    yield Finding.known("bad_token", value, f"with {value}: {meaning}", seen, fine=fault is not None)


def _request(
    credentials: ClientCredentials, encoding: Encoding
) -> operations.Operation[operations.TokenAnswer]:
    return operations.get_token(credentials.client_id, credentials.client_secret, encoding=encoding)


def _probe_access_token(settings: Settings) -> ProbeFlow[bool]:
    seen = yield Probe(raw(operations.definitions(limit=1)))
    yield _connection_finding(settings, seen)
    if seen.response is None:
        return False
    works = not isinstance(seen.error, AuthenticationError)
    if works:
        yield Finding.unknown("token_request", NO_REQUEST_REASON)
    else:
        sentence = (
            "the connection's 'access_token' was refused: it has expired, or belongs to another environment"
        )
        yield Finding.known("token_request", "refused", sentence, seen, fine=False)
    yield Finding.unknown("token_lifetime", NO_REQUEST_REASON)
    yield Finding.unknown("older_tokens", NO_REQUEST_REASON)
    yield _clock_finding(seen)
    return works


def _connection_finding(settings: Settings, *seen: Observation) -> Finding:
    first = seen[0]
    if first.response is None:
        problem, advice = (first.error.problem, first.error.advice) if first.error else ("", "")
        return Finding.known(
            "connection", "failed", f"{settings.base_url}: {problem}. {advice}".rstrip(), first, fine=False
        )
    scheme = settings.base_url.partition(":")[0]
    tls = "its certificate was checked" if settings.verify else "its certificate was not checked ('verify')"
    how = f"over TLS, {tls}" if scheme == "https" else "without TLS"
    return Finding.known("connection", scheme, f"{settings.base_url} answers {how}", first)


def _token_request_finding(accepted: list[Encoding], seen: list[Observation]) -> Finding:
    if len(accepted) == 2:
        return Finding.known("token_request", "both", "accepted as a form and as JSON", *seen)
    if accepted:
        refused = [answer for answer in seen if answer.error is not None]
        if token_answer_kind(refused) is AnswerKind.UNCLEAR:
            words = f"accepted as {accepted[0]}; unknown for the other encoding: {why_unclear(refused[0])}"
            return Finding.known("token_request", accepted[0], words, *seen)
        return Finding.known("token_request", accepted[0], f"accepted as {accepted[0]} only", *seen)
    error = seen[0].error
    words = f"no token: {error.problem}. {error.advice}".rstrip() if error else "no token"
    return Finding.known("token_request", "refused", words, *seen, fine=False)


def token_answer_kind(refused: list[Observation]) -> AnswerKind:
    """Return how to interpret a failed token request."""
    if refused and isinstance(refused[0].error, AuthenticationError):
        return AnswerKind.REFUSED
    return answer_kind(refused[0]) if refused else AnswerKind.UNCLEAR


def _lifetime_finding(seen: Observation) -> Finding:
    lifetime = seen.result.expires_in
    until = "a token is used until it is refused, and then renewed"
    if lifetime is None:
        sent = _sent_lifetime(seen)
        if sent is None:
            return Finding.known("token_lifetime", "not said", f"there is no expires_in: {until}", seen)
        return Finding.known(
            "token_lifetime", "unusable", f"expires_in is {sent}, which is not a lifetime: {until}", seen
        )
    return Finding.known(
        "token_lifetime", lifetime, f"{lifetime:g} s by expires_in; a token is renewed a little earlier", seen
    )


def _sent_lifetime(seen: Observation) -> str | None:
    """Return ``expires_in`` as it was sent, shortened; ``None`` if it was not sent."""
    try:
        body = json.loads(seen.response.body) if seen.response else {}
    except ValueError:
        return None
    sent = body.get("expires_in") if isinstance(body, dict) else None
    return None if sent is None else repr(sent)[:MAX_LIFETIME_CHARACTERS]


def _clock_finding(seen: Observation) -> Finding:
    server = seen.server_time
    if server is None:
        return Finding.unknown("clock", "the answer has no header Date", seen)
    ahead = round(server - seen.at)
    where = f"{abs(ahead)} s {'ahead of' if ahead > 0 else 'behind'}" if ahead else "the same as"
    fine = abs(ahead) <= MAX_CLOCK_DIFFERENCE_SECONDS
    return Finding.known(
        "clock",
        ahead,
        f"the server's clock is {where} this machine's, within a second or two",
        seen,
        fine=fine,
    )


def _probe_older_tokens(first: Observation, another: Observation) -> ProbeFlow[None]:
    if another.error is not None:
        yield Finding.unknown(
            "older_tokens", f"a second token request failed: {why_unclear(another)}", another
        )
        return
    older = first.result.access_token
    if another.result.access_token == older:
        yield Finding.known("older_tokens", "same", "a second request returns the same token", first, another)
        return
    seen = yield Probe(raw(operations.query(COMPLETED)), token=older, remark="the older of two tokens")
    if seen.error is None:
        yield Finding.known("older_tokens", "kept", "a token stays valid after another is requested", seen)
        return
    evidence = [seen]
    fault = token_fault(seen.response) if seen.response else None
    if fault is None:
        yield Finding.unknown("older_tokens", why_unclear(seen), *evidence)
        return
    # The client may not be permitted to list instances at all.
    evidence.append((yield Probe(raw(operations.query(COMPLETED)), remark="the newer of two tokens")))
    if evidence[1].error is not None:
        reason = f"the newer token cannot list instances either: {why_unclear(evidence[1])}"
        yield Finding.unknown("older_tokens", reason, *evidence)
        return
    sentence = (
        "a token is invalid as soon as the same client requests another, and each Airflow task requests one. Tasks and waits "
        "then request a new token, which costs requests: give Airflow its own client, and ideally the triggerer another one"
    )
    yield Finding.known("older_tokens", "replaced", sentence, *evidence, fine=False)
