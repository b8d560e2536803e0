"""``AsyncBpmClient`` runs calls and flows in an event loop, as ``BpmClient`` does in a thread. It makes no decisions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_astrobpm.client._base_client import BaseClient
from airflow_provider_astrobpm.client.async_transport import AsyncTransport
from airflow_provider_astrobpm.client.drivers import drive_async
from airflow_provider_astrobpm.client.errors import AstroZeroError, CallError
from airflow_provider_astrobpm.client.metrics import NULL_METER, RequestCounts
from airflow_provider_astrobpm.client.operations import Sleep
from airflow_provider_astrobpm.client.protocol import NeedToken, Response
from airflow_provider_astrobpm.client.tokens import TOKENS
from airflow_provider_astrobpm.client.wire import Rows, row_count

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from typing_extensions import Self

    from airflow_provider_astrobpm.client._base_client import CallStep
    from airflow_provider_astrobpm.client.metrics import Meter
    from airflow_provider_astrobpm.client.operations import Flow, Operation
    from airflow_provider_astrobpm.client.recording_transport import AsyncRecordingTransport
    from airflow_provider_astrobpm.client.settings import Settings
    from airflow_provider_astrobpm.client.tokens import TokenCache

T = TypeVar("T")

MAX_INLINE_DECODE_BYTES = 64 * 1024  # a longer answer is decoded in a thread
MAX_INLINE_ROWS = 1000  # a flow takes a longer list in a thread


def _is_long(reply: object) -> bool:
    return isinstance(reply, Response) and len(reply.body) > MAX_INLINE_DECODE_BYTES


def _is_long_list(reply: object) -> bool:
    return isinstance(reply, Rows) and row_count(reply) > MAX_INLINE_ROWS


async def _ignore_token(_token: str) -> None:
    """Do nothing. The default ``on_token``."""


class AsyncBpmClient(BaseClient):
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
        super().__init__(settings, tokens, on_retry, meter)
        self._sleep = sleep
        self._on_token = on_token
        self._sent = RequestCounts()
        self._transport: AsyncTransport | AsyncRecordingTransport = AsyncTransport(settings)
        if (writer := self._folder_writer()) is not None:
            from airflow_provider_astrobpm.client.recording_transport import (  # noqa: PLC0415
                AsyncRecordingTransport,
            )

            self._transport = AsyncRecordingTransport(self._transport, writer)
        self._masking_lock = asyncio.Lock()

    async def call(self, operation: Operation[T]) -> T:
        """Run one operation, and resend it where the table in ``resend_policy`` allows.

        :raises CallError: the error of the last attempt.
        :raises SettingsError: if a certificate file of the settings is unusable.
        """
        try:
            return await self._drive(self._call_resent(operation))
        finally:
            self.flush_request_counts()

    async def call_once(self, operation: Operation[T]) -> T:
        """Run one operation and send it only once. Fetching its token may take several attempts.

        The meter is not updated, because thousands of these calls may be under way.

        :raises CallError: the error of the call.
        :raises SettingsError: see ``call``.
        """
        return await self._drive(self._call_once(operation))

    async def run(self, flow: Flow[T]) -> T:
        """Run a flow to its result. It takes long lists in a thread, where it searches them while the event loop continues.

        :raises AstroZeroError: an error that the flow does not handle.
        """
        try:
            return await drive_async(flow, self._result_of, is_heavy=_is_long_list)
        except AstroZeroError as error:
            error.connection = error.connection or self.settings.connection
            raise

    async def _result_of(self, step: Operation[Any] | Sleep) -> Any:
        return await (self._sleep(step.seconds) if isinstance(step, Sleep) else self.call(step))

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

    async def _drive(self, flow: Generator[CallStep, Any, T]) -> T:
        return await drive_async(flow, self._reply_to, CallError, is_heavy=_is_long)

    async def _reply_to(self, step: CallStep) -> Response | str | None:
        if isinstance(step, NeedToken):
            known = self._tokens.known(self._key, step.stale)
            return known if known and known == self._last_token else await self._token(step)
        if isinstance(step, Sleep):
            await self._sleep(step.seconds)
            return None
        self._sent[step.kind] += 1
        return await self._transport.send(step)

    async def _token(self, need: NeedToken) -> str | None:
        token = await self._tokens.aget(
            self.settings, lambda: self.run(self._token_flow()), stale=need.stale, doubt=need.doubt
        )
        if token is not None and token != self._last_token:
            async with self._masking_lock:
                if token != self._last_token:
                    await self._on_token(token)
                    self._last_token = token
        return token
