"""``BpmClient`` runs calls and flows on the sync transport. It makes no decisions of its own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_astrobpm.client._base_client import BaseClient
from airflow_provider_astrobpm.client.drivers import drive
from airflow_provider_astrobpm.client.errors import AstroZeroError, CallError
from airflow_provider_astrobpm.client.metrics import NULL_METER, REQUESTS
from airflow_provider_astrobpm.client.moment import Moment
from airflow_provider_astrobpm.client.operations import Sleep
from airflow_provider_astrobpm.client.protocol import NeedToken
from airflow_provider_astrobpm.client.sync_transport import Transport
from airflow_provider_astrobpm.client.tokens import TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from airflow_provider_astrobpm.client._base_client import CallStep
    from airflow_provider_astrobpm.client.metrics import Meter
    from airflow_provider_astrobpm.client.operations import Flow, Operation
    from airflow_provider_astrobpm.client.protocol import Request, Response
    from airflow_provider_astrobpm.client.recording_transport import RecordingTransport
    from airflow_provider_astrobpm.client.settings import Settings
    from airflow_provider_astrobpm.client.tokens import TokenCache
    from airflow_provider_astrobpm.client.transcript_writer import TranscriptWriter

T = TypeVar("T")


class BpmClient(BaseClient):
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
        super().__init__(settings, tokens, on_retry, meter)
        self._sleep = sleep
        self.clock = clock
        self.steady = steady
        self._on_token = on_token
        self._transport: Transport | RecordingTransport = Transport(settings)
        if (writer := self._folder_writer()) is not None:
            self.record(writer)

    def record(self, writer: TranscriptWriter) -> None:
        """Write a transcript of all further requests and their answers.

        :param writer: writes the transcript.
        """
        from airflow_provider_astrobpm.client.recording_transport import RecordingTransport  # noqa: PLC0415

        self._transport = RecordingTransport(self._transport, writer)

    def call(self, operation: Operation[T]) -> T:
        """Run one operation, and resend it where the table in ``resend_policy`` allows.

        :raises CallError: the error of the last attempt.
        """
        try:
            return self._call(operation)
        finally:
            self.meter.flush()

    def _call(self, operation: Operation[T]) -> T:
        return drive(self._call_resent(operation), self._reply_to, CallError)

    def run(self, flow: Flow[T]) -> T:
        """Run a flow to its result.

        :raises AstroZeroError: an error that the flow does not handle.
        """
        try:
            return drive(flow, self._result_of)
        except AstroZeroError as error:
            error.connection = error.connection or self.settings.connection
            raise
        finally:
            self.meter.flush()

    def _result_of(self, step: Operation[Any] | Sleep) -> Any:
        return self._sleep(step.seconds) if isinstance(step, Sleep) else self._call(step)

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

    def _reply_to(self, step: CallStep) -> Response | str | None:
        if isinstance(step, NeedToken):
            return self._token(step)
        return self._sleep(step.seconds) if isinstance(step, Sleep) else self._send(step)

    def _send(self, request: Request) -> Response:
        self.meter.count(REQUESTS, kind=request.kind)
        return self._transport.send(request)

    def _token(self, need: NeedToken) -> str | None:
        token = self._tokens.get(
            self.settings, lambda: self.run(self._token_flow()), stale=need.stale, doubt=need.doubt
        )
        if token is not None and token != self._last_token:
            self._on_token(token)
            self._last_token = token
        return token
