"""Transports that also record each exchange. A client uses one only if its settings ask for it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.client.errors import AstroZeroError
from airflow_provider_astrobpm.client.transcript import GIVEN_UP, Exchange, failure_name

if TYPE_CHECKING:
    from airflow_provider_astrobpm.client.async_transport import AsyncTransport
    from airflow_provider_astrobpm.client.protocol import Request, Response
    from airflow_provider_astrobpm.client.sync_transport import Transport
    from airflow_provider_astrobpm.client.transcript_writer import TranscriptWriter


class RecordingTransport:
    """Sends requests with another transport, and writes what was sent and answered.

    :param transport: sends the requests.
    :param writer: writes the transcript.
    """

    def __init__(self, transport: Transport | RecordingTransport, writer: TranscriptWriter) -> None:
        self._transport = transport
        self._writer = writer

    def send(self, request: Request) -> Response:
        """Do the same as the other transport, with the same errors."""
        timing = _Timing()
        outcome: Response | str = GIVEN_UP
        try:
            outcome = answer = self._transport.send(request)
        except AstroZeroError as error:
            outcome = failure_name(error)
            raise
        finally:
            self._writer.write(timing.exchange(request, outcome))
        return answer

    def close(self) -> None:
        """Close the connections to the server."""
        self._transport.close()


class AsyncRecordingTransport:
    """Does the same in an event loop, which it never blocks. The parameters are those of ``RecordingTransport``."""

    def __init__(self, transport: AsyncTransport | AsyncRecordingTransport, writer: TranscriptWriter) -> None:
        self._transport = transport
        self._writer = writer

    async def send(self, request: Request) -> Response:
        """Do the same as the other transport, with the same errors."""
        timing = _Timing()
        outcome: Response | str = GIVEN_UP
        try:
            outcome = answer = await self._transport.send(request)
        except AstroZeroError as error:
            outcome = failure_name(error)
            raise
        finally:
            self._writer.write_later(timing.exchange(request, outcome))
        return answer

    async def close(self) -> None:
        """Close the connections to the server, and wait a moment until everything is written."""
        await self._transport.close()
        with suppress(RuntimeError):  # the event loop is being closed, and starts no thread any more
            await asyncio.to_thread(self._writer.drain)


class _Timing:
    """When a request was sent, and how long it took."""

    def __init__(self) -> None:
        self._at, self._begun = time.time(), time.monotonic()

    def exchange(self, request: Request, outcome: Response | str) -> Exchange:
        return Exchange(request, outcome, self._at, time.monotonic() - self._begun)
