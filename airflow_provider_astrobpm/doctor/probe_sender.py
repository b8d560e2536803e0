"""Sends the probes of the doctor. Its only decision is whether to resend a probe.

It uses the same protocol and the same transport as the client of this provider, so it interprets answers as tasks do. It
requests its own tokens, and does not touch the cache that tasks share.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import msgspec

from airflow_provider_astrobpm.client import resend_policy, secrecy
from airflow_provider_astrobpm.client.csrf import CsrfMemory
from airflow_provider_astrobpm.client.errors import CallError, NotSentError
from airflow_provider_astrobpm.client.protocol import (
    TOKEN_PROBE,
    NeedToken,
    Request,
    TokenNotAtFault,
    call_flow,
    without_secrets,
)
from airflow_provider_astrobpm.client.settings import StaticToken
from airflow_provider_astrobpm.client.sync_transport import Transport
from airflow_provider_astrobpm.client.tokens import RenewalLimiter, request_token
from airflow_provider_astrobpm.doctor.observation import Observation, Probe, evidence_line, may_be_refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.client.protocol import Response
    from airflow_provider_astrobpm.client.settings import Settings

MAX_ATTEMPTS = 2  # of a probe that fails with a transient error
RESEND_DELAY_SECONDS = 1.0  # unless the server sends Retry-After
MAX_RESEND_DELAY_SECONDS = 5.0  # even if the server asks for more
MAX_FAILURES_IN_A_ROW = 3  # after which the endpoint counts as down


class ProbeSender:
    """Sends probes to one endpoint.

    :param settings: the settings of the connection.
    :param sleep: waits for a number of seconds.
    :param clock: returns the time, in seconds since the epoch.
    :param on_token: called with every token, so that logs can mask it.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
        on_token: Callable[[str], None] = lambda _token: None,
    ) -> None:
        self.settings = settings
        self.sleep = sleep
        self.clock = clock
        self.requests = 0
        """The number of requests sent."""
        self._on_token = on_token
        self._transport = Transport(settings)
        self._token: str | None = None
        self._doubts = RenewalLimiter()
        self._csrf_memory = CsrfMemory()
        self._secrets = set(settings.secrets())
        self._failures = 0

    def send(self, probe: Probe) -> Observation:
        """Send a probe. Resend it once after a transient error, if that is safe."""
        if self._failures >= MAX_FAILURES_IN_A_ROW and not probe.even_if_down:
            line = f"{probe.operation.method} {probe.operation.path} -> not sent"
            not_sent = NotSentError(f"not sent after {MAX_FAILURES_IN_A_ROW} failures in a row")
            return Observation(line, error=not_sent, sent=False)
        for attempt in range(MAX_ATTEMPTS):
            seen = self._send_once(probe)
            error = seen.error
            if attempt == MAX_ATTEMPTS - 1 or error is None:
                break
            if not resend_policy.may_resend(error, resend_if_in_doubt=probe.operation.resend_if_in_doubt):
                break
            requested = resend_policy.retry_after_seconds(error.retry_after, self.clock())
            self.sleep(
                min(MAX_RESEND_DELAY_SECONDS, RESEND_DELAY_SECONDS if requested is None else requested)
            )
        has_failed = error is not None and error.is_transient and not may_be_refusal(seen)
        self._failures = self._failures + 1 if has_failed else 0
        return seen

    def scrub(self, text: str) -> str:
        """Return a text with all used secrets and tokens masked."""
        return secrecy.masked(text, self._secrets)

    def close(self) -> None:
        """Close the connections to the server."""
        self._transport.close()

    def _send_once(self, probe: Probe) -> Observation:
        operation = probe.operation
        talk = call_flow(
            operation,
            connection=self.settings.connection,
            csrf=self._csrf_memory if probe.csrf else None,
            secrets=tuple(self._secrets),
        )
        request = Request(operation.method, probe.target or operation.target, {}, None)
        response: Response | None = None
        result, failure = None, None
        try:
            step = next(talk)
            while True:
                try:
                    if isinstance(step, NeedToken):
                        reply: Any = self._token_for(probe, step)
                    elif isinstance(step, TokenNotAtFault):
                        self._doubts.note_useless_renewal(step.doubt, time.monotonic())
                        reply = None
                    elif _checks_token(step, probe):
                        reply = self._send(step)
                    else:
                        request, response = _apply(step, probe), None
                        reply = response = self._send(request)
                except CallError as error:
                    step = talk.throw(error)
                else:
                    step = talk.send(reply)
        except StopIteration as stop:
            result = stop.value
        except CallError as error:
            failure = error
        if operation.kind == "token" and result is not None:
            self._keep(result.access_token)
        shown = response and without_secrets(response, (*request.secrets, *self._secrets))
        line = evidence_line(request, probe.remark, shown, failure, result)
        return Observation(self.scrub(line), result, failure, shown, self.clock())

    def _send(self, request: Request) -> Response:
        self.requests += 1
        return self._transport.send(request)

    def _token_for(self, probe: Probe, need: NeedToken) -> str | None:
        stale = need.stale
        if probe.token is not None:
            return probe.token if stale is None else None
        if isinstance(self.settings.credentials, StaticToken):
            return self.settings.credentials.token if stale is None else None
        if need.doubt is not None and not self._doubts.allow(need.doubt, time.monotonic()):
            return None
        if self._token is None or self._token == stale:
            plan = request_token(self.settings.credentials)
            step: Any = next(plan)
            try:
                while True:
                    seen = self.send(Probe(step, even_if_down=probe.even_if_down))
                    step = plan.throw(seen.error) if seen.error else plan.send(seen.result)
            except StopIteration:
                pass  # _send_once stored the token
        return cast("str", self._token)

    def _keep(self, token: str) -> None:
        if token != self._token:
            self._on_token(token)
        self._secrets.add(token)
        self._token = token


def _checks_token(request: Request, probe: Probe) -> bool:
    """Return whether a request only checks the token, and is thus no evidence for the probe."""
    return request.target == TOKEN_PROBE.target != probe.operation.target


def _apply(request: Request, probe: Probe) -> Request:
    """Return a request with the deviations of a probe. A request for a CSRF token is returned unchanged."""
    if request.target != probe.operation.target:
        return request
    headers = dict(request.headers)
    if not probe.content_type:
        del headers["content-type"]
    return msgspec.structs.replace(request, headers=headers, target=probe.target or request.target)
