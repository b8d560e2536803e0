"""``BpmClient`` runs calls and flows on the sync transport. It makes no decisions of its own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

import tenacity

from airflow_provider_astrobpm.client import operations, resend_policy
from airflow_provider_astrobpm.client.errors import AstroZeroError, CallError
from airflow_provider_astrobpm.client.metrics import NULL_METER, REQUESTS, TOKEN_REQUESTS
from airflow_provider_astrobpm.client.moment import Moment
from airflow_provider_astrobpm.client.protocol import NeedToken, TokenNotAtFault, call_flow
from airflow_provider_astrobpm.client.sync_transport import Transport
from airflow_provider_astrobpm.client.tokens import TOKENS, credential_key, request_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from airflow_provider_astrobpm.client.metrics import Meter
    from airflow_provider_astrobpm.client.operations import Flow, Operation, TokenAnswer
    from airflow_provider_astrobpm.client.protocol import Request, Response
    from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings
    from airflow_provider_astrobpm.client.tokens import TokenCache

T = TypeVar("T")


def report_first_failure(
    on_retry: Callable[[str], None], max_attempts: int
) -> Callable[[tenacity.RetryCallState], None]:
    """Return a tenacity ``before_sleep`` hook that reports only the first failure of a call."""

    def report(state: tenacity.RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome:
            on_retry(f"The first of up to {max_attempts} attempts failed. {state.outcome.exception()}")

    return report


class BpmClient:
    """Synchronous client for one Astro Zero environment. Threads may share it. Close it after use.

    :param settings: the settings of the environment.
    :param tokens: the token cache; by default the one of the process.
    :param sleep: sleeps for some seconds, between attempts and in flows.
    :param clock: returns the time, in seconds since the epoch.
    :param steady: returns seconds on a monotonic clock.
    :param on_token: called with every token before its first use, so that logs can mask it.
    :param on_retry: called with a message when the first attempt of a call failed and the call is resent.
    :param meter: counts requests; flushed after each flow, and after each call outside a flow.
    :raises SettingsError: if a certificate file of the settings is unusable.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        tokens: TokenCache = TOKENS,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        on_token: Callable[[str], None] = lambda _token: None,
        on_retry: Callable[[str], None] = lambda _words: None,
        meter: Meter = NULL_METER,
    ) -> None:
        self.settings = settings
        self._tokens = tokens
        self._key = credential_key(settings)
        self._secrets = settings.secrets()
        self._sleep = sleep
        self.clock = clock
        self.steady = steady
        self._on_token = on_token
        self._on_retry = on_retry
        self.meter = meter
        self._transport = Transport(settings)
        self._last_token: str | None = None

    def call(self, operation: Operation[T]) -> T:
        """Run one operation, and resend it where the table in ``resend_policy`` allows.

        :raises CallError: the error of the last attempt.
        """
        try:
            return self._call(operation)
        finally:
            self.meter.flush()

    def _call(self, operation: Operation[T]) -> T:
        policy = resend_policy.policy(
            operation, max_attempts=self.settings.max_attempts, max_wait=self.settings.max_wait
        )
        report = report_first_failure(self._on_retry, self.settings.max_attempts)
        retrying: Callable[..., T] = tenacity.Retrying(**policy, sleep=self._sleep, before_sleep=report)
        return retrying(self._attempt, operation)

    def run(self, plan: Flow[T]) -> T:
        """Run a flow to its result.

        :raises AstroZeroError: an error that the flow does not handle.
        """
        reply: Any = None
        failure: AstroZeroError | None = None
        try:
            while True:
                step = plan.throw(failure) if failure else plan.send(reply)
                reply = failure = None
                if isinstance(step, operations.Sleep):
                    self._sleep(step.seconds)
                    continue
                try:
                    reply = self._call(step)
                except AstroZeroError as error:
                    failure = error
        except StopIteration as stop:
            return cast("T", stop.value)
        except AstroZeroError as error:
            error.connection = error.connection or self.settings.connection
            raise
        finally:
            self.meter.flush()

    def now(self) -> Moment:
        """Return the present moment."""
        return Moment(self.clock(), self.steady())

    def close(self) -> None:
        """Close the connections to the server."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"BpmClient({self.settings.connection!r}, {self.settings.base_url!r})"

    def _attempt(self, operation: Operation[T]) -> T:
        flow = call_flow(
            operation,
            connection=self.settings.connection,
            csrf=self._tokens.csrf_memory(self.settings),
            secrets=(*self._secrets, *self._tokens.recent_tokens(self._key)),
        )
        try:
            step = next(flow)
            while True:
                try:
                    reply = self._reply_to(step)
                except CallError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(reply)
        except StopIteration as stop:
            return cast("T", stop.value)

    def _reply_to(self, step: NeedToken | TokenNotAtFault | Request) -> Response | str | None:
        if isinstance(step, NeedToken):
            return self._token(step)
        if isinstance(step, TokenNotAtFault):
            self._tokens.note_useless_renewal(self.settings, step.doubt)
            return None
        return self._send(step)

    def _send(self, request: Request) -> Response:
        self.meter.count(REQUESTS, kind=request.kind)
        return self._transport.send(request)

    def _token(self, need: NeedToken) -> str | None:
        token = self._tokens.get(self.settings, self._request_token, stale=need.stale, doubt=need.doubt)
        if token is not None and token != self._last_token:
            self._on_token(token)
            self._last_token = token
        return token

    def _request_token(self) -> TokenAnswer:
        self.meter.count(TOKEN_REQUESTS)
        credentials = cast("ClientCredentials", self.settings.credentials)
        return self.run(request_token(credentials, self._tokens.encoding(self.settings)))
