"""Sends the probes of the doctor: a client whose requests may deviate, and whose answers are kept as evidence.

It interprets answers, renews tokens and resends calls as tasks do. It requests its own tokens, and does not touch the cache
that tasks share.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from airflow_provider_astrobpm.client import secrecy
from airflow_provider_astrobpm.client.errors import CallError, NotSentError
from airflow_provider_astrobpm.client.operations import CSRF_PATH
from airflow_provider_astrobpm.client.protocol import NeedToken, Request, without_secrets
from airflow_provider_astrobpm.client.sync_client import BpmClient
from airflow_provider_astrobpm.client.tokens import TokenCache
from airflow_provider_astrobpm.doctor.observation import Observation, Probe, evidence_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.client.csrf import CsrfMemory
    from airflow_provider_astrobpm.client.operations import Sleep, TokenAnswer
    from airflow_provider_astrobpm.client.protocol import Response
    from airflow_provider_astrobpm.client.settings import Settings

MAX_ATTEMPTS = 2  # of a probe that fails with a transient error
MAX_RESEND_DELAY_SECONDS = 5.0  # even if the server asks for more
MAX_FAILURES_IN_A_ROW = 3  # after which the endpoint counts as down


class ProbeSender(BpmClient):
    """Sends probes to one endpoint.

    :param settings: the settings of the connection, which do not decide how often a probe is sent.

    The other parameters are those of ``BpmClient``.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
        on_token: Callable[[str], None] = lambda _token: None,
    ) -> None:
        def keep(token: str) -> None:
            self._secrets = (*self._secrets, token)
            on_token(token)

        settings = replace(settings, max_attempts=MAX_ATTEMPTS, max_wait=MAX_RESEND_DELAY_SECONDS)
        super().__init__(settings, tokens=TokenCache(), sleep=sleep, clock=clock, on_token=keep)
        self.requests = 0
        """The number of requests sent."""
        self.refuses_with_5xx = False
        """Whether the endpoint is known to refuse with HTTP 5xx."""
        self._failures = 0
        self._probe: Probe
        self._request: Request
        self._response: Response | None

    def answer(self, step: Probe | Sleep) -> Observation | None:
        """Do what a step of a probe flow asks for."""
        return self.send(step) if isinstance(step, Probe) else self._sleep(step.seconds)

    def send(self, probe: Probe) -> Observation:
        """Send a probe. Resend it once after a transient error, if that is safe."""
        if self._failures >= MAX_FAILURES_IN_A_ROW and not probe.even_if_down:
            line = f"{probe.operation.method} {probe.operation.path} -> not sent"
            not_sent = NotSentError(f"not sent after {MAX_FAILURES_IN_A_ROW} failures in a row")
            return Observation(line, error=not_sent, at=self.clock(), sent=False)
        operation = msgspec.structs.replace(probe.operation, resend_if_malformed=False)
        if operation.kind != "token":
            operation = msgspec.structs.replace(operation, decode=msgspec.json.decode)
        self._probe, self._response = probe, None
        self._request = Request(operation.method, probe.target or operation.target, {}, None)
        result, error = None, None
        try:
            result = self.call(operation)
        except CallError as failure:
            error = failure
        else:
            if operation.kind == "token":
                self._adopt(result)
        shown = self._response and without_secrets(self._response, (*self._request.secrets, *self._secrets))
        line = self.scrub(evidence_line(self._request, probe.remark, shown, error, result))
        seen = Observation(line, result, error, shown, self.clock(), refuses_with_5xx=self.refuses_with_5xx)
        has_failed = error is not None and error.is_transient and not seen.may_be_refusal
        self._failures = self._failures + 1 if has_failed else 0
        return seen

    def scrub(self, text: str) -> str:
        """Return a text with all used secrets and tokens masked."""
        return secrecy.masked(text, self._secrets)

    def _adopt(self, answer: TokenAnswer) -> None:
        """Use a token that a probe has requested."""
        self._tokens.get(self.settings, lambda: answer, stale=self._tokens.known(self._key))
        self._token(NeedToken())

    def _csrf_memory(self) -> CsrfMemory | None:
        return self._tokens.csrf_memory(replace(self.settings, csrf=self._probe.csrf))

    def _token(self, need: NeedToken) -> str | None:
        if self._probe.token is not None:
            return self._probe.token if need.stale is None else None
        return super()._token(need)

    def _send(self, request: Request) -> Response:
        self.requests += 1
        probe = self._probe
        if request.target == probe.operation.target:
            headers = dict(request.headers)
            if not probe.content_type:
                del headers["content-type"]
            request = msgspec.structs.replace(request, headers=headers, target=probe.target or request.target)
        elif request.target != CSRF_PATH:
            return super()._send(request)  # for a token, or to check one, which is no evidence for the probe
        self._request, self._response = request, None
        self._response = super()._send(request)
        return self._response
