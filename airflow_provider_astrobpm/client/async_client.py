"""``AsyncBpmClient`` runs calls and flows in an event loop, as ``BpmClient`` does in a thread. It makes no decisions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec
import tenacity

from airflow_provider_astrobpm.client import operations, resend_policy
from airflow_provider_astrobpm.client.async_transport import AsyncTransport
from airflow_provider_astrobpm.client.errors import AstroZeroError, CallError
from airflow_provider_astrobpm.client.metrics import NULL_METER, TOKEN_REQUESTS, RequestCounts
from airflow_provider_astrobpm.client.protocol import NeedToken, Response, TokenNotAtFault, call_flow
from airflow_provider_astrobpm.client.sync_client import report_first_failure
from airflow_provider_astrobpm.client.tokens import TOKENS, credential_key, request_token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from typing_extensions import Self

    from airflow_provider_astrobpm.client.metrics import Meter
    from airflow_provider_astrobpm.client.operations import Flow, Operation, TokenAnswer
    from airflow_provider_astrobpm.client.protocol import CallFlow, Request
    from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings
    from airflow_provider_astrobpm.client.tokens import TokenCache

T = TypeVar("T")

MAX_INLINE_DECODE_BYTES = 64 * 1024  # a longer answer is decoded in a thread


class _Result(msgspec.Struct, Generic[T], frozen=True):
    """The result of a call flow. The ``StopIteration`` of a generator cannot be passed out of a thread."""

    value: T


def _resume(flow: CallFlow[T], reply: object) -> NeedToken | TokenNotAtFault | Request | _Result[T]:
    try:
        return flow.throw(reply) if isinstance(reply, CallError) else flow.send(reply)
    except StopIteration as stop:
        return _Result(stop.value)


async def _ignore_token(_token: str) -> None:
    """Do nothing. The default ``on_token``."""


class AsyncBpmClient:
    """Asynchronous client for one Astro Zero environment. Coroutines of one event loop may share it. Close it in that loop.

    Creating one does no I/O and needs no running loop. A cancelled caller gets ``CancelledError``, never a ``CallError``, even in
    the middle of a request. It is then unknown whether the server acts on the request.

    :param settings: the settings of the environment.
    :param tokens: the token cache; by default the one of the process, which threads and event loops share.
    :param sleep: sleeps for some seconds, between attempts and in flows.
    :param on_token: called with every token before its first use, so that logs can mask it.
    :param on_retry: called with a message when the first attempt of a call failed and the call is resent.
    :param meter: counts requests; updated after each ``call`` and by ``flush_request_counts``, and flushed when the client is
        closed.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        tokens: TokenCache = TOKENS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_token: Callable[[str], Awaitable[None]] = _ignore_token,
        on_retry: Callable[[str], None] = lambda _words: None,
        meter: Meter = NULL_METER,
    ) -> None:
        self.settings = settings
        self._tokens = tokens
        self._key = credential_key(settings)
        self._secrets = settings.secrets()
        self._sleep = sleep
        self._on_token = on_token
        self._on_retry = on_retry
        self.meter = meter
        self._sent = RequestCounts()
        self._transport = AsyncTransport(settings)
        self._masking_lock = asyncio.Lock()
        self._last_token: str | None = None

    async def call(self, operation: Operation[T]) -> T:
        """Run one operation, and resend it where the table in ``resend_policy`` allows.

        :raises CallError: the error of the last attempt.
        :raises SettingsError: if a certificate file of the settings is unusable.
        """
        policy = resend_policy.policy(
            operation, max_attempts=self.settings.max_attempts, max_wait=self.settings.max_wait
        )
        report = report_first_failure(self._on_retry, self.settings.max_attempts)
        retrying: Callable[..., Awaitable[T]] = tenacity.AsyncRetrying(
            **policy, sleep=self._sleep, before_sleep=report
        )
        try:
            return await retrying(self._attempt, operation)
        finally:
            self.flush_request_counts()

    async def call_once(self, operation: Operation[T]) -> T:
        """Run one operation and send it only once. Fetching its token may take several attempts.

        The meter is not updated, because thousands of these calls may be under way.

        :raises CallError: the error of the call.
        :raises SettingsError: see ``call``.
        """
        return await self._attempt(operation)

    async def run(self, plan: Flow[T]) -> T:
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

    def flush_request_counts(self) -> None:
        """Pass the requests counted since the last call to the meter."""
        self._sent.flush_to(self.meter)

    async def close(self) -> None:
        """Close the connections to the server."""
        self.flush_request_counts()
        self.meter.flush()
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncBpmClient({self.settings.connection!r}, {self.settings.base_url!r})"

    async def _attempt(self, operation: Operation[T]) -> T:
        flow = call_flow(
            operation,
            connection=self.settings.connection,
            csrf=self._tokens.csrf_memory(self.settings),
            secrets=(*self._secrets, *self._tokens.recent_tokens(self._key)),
        )
        step = _resume(flow, None)
        while not isinstance(step, _Result):
            token = self._reusable_token(step.stale) if isinstance(step, NeedToken) else None
            reply = token or await self._reply_to(step)
            if isinstance(reply, Response) and len(reply.body) > MAX_INLINE_DECODE_BYTES:
                step = await asyncio.to_thread(_resume, flow, reply)
            else:
                step = _resume(flow, reply)
        return step.value

    async def _reply_to(
        self, step: NeedToken | TokenNotAtFault | Request
    ) -> Response | CallError | str | None:
        try:
            if isinstance(step, NeedToken):
                return await self._token(step)
            if isinstance(step, TokenNotAtFault):
                self._tokens.note_useless_renewal(self.settings, step.doubt)
                return None
            self._sent[step.kind] += 1
            return await self._transport.send(step)
        except CallError as error:
            return error

    def _reusable_token(self, stale: str | None) -> str | None:
        """Return the token that this client used before, if it is still valid."""
        token = self._tokens.known(self._key, stale)
        return token if token == self._last_token else None

    async def _token(self, need: NeedToken) -> str | None:
        token = await self._tokens.aget(
            self.settings, self._request_token, stale=need.stale, doubt=need.doubt
        )
        if token is not None and token != self._last_token:
            async with self._masking_lock:
                if token != self._last_token:
                    await self._on_token(token)
                    self._last_token = token
        return token

    async def _request_token(self) -> TokenAnswer:
        self.meter.count(TOKEN_REQUESTS)
        credentials = cast("ClientCredentials", self.settings.credentials)
        return await self.run(request_token(credentials, self._tokens.encoding(self.settings)))
