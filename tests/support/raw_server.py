"""A server that plays a script byte by byte in the loop of a test, and a transport to it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.client.async_transport import AsyncTransport
from airflow_provider_astrobpm.client.protocol import Request, Response
from airflow_provider_astrobpm.client.settings import Settings, StaticToken

Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

SECRET = "token-that-nobody-may-see"
GET = Request("GET", "/x", {"access-token": SECRET}, None)
POST = Request("POST", "/x", {"access-token": SECRET}, b'{"name": "A"}')


def run(main: Coroutine[Any, Any, Any], seconds: float = 60) -> Any:
    """Run a test in an event loop with a timeout, and check that it leaves nothing behind and hides no error."""
    unseen: list[dict[str, Any]] = []

    async def watched() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unseen.append(context))
        result = await asyncio.wait_for(main, seconds)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    result = asyncio.run(watched())
    assert unseen == []
    return result


class Server:
    """Runs a script on every connection, in the loop of the test, and records the requests."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.connections = 0
        self.requests: list[bytes] = []
        self.asked = asyncio.Event()
        """Set whenever a request arrives."""
        self.closed = asyncio.Event()
        """Set whenever a connection ends."""
        self.port = 0

    @asynccontextmanager
    async def running(self, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
        handling: set[asyncio.Task[None]] = set()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task
            handling.add(task)
            self.connections += 1
            try:
                with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                    await self.play(reader, writer)
            finally:
                self.closed.set()
                handling.discard(task)
                with suppress(OSError, RuntimeError):
                    writer.transport.abort()

        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in tuple(handling):
                task.cancel()
            if handling:
                await asyncio.wait(tuple(handling))
            await asyncio.sleep(0)

    async def request(self, reader: asyncio.StreamReader) -> bytes:
        """Read one request, and record it."""
        raw = await reader.readuntil(b"\r\n\r\n")
        for line in raw.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                raw += await reader.readexactly(int(line.partition(b":")[2]))
        self.requests.append(raw)
        self.asked.set()
        return raw


def head(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    return head(f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers) + body


def answering(*answers: bytes) -> Server:
    """Answer the requests of each connection in turn, and all further requests with the last answer."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        position = 0
        while True:
            await server.request(reader)
            writer.write(answers[min(position, len(answers) - 1)])
            await writer.drain()
            position += 1

    server = Server(play)
    return server


def silent() -> Server:
    """Read requests without answering."""

    async def play(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await server.request(reader)
        await reader.read()

    server = Server(play)
    return server


def settings_for(port: int, scheme: str = "http", **fields: Any) -> Settings:
    base = Settings("my_conn", f"{scheme}://127.0.0.1:{port}", StaticToken(SECRET), connect_timeout=5)
    return replace(base, **fields)


@asynccontextmanager
async def transport_to(port: int, scheme: str = "http", **fields: Any) -> AsyncIterator[AsyncTransport]:
    transport = AsyncTransport(settings_for(port, scheme, **fields))
    try:
        yield transport
    finally:
        await transport.close()


async def failure_of(call: Awaitable[Response]) -> errors.CallError:
    """Return the error of a call, after checking that it contains nothing secret."""
    with pytest.raises(errors.CallError) as caught:
        await call
    error = caught.value
    assert error.__context__ is None
    assert error.__cause__ is None
    assert SECRET not in f"{error!r} {error} {vars(error)!r}"
    return error
