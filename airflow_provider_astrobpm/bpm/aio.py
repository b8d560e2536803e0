"""``AsyncBpmClient`` runs calls and plans in an event loop, as ``BpmClient`` does in a thread. It decides nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec
import tenacity

from airflow_provider_astrobpm.bpm import api, retry
from airflow_provider_astrobpm.bpm.aio_transport import AsyncTransport
from airflow_provider_astrobpm.bpm.client import telling
from airflow_provider_astrobpm.bpm.errors import AstroZeroError, CallError
from airflow_provider_astrobpm.bpm.exchange import (
    NeedToken,
    NotTheToken,
    Response,
    exchange,
)
from airflow_provider_astrobpm.bpm.meter import NO_METER, TOKEN_REQUESTS, Requests
from airflow_provider_astrobpm.bpm.token import TOKENS, credential_key, request_token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from typing_extensions import Self

    from airflow_provider_astrobpm.bpm.api import Operation, Plan, TokenAnswer
    from airflow_provider_astrobpm.bpm.exchange import Exchange, Request
    from airflow_provider_astrobpm.bpm.meter import Meter
    from airflow_provider_astrobpm.bpm.settings import ClientCredentials, Settings
    from airflow_provider_astrobpm.bpm.token import TokenCache

T = TypeVar("T")

LONGEST_READ_AT_ONCE = 64 * 1024  # bytes of an answer; a longer one is read in a thread


class _Result(msgspec.Struct, Generic[T], frozen=True):
    """The end of an exchange; what a generator ends with cannot leave a thread."""

    value: T


def _resume(talk: Exchange[T], reply: object) -> NeedToken | NotTheToken | Request | _Result[T]:
    try:
        return talk.throw(reply) if isinstance(reply, CallError) else talk.send(reply)
    except StopIteration as stop:
        return _Result(stop.value)


async def _show_nobody(_token: str) -> None:
    """Be the ``on_token`` of those who mask nothing."""


class AsyncBpmClient:
    """Talks to one Astro Zero environment. Coroutines of one event loop may share it; close it there after use.

    Making one does no I/O and needs no running loop. Whoever is cancelled gets ``CancelledError``, never a
    ``CallError``, also in the middle of a request: whether the server acts on that is then unknown.

    :param settings: where and how.
    :param tokens: the token cache; by default that of the process, which threads and event loops share.
    :param sleep: lets seconds pass, between attempts and in plans.
    :param on_token: is shown every token before its first use, so that logs can mask it.
    :param on_retry: is told in words that a call failed for the first time and is sent again.
    :param meter: is told what was sent, after each call of ``call`` or when ``tell_meter`` is called, and passes it on when
        the client is closed.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        tokens: TokenCache = TOKENS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_token: Callable[[str], Awaitable[None]] = _show_nobody,
        on_retry: Callable[[str], None] = lambda _words: None,
        meter: Meter = NO_METER,
    ) -> None:
        self.settings = settings
        self._tokens = tokens
        self._key = credential_key(settings)
        self._secrets = settings.secrets()
        self._sleep = sleep
        self._on_token = on_token
        self._on_retry = on_retry
        self.meter = meter
        self._sent = Requests()
        self._transport = AsyncTransport(settings)
        self._showing = asyncio.Lock()
        self._last_token: str | None = None

    async def call(self, operation: Operation[T]) -> T:
        """Run one operation, again where the table of ``retry`` allows it.

        :raises CallError: how the last attempt ended.
        :raises SettingsError: if a certificate file of the settings cannot be used.
        """
        limits = retry.policy(
            operation, max_attempts=self.settings.max_attempts, max_wait=self.settings.max_wait
        )
        tell = telling(self._on_retry, self.settings.max_attempts)
        retrying: Callable[..., Awaitable[T]] = tenacity.AsyncRetrying(
            **limits, sleep=self._sleep, before_sleep=tell
        )
        try:
            return await retrying(self._attempt, operation)
        finally:
            self.tell_meter()

    async def call_once(self, operation: Operation[T]) -> T:
        """Run one operation and send it once, whatever comes of it; the token for it may take several attempts.

        The meter is not told: thousands of these may be under way.

        :raises CallError: how it ended.
        :raises SettingsError: as ``call`` does.
        """
        return await self._attempt(operation)

    async def run(self, plan: Plan[T]) -> T:
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
                    await self._sleep(step.seconds)
                    continue
                try:
                    reply = await self.call(step)
                except AstroZeroError as error:
                    failure = error
        except StopIteration as stop:
            return cast("T", stop.value)
        except AstroZeroError as error:
            error.connection = error.connection or self.settings.connection
            raise

    def tell_meter(self) -> None:
        """Tell the meter what was sent since the last time."""
        self._sent.tell(self.meter)

    async def close(self) -> None:
        """Close the connections to the server."""
        self.tell_meter()
        self.meter.flush()
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncBpmClient({self.settings.connection!r}, {self.settings.base_url!r})"

    async def _attempt(self, operation: Operation[T]) -> T:
        talk = exchange(
            operation,
            connection=self.settings.connection,
            csrf=self._tokens.csrf_memory(self.settings),
            secrets=(*self._secrets, *self._tokens.earlier(self._key)),
        )
        step = _resume(talk, None)
        while not isinstance(step, _Result):
            token = self._token_at_hand(step.stale) if isinstance(step, NeedToken) else None
            reply = token or await self._reply_to(step)
            if isinstance(reply, Response) and len(reply.body) > LONGEST_READ_AT_ONCE:
                step = await asyncio.to_thread(_resume, talk, reply)
            else:
                step = _resume(talk, reply)
        return step.value

    async def _reply_to(self, step: NeedToken | NotTheToken | Request) -> Response | CallError | str | None:
        try:
            if isinstance(step, NeedToken):
                return await self._token(step)
            if isinstance(step, NotTheToken):
                self._tokens.in_vain(self.settings, step.doubt)
                return None
            self._sent[step.kind] += 1
            return await self._transport.send(step)
        except CallError as error:
            return error

    def _token_at_hand(self, stale: str | None) -> str | None:
        """Return the token that this client has used before, if it is good for now."""
        token = self._tokens.known(self._key, stale)
        return token if token == self._last_token else None

    async def _token(self, need: NeedToken) -> str | None:
        token = await self._tokens.aget(
            self.settings, self._request_token, stale=need.stale, doubt=need.doubt
        )
        if token is not None and token != self._last_token:
            async with self._showing:
                if token != self._last_token:
                    await self._on_token(token)
                    self._last_token = token
        return token

    async def _request_token(self) -> TokenAnswer:
        self.meter.count(TOKEN_REQUESTS)
        credentials = cast("ClientCredentials", self.settings.credentials)
        return await self.run(request_token(credentials, self._tokens.encoding(self.settings)))
