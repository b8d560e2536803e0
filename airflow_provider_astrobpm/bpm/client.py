"""``BpmClient`` runs calls and plans on the sync transport. It decides nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

import tenacity

from airflow_provider_astrobpm.bpm import api, retry
from airflow_provider_astrobpm.bpm.errors import AstroZeroError, CallError
from airflow_provider_astrobpm.bpm.exchange import (
    NeedToken,
    NotTheToken,
    exchange,
)
from airflow_provider_astrobpm.bpm.meter import NO_METER, REQUESTS, TOKEN_REQUESTS
from airflow_provider_astrobpm.bpm.moment import Moment
from airflow_provider_astrobpm.bpm.token import TOKENS, credential_key, request_token
from airflow_provider_astrobpm.bpm.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from airflow_provider_astrobpm.bpm.api import Operation, Plan, TokenAnswer
    from airflow_provider_astrobpm.bpm.exchange import Request, Response
    from airflow_provider_astrobpm.bpm.meter import Meter
    from airflow_provider_astrobpm.bpm.settings import ClientCredentials, Settings
    from airflow_provider_astrobpm.bpm.token import TokenCache

T = TypeVar("T")


def telling(on_retry: Callable[[str], None], max_attempts: int) -> Callable[[tenacity.RetryCallState], None]:
    """Return what tells of the first failure of a call, and of no other, before it is sent again."""

    def tell(state: tenacity.RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome:
            on_retry(f"The first of up to {max_attempts} attempts failed. {state.outcome.exception()}")

    return tell


class BpmClient:
    """Talks to one Astro Zero environment. Threads may share it; close it after use.

    :param settings: where and how.
    :param tokens: the token cache; by default that of the process.
    :param sleep: lets seconds pass, between attempts and in plans.
    :param clock: the time by which they pass, in seconds since the epoch.
    :param steady: the same on a clock that nobody sets, in seconds from whatever moment on.
    :param on_token: is shown every token before its first use, so that logs can mask it.
    :param on_retry: is told in words that a call failed for the first time and is sent again.
    :param meter: is told what is sent, and passes it on at the end of each plan, and of each call that belongs to none.
    :raises SettingsError: if a certificate file of the settings cannot be used.
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
        meter: Meter = NO_METER,
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
        """Run one operation, again where the table of ``retry`` allows it.

        :raises CallError: how the last attempt ended.
        """
        try:
            return self._call(operation)
        finally:
            self.meter.flush()

    def _call(self, operation: Operation[T]) -> T:
        limits = retry.policy(
            operation, max_attempts=self.settings.max_attempts, max_wait=self.settings.max_wait
        )
        tell = telling(self._on_retry, self.settings.max_attempts)
        retrying: Callable[..., T] = tenacity.Retrying(**limits, sleep=self._sleep, before_sleep=tell)
        return retrying(self._attempt, operation)

    def run(self, plan: Plan[T]) -> T:
        """Run a plan to its result.

        :raises AstroZeroError: what the plan does not handle.
        """
        reply: Any = None
        failure: AstroZeroError | None = None
        try:
            while True:
                step = plan.throw(failure) if failure else plan.send(reply)
                reply = failure = None
                if isinstance(step, api.Pause):
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
        """Return this moment."""
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
        talk = exchange(
            operation,
            connection=self.settings.connection,
            csrf=self._tokens.csrf_memory(self.settings),
            secrets=(*self._secrets, *self._tokens.earlier(self._key)),
        )
        try:
            step = next(talk)
            while True:
                try:
                    reply = self._reply_to(step)
                except CallError as error:
                    step = talk.throw(error)
                else:
                    step = talk.send(reply)
        except StopIteration as stop:
            return cast("T", stop.value)

    def _reply_to(self, step: NeedToken | NotTheToken | Request) -> Response | str | None:
        if isinstance(step, NeedToken):
            return self._token(step)
        if isinstance(step, NotTheToken):
            self._tokens.in_vain(self.settings, step.doubt)
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
