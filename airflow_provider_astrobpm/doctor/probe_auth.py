"""Probes of tokens: how to request one, how long it is valid, and how a wrong one is reported."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.client.errors import AuthenticationError
from airflow_provider_astrobpm.client.protocol import TokenFault
from airflow_provider_astrobpm.client.settings import ClientCredentials
from airflow_provider_astrobpm.client.states import COMPLETED
from airflow_provider_astrobpm.doctor.findings import Finding, all_unknown
from airflow_provider_astrobpm.doctor.observation import Probe, report_findings

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
    probes = [_token_probe(credentials, encoding) for encoding in ("form", "json")]
    seen: list[Observation] = []
    for probe in probes:
        seen.append((yield probe))
        if seen[-1].response is None:
            break
    yield _connection_finding(settings, seen[0])
    if seen[0].response is None:
        return False
    accepted = [each for each in zip(probes, seen, strict=False) if each[1].error is None]
    yield _token_request_finding([probe.remark for probe, _ in accepted], seen)
    if not accepted:
        return False
    probe, first = accepted[0]
    yield _lifetime_finding(first)
    yield _clock_finding(first)
    another = seen[1] if len(accepted) == 2 else (yield probe)
    yield from report_findings(_probe_older_tokens(first, another))
    return True


def probe_wrong_token(state: str, right: Observation) -> ProbeFlow[Finding]:
    """List one state with a token that cannot be valid, and return how it is reported.

    :param state: the state to list.
    :param right: the same list with the valid token.
    """
    seen = yield Probe(operations.query(state), token=WRONG_TOKEN, remark="a wrong token")
    if seen.fails_like(right):
        reason = f"the valid token gets the same answer: {right.why_unclear}"
        return Finding.unknown("bad_token", reason, seen, right)
    if seen.error is None:
        words = "a wrong token is accepted: this is not Astro Zero"
        return Finding.known("bad_token", "accepted", words, seen, fine=False)
    fault = seen.token_fault
    if seen.response is None or (seen.is_server_error and fault is None):
        return Finding.unknown("bad_token", seen.why_unclear, seen)
    code = seen.envelope[0]
    media = seen.response.headers.get("content-type", "no content type").partition(";")[0]
    value = f"HTTP {seen.status}, {f'resCode {code}' if code else media}"
    if fault is None:
        meaning = "this provider does not recognise that the token is at fault, and does not renew it"
    elif fault is TokenFault.CERTAIN:
        meaning = "this provider then renews its token"
    elif seen.is_server_error:
        meaning = "this provider then renews its token once, but does not resend a start or a deletion"
    else:
        meaning = "this provider then renews its token once, and accepts the next answer"
    return Finding.known("bad_token", value, f"with {value}: {meaning}", seen, fine=fault is not None)


def _token_probe(credentials: ClientCredentials, encoding: Encoding) -> Probe:
    operation = operations.get_token(credentials.client_id, credentials.client_secret, encoding=encoding)
    return Probe(operation, remark=encoding)


def _probe_access_token(settings: Settings) -> ProbeFlow[bool]:
    seen = yield Probe(operations.definitions(limit=1))
    yield _connection_finding(settings, seen)
    if seen.response is None:
        return False
    works = not isinstance(seen.error, AuthenticationError)
    if works:
        yield Finding.unknown("token_request", NO_REQUEST_REASON)
    else:
        words = (
            "the connection's 'access_token' was refused: it has expired, or belongs to another environment"
        )
        yield Finding.known("token_request", "refused", words, seen, fine=False)
    yield from all_unknown(("token_lifetime", "older_tokens"), NO_REQUEST_REASON)
    yield _clock_finding(seen)
    return works


def _connection_finding(settings: Settings, seen: Observation) -> Finding:
    if seen.response is None:
        words = f"{settings.base_url}: {_problem(seen)}"
        return Finding.known("connection", "failed", words, seen, fine=False)
    scheme = settings.base_url.partition(":")[0]
    tls = "its certificate was checked" if settings.verify else "its certificate was not checked ('verify')"
    how = f"over TLS, {tls}" if scheme == "https" else "without TLS"
    return Finding.known("connection", scheme, f"{settings.base_url} answers {how}", seen)


def _token_request_finding(accepted: list[str], seen: list[Observation]) -> Finding:
    name = "token_request"
    if len(accepted) == 2:
        return Finding.known(name, "both", "accepted as a form and as JSON", *seen)
    if not accepted:
        return Finding.known(name, "refused", f"no token: {_problem(seen[0])}", *seen, fine=False)
    failed = next(answer for answer in seen if answer.error is not None)
    doubt = " only" if failed.is_denied else f"; unknown for the other encoding: {failed.why_unclear}"
    return Finding.known(name, accepted[0], f"accepted as {accepted[0]}{doubt}", *seen)


def _problem(seen: Observation) -> str:
    return f"{seen.error.problem}. {seen.error.advice}".rstrip() if seen.error else ""


def _lifetime_finding(seen: Observation) -> Finding:
    name, lifetime = "token_lifetime", seen.result.expires_in
    if lifetime is not None:
        words = f"{lifetime:g} s by expires_in; a token is renewed a little earlier"
        return Finding.known(name, lifetime, words, seen)
    sent, until = _sent_lifetime(seen), "a token is used until it is refused, and then renewed"
    if sent is None:
        return Finding.known(name, "not said", f"there is no expires_in: {until}", seen)
    return Finding.known(name, "unusable", f"expires_in is {sent}, which is not a lifetime: {until}", seen)


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
    words = f"the server's clock is {where} this machine's, within a second or two"
    return Finding.known("clock", ahead, words, seen, fine=abs(ahead) <= MAX_CLOCK_DIFFERENCE_SECONDS)


def _probe_older_tokens(first: Observation, another: Observation) -> ProbeFlow[Finding]:
    if another.error is not None:
        reason = f"a second token request failed: {another.why_unclear}"
        return Finding.unknown("older_tokens", reason, another)
    older = first.result.access_token
    if another.result.access_token == older:
        words = "a second request returns the same token"
        return Finding.known("older_tokens", "same", words, first, another)
    seen = yield Probe(operations.query(COMPLETED), token=older, remark="the older of two tokens")
    if seen.error is None:
        return Finding.known("older_tokens", "kept", "a token stays valid after another is requested", seen)
    if seen.token_fault is None:
        return Finding.unknown("older_tokens", seen.why_unclear, seen)
    # The client may not be permitted to list instances at all.
    newer = yield Probe(operations.query(COMPLETED), remark="the newer of two tokens")
    if newer.error is not None:
        reason = f"the newer token cannot list instances either: {newer.why_unclear}"
        return Finding.unknown("older_tokens", reason, seen, newer)
    words = (
        "a token is invalid as soon as the same client requests another, and each Airflow task requests one. Tasks and waits "
        "then request a new token, which costs requests: give Airflow its own client, and ideally the triggerer another one"
    )
    return Finding.known("older_tokens", "replaced", words, seen, newer, fine=False)
