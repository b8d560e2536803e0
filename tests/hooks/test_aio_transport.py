"""The asynchronous transport on real sockets: requests, errors, TLS, proxies and idle connections."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as changed

from airflow_provider_astrobpm.client import _tls, errors, operations
from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
from airflow_provider_astrobpm.client.async_transport import MAX_CACHED_URLS, AsyncTransport, _prepared
from airflow_provider_astrobpm.client.protocol import Request, Response
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings, StaticToken
from airflow_provider_astrobpm.client.sync_client import BpmClient
from airflow_provider_astrobpm.client.tokens import TokenCache
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer

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


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
    ):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class TestRequests:
    def test_is_sent_unchanged(self) -> None:
        target = "/p%20q/a%2Fb?states=Completed%20OK&fields=id%2Cname&x=%E4%B8%AD"

        async def main() -> None:
            async with answering(answer(b"{}")).running() as server, transport_to(server.port) as transport:
                for method in ("GET", "PUT", "POST", "DELETE"):
                    body = b'{"a": 1}' if method in ("PUT", "POST") else None
                    request = Request(method, target, {"content-type": "application/json"}, body)
                    assert (await transport.send(request)).body == b"{}"
                    raw = server.requests[-1]
                    assert raw.startswith(f"{method} {target} HTTP/1.1\r\n".encode())
                    assert raw.endswith(b"\r\n\r\n" + (body or b""))
                assert server.connections == 1

        run(main())

    def test_long_body_is_sent_completely(self) -> None:
        body = b'"' + b"x" * 3_000_000 + b'"'

        async def main() -> None:
            async with answering(answer(b"{}")).running() as server, transport_to(server.port) as transport:
                await transport.send(changed(POST, body=body))
                assert server.requests[0].endswith(b"\r\n\r\n" + body)

        run(main())

    def test_cookies_and_netrc_are_ignored(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login somebody password else\n")
        monkeypatch.setenv("NETRC", str(netrc))

        async def main() -> None:
            cookie = answer(b"{}", "Set-Cookie: access-token=other; Path=/")
            async with answering(cookie).running() as server, transport_to(server.port) as transport:
                await transport.send(GET)
                await transport.send(GET)
                for raw in server.requests:
                    assert f"access-token: {SECRET}".encode() in raw
                    assert b"cookie" not in raw.lower()
                    assert b"authorization" not in raw.lower()

        run(main())

    def test_url_cache_is_bounded(self) -> None:
        async def main() -> None:
            async with answering(answer(b"{}")).running() as server, transport_to(server.port) as transport:
                for number in (*range(MAX_CACHED_URLS + 10), 0):
                    await transport.send(changed(GET, target=f"/{number}"))
                    assert server.requests[-1].startswith(f"GET /{number} HTTP/1.1\r\n".encode())
                assert _prepared.cache_info().currsize == MAX_CACHED_URLS

        run(main())

    @pytest.mark.parametrize("earlier", [0, 2])
    def test_invalid_request_raises(self, earlier: int) -> None:
        async def main() -> None:
            async with answering(answer(b"{}")).running() as server, transport_to(server.port) as transport:
                for _ in range(earlier):
                    await transport.send(GET)
                for _ in range(2):
                    error = await failure_of(transport.send(changed(GET, headers={"x": f"{SECRET}\r\ny: z"})))
                    assert isinstance(error, errors.NotSentError)
                    assert error.is_transient is False
                    assert "could not be built" in str(error)
                assert len(server.requests) == earlier

        run(main())


class TestSentOnce:
    @pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
    @pytest.mark.parametrize("warm", [False, True], ids=["new connection", "used connection"])
    def test_broken_connection_causes_no_resend(self, method: str, warm: bool) -> None:
        async def main() -> None:
            async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                if warm:
                    await server.request(reader)
                    writer.write(answer(b"{}"))
                await server.request(reader)
                reset = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)

            server = Server(play)
            async with server.running(), transport_to(server.port) as transport:
                if warm:
                    await transport.send(GET)
                body = b"{}" if method in ("PUT", "POST") else None
                error = await failure_of(transport.send(changed(GET, method=method, body=body)))
                assert type(error) is errors.InterruptedCallError
                assert error.was_processed is None
                assert "the connection was lost" in str(error)
                assert (server.connections, len(server.requests)) == (1, 1 + warm)

        run(main())

    @pytest.mark.parametrize("request_", [GET, POST], ids=["GET", "POST"])
    def test_closed_idle_connection_is_not_used(self, request_: Request) -> None:
        async def main() -> None:
            async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await server.request(reader)
                writer.write(answer(b"{}"))
                await writer.drain()
                writer.close()

            server = Server(play)
            async with server.running(), transport_to(server.port) as transport:
                for count in (1, 2, 3):
                    assert (await transport.send(request_)).status == 200
                    assert len(server.requests) == count
                    await server.closed.wait()
                    server.closed.clear()

        run(main())

    def test_closed_connection_is_not_used_even_if_the_loop_has_not_noticed(self) -> None:
        closed, listener = threading.Event(), socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    received = b""
                    while b'"A"' not in received:
                        received += connection.recv(65536)
                    connection.sendall(answer(b"{}"))
                closed.set()

        async def main() -> None:
            async with transport_to(listener.getsockname()[1]) as transport:
                assert (await transport.send(POST)).status == 200
                assert closed.wait(10)  # while this loop is blocked
                assert (await transport.send(POST)).status == 200

        thread = threading.Thread(target=serve)
        thread.start()
        with listener:
            run(main())
            thread.join(10)
        assert not thread.is_alive()

    def test_connection_with_an_early_answer_is_not_reused(self) -> None:
        async def main() -> None:
            async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer(b"{}"))
                while await reader.read(65536):
                    pass

            server = Server(play)
            async with server.running(), transport_to(server.port) as transport:
                for count in (1, 2):
                    call = transport.send(changed(POST, body=b"x" * 30_000_000))
                    assert (await call).status == 200
                    await server.closed.wait()
                    server.closed.clear()
                    assert server.connections == count

        run(main())

    def test_concurrent_requests_do_not_wait_for_a_connection(self) -> None:
        async def main() -> None:
            everyone = asyncio.Event()

            async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await server.request(reader)
                if len(server.requests) == 200:
                    everyone.set()
                await everyone.wait()
                writer.write(answer(b"{}"))
                await writer.drain()

            server = Server(play)
            async with server.running(), transport_to(server.port) as transport:
                answers = await asyncio.gather(*(transport.send(GET) for _ in range(200)))
                assert [each.status for each in answers] == [200] * 200

        run(main())


class TestErrors:
    def error_of(
        self, server: Callable[[], Server], request: Request = POST, **fields: Any
    ) -> errors.CallError:
        async def main() -> errors.CallError:
            async with server().running() as running, transport_to(running.port, **fields) as transport:
                return await failure_of(transport.send(request))

        error: errors.CallError = run(main())
        return error

    def test_connection_refused(self, free_port: int) -> None:
        async def main() -> None:
            async with transport_to(free_port) as transport:
                error = await failure_of(transport.send(POST))
                assert type(error) is errors.NotSentError
                assert (error.was_processed, error.is_transient) == (False, True)
                assert "could not be reached (ConnectionRefusedError: " in str(error)

        run(main())

    def test_unknown_host_name(self) -> None:
        async def main() -> None:
            async with transport_to(1, base_url="http://nowhere.invalid") as transport:
                error = await failure_of(transport.send(POST))
                assert type(error) is errors.NotSentError
                assert "could not be reached (gaierror: " in str(error)

        run(main())

    def test_connect_timeout(self) -> None:
        with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            for other in (first, second):  # they fill the queue
                other.setblocking(False)
                other.connect_ex(listener.getsockname())

            async def main() -> None:
                async with transport_to(listener.getsockname()[1], connect_timeout=0.3) as transport:
                    error = await failure_of(transport.send(POST))
                    assert type(error) is errors.NotSentError
                    assert "could not be reached within 'connect_timeout'" in str(error)

            run(main())

    def test_read_timeout(self) -> None:
        error = self.error_of(silent, read_timeout=0.2)
        assert type(error) is errors.InterruptedCallError
        assert "no answer came within 'read_timeout'" in str(error)

    def test_truncated_answer(self) -> None:
        error = self.error_of(
            lambda: answering(head("HTTP/1.1 200 OK", "Content-Length: 100") + b"{"), read_timeout=0.2
        )
        assert type(error) is errors.InterruptedCallError
        assert "no answer came within 'read_timeout'" in str(error)

    @pytest.mark.parametrize("length", ["Content-Length: 10000", "Transfer-Encoding: chunked", "X: y"])
    def test_trickling_answer(self, length: str) -> None:
        def trickling() -> Server:
            async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await server.request(reader)
                writer.write(head("HTTP/1.1 200 OK", length))
                for _ in range(10_000):
                    writer.write(b"1\r\n \r\n" if "chunked" in length else b" ")
                    await asyncio.sleep(0.02)

            server = Server(play)
            return server

        error = self.error_of(trickling, read_timeout=5, answer_timeout=0.3)
        assert type(error) is errors.InterruptedCallError
        assert "the answer was not complete within 0.3 s" in str(error)

    def test_server_that_does_not_read_the_request(self) -> None:
        def deaf() -> Server:
            async def play(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                await asyncio.Event().wait()

            return Server(play)

        error = self.error_of(deaf, changed(POST, body=b"x" * 30_000_000), answer_timeout=0.5)
        assert type(error) is errors.InterruptedCallError
        assert "the answer was not complete within 0.5 s" in str(error)

    def test_server_that_repeats_the_request(self) -> None:
        def echo() -> Server:
            async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(b"HTTP/1.1 200 OK\r\n" + (await server.request(reader)).replace(b": ", b" : "))
                await writer.drain()

            server = Server(play)
            return server

        assert type(self.error_of(echo)) is errors.InterruptedCallError

    @pytest.mark.parametrize("packed", [False, True])
    def test_answer_too_long(self, packed: bool) -> None:
        body = b" " * 100_001
        raw = answer(gzip.compress(body), "Content-Encoding: gzip") if packed else answer(body)
        error = self.error_of(lambda: answering(raw), max_response_bytes=100_000)
        assert type(error) is errors.UnexpectedAnswerError
        assert error.status == 200
        assert "longer than 100000 bytes ('max_response_bytes')" in str(error)

    @pytest.mark.parametrize(
        "body",
        [b"abcd", gzip.compress(b"abc")[:-9], gzip.compress(b"a") + b"abcd", b"x" * 10_000],
        ids=["none", "cut off", "more behind", "long"],
    )
    def test_answer_with_invalid_compression(self, body: bytes) -> None:
        error = self.error_of(lambda: answering(answer(body, "Content-Encoding: gzip", status="502 Bad")))
        assert type(error) is errors.UnexpectedAnswerError
        assert error.status == 502
        assert "the answer cannot be decompressed" in str(error)


class TestAnswers:
    def get(self, raw: bytes, **fields: Any) -> Response:
        async def main() -> Response:
            async with answering(raw).running() as server, transport_to(server.port, **fields) as transport:
                return await transport.send(GET)

        response: Response = run(main())
        return response

    @pytest.mark.parametrize(
        ("encoding", "body"),
        [
            ("gzip", gzip.compress(b"abc" * 5_000)),
            ("GZip", gzip.compress(b"abc" * 4_000) + gzip.compress(b"abc" * 1_000)),
            ("deflate", zlib.compress(b"abc" * 5_000)),
            ("identity", b"abc" * 5_000),
            ("gzip", gzip.compress(b"abc" * 5_000, 0)),
        ],
        ids=["gzip", "two parts", "deflate", "plain", "long"],
    )
    def test_compressed_answers(self, encoding: str, body: bytes) -> None:
        assert self.get(answer(body, f"Content-Encoding: {encoding}")).body == b"abc" * 5_000

    def test_answer_of_exactly_the_maximum_length(self) -> None:
        body = b"abc" * 5_000
        packed = answer(gzip.compress(body), "Content-Encoding: gzip")
        assert self.get(answer(body), max_response_bytes=len(body)).body == body
        assert self.get(packed, max_response_bytes=len(body)).body == body

    def test_empty_answer_declared_as_compressed(self) -> None:
        assert self.get(answer(b"", "Content-Encoding: gzip", status="401 No")).status == 401

    def test_headers(self) -> None:
        raw = answer(
            b"{}", "Retry-After: 7", "X-Twice: a", "x-twice: b", "X-Odd: \xff\xfe", f"X-Long: {'x' * 20_000}"
        )
        headers = self.get(raw).headers
        assert headers["retry-after"] == "7"
        assert headers["x-twice"] == "a, b"
        assert headers["x-odd"] == "\xff\xfe"
        assert len(headers["x-long"]) == 20_000

    @pytest.mark.parametrize(
        "location", ["/elsewhere", "http://127.0.0.1:1/", "http://[::1/x", "\xff\xfe", ""]
    )
    def test_redirect_is_an_ordinary_answer(self, location: str) -> None:
        response = self.get(answer(b"gone", f"Location: {location}", status="302 Found"))
        assert (response.status, response.body) == (302, b"gone")


class TestProxies:
    def test_proxy_of_the_settings_overrides_the_environment(
        self, free_port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port}")

        async def main() -> None:
            async with answering(answer(b"{}")).running() as proxy:
                given = f"http://user:proxy%20password@127.0.0.1:{proxy.port}"
                async with transport_to(
                    1, allow_http=True, base_url="http://somewhere.invalid", proxy=given
                ) as transport:
                    await transport.send(changed(GET, target="/a?b=%20c"))
                (raw,) = proxy.requests
                assert raw.startswith(b"GET http://somewhere.invalid/a?b=%20c HTTP/1.1\r\n")
                assert b"proxy-authorization: basic dxnlcjpwcm94esbwyxnzd29yza==" in raw.lower()

        run(main())

    @pytest.mark.parametrize("exempt", [None, "somewhere.invalid", "*"])
    def test_proxy_of_the_environment_is_used_unless_the_host_is_exempt(
        self, exempt: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if exempt:
            monkeypatch.setenv("NO_PROXY", exempt)

        async def main() -> None:
            async with answering(answer(b"{}")).running() as proxy:
                monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy.port}")
                async with transport_to(1, allow_http=True, base_url="http://somewhere.invalid") as transport:
                    if exempt:
                        assert "gaierror" in str(await failure_of(transport.send(GET)))
                    else:
                        assert (await transport.send(GET)).status == 200
                assert len(proxy.requests) == (0 if exempt else 1)

        run(main())

    def test_the_environment_is_read_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def main() -> None:
            async with answering(answer(b"{}")).running() as proxy:
                monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy.port}")
                async with transport_to(1, allow_http=True, base_url="http://somewhere.invalid") as transport:
                    await transport.send(GET)
                    monkeypatch.delenv("HTTP_PROXY")
                    await transport.send(changed(GET, target="/another"))
                assert len(proxy.requests) == 2

        run(main())

    def test_each_origin_has_its_own_proxy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        look_up = socket.getaddrinfo

        def find(host: Any, *arguments: Any, **options: Any) -> Any:
            return look_up("127.0.0.1" if host == "somewhere.invalid" else host, *arguments, **options)

        monkeypatch.setattr(socket, "getaddrinfo", find)

        async def main() -> None:
            async with (
                answering(answer(b"{}")).running() as proxy,
                answering(answer(b"{}")).running() as near,
            ):
                monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy.port}")
                monkeypatch.setenv("NO_PROXY", f"somewhere.invalid:{near.port}")
                async with transport_to(1, allow_http=True, base_url="http://somewhere.invalid") as transport:
                    for _ in range(2):
                        for port in (1, near.port):
                            await transport.send(changed(GET, target=f":{port}/x"))
                assert (len(proxy.requests), len(near.requests)) == (2, 2)

        run(main())

    def test_https_goes_through_a_tunnel(self, certificates: Path) -> None:
        async def main() -> None:
            async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await proxy.request(reader)
                there, back = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(head("HTTP/1.1 200 Connection established"))
                try:
                    await asyncio.gather(pass_on(reader, back), pass_on(there, writer))
                finally:
                    back.transport.abort()

            async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                while data := await source.read(65536):
                    sink.write(data)
                sink.close()

            proxy, server = Server(tunnel), answering(answer(b"{}"))
            async with server.running(server_context(certificates)), proxy.running():
                fields = {
                    "base_url": f"https://somewhere.invalid:{server.port}",
                    "proxy": f"http://user:proxy-password@127.0.0.1:{proxy.port}",
                    "verify": str(certificates / "ca.pem"),
                }
                async with transport_to(server.port, "https", **fields) as transport:
                    assert (await transport.send(POST)).status == 200
                    assert (await transport.send(POST)).status == 200
            (connect,) = proxy.requests
            assert connect.startswith(f"CONNECT somewhere.invalid:{server.port} HTTP/1.1\r\n".encode())
            assert b"proxy-authorization: basic " in connect.lower()
            assert SECRET.encode() not in connect
            for raw in server.requests:
                assert raw.startswith(b"POST /x HTTP/1.1\r\n")
                assert b"proxy-authorization" not in raw.lower()

        run(main())

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_unreachable_proxy(self, scheme: str, free_port: int) -> None:
        async def main() -> None:
            proxy = f"http://user:proxy-password@127.0.0.1:{free_port}"
            async with transport_to(
                1, allow_http=True, base_url=f"{scheme}://somewhere.invalid", proxy=proxy
            ) as transport:
                error = await failure_of(transport.send(POST))
                assert type(error) is errors.NotSentError
                assert "proxy-password" not in f"{error} {error!r}"

        run(main())

    def test_proxy_that_never_opens_the_tunnel(self) -> None:
        async def main() -> None:
            async with silent().running() as proxy:
                fields = {
                    "proxy": f"http://127.0.0.1:{proxy.port}",
                    "connect_timeout": 0.3,
                    "base_url": "https://a.invalid",
                }
                async with transport_to(1, "https", **fields) as transport:
                    error = await failure_of(transport.send(POST))
                assert type(error) is errors.NotSentError
                assert "could not be reached within 'connect_timeout'" in str(error)
                assert proxy.requests[0].startswith(b"CONNECT ")

        run(main())

    @pytest.mark.parametrize(
        "proxy",
        ["socks5://user:proxy-password@127.0.0.1:1", "http://user:proxy-password@ho st", "http://", "://"],
    )
    def test_unusable_proxy(self, proxy: str) -> None:
        async def main() -> None:
            async with transport_to(1, base_url="https://somewhere.invalid", proxy=proxy) as transport:
                error = await failure_of(transport.send(POST))
                assert type(error) is errors.NotSentError
                assert error.is_transient is False
                assert "proxy-password" not in f"{error} {error!r}"

        run(main())


def server_context(certificates: Path, *, mutual: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    if mutual:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates / "ca.pem")
    return context


class TestTls:
    """Each case also runs on the sync client, with the same result."""

    @pytest.fixture(params=[False, True], ids=["tls", "mutual"])
    def server(self, request: pytest.FixtureRequest, certificates: Path) -> Iterator[EmulatorServer]:
        with EmulatorServer(ssl_context=server_context(certificates, mutual=request.param)) as server:
            yield server

    def start(
        self, server: EmulatorServer, *, base_url: str | None = None, **fields: Any
    ) -> str | errors.CallError:
        known = server.settings
        credentials = ClientCredentials(known.client_id, known.client_secret)
        settings = Settings("my_conn", base_url or server.url, credentials, max_attempts=1, **fields)

        async def in_loop() -> str:
            async with AsyncBpmClient(settings, tokens=TokenCache()) as client:
                return (await client.call(operations.start("Instant"))).state

        def in_thread() -> str:
            with BpmClient(settings, tokens=TokenCache()) as client:
                return client.call(operations.start("Instant")).state

        error_of: list[str | errors.CallError] = []
        for call in (lambda: run(in_loop()), in_thread):
            try:
                error_of.append(call())
            except errors.CallError as error:
                error_of.append(error)
        mine, theirs = error_of
        assert type(mine) is type(theirs)
        return mine

    def files(self, certificates: Path, *names: str) -> dict[str, str]:
        all_of_them = {"verify": "ca.pem", "client_cert": "client.pem", "client_key": "client.key"}
        return {name: str(certificates / all_of_them[name]) for name in names or all_of_them}

    def test_with_the_right_files(self, server: EmulatorServer, certificates: Path) -> None:
        assert self.start(server, **self.files(certificates)) == "Completed OK"

    def test_with_a_ca_that_the_environment_names(
        self, server: EmulatorServer, certificates: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates / "ca.pem"))
        files = self.files(certificates, "client_cert", "client_key")
        assert self.start(server, **files) == "Completed OK"

    def test_with_an_unknown_ca(self, server: EmulatorServer) -> None:
        error = self.start(server)
        assert isinstance(error, errors.TlsError)
        assert error.was_processed is False
        assert "CERTIFICATE_VERIFY_FAILED" in str(error)
        assert not server.control.instances()

    @pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
    def test_without_verification(self, server: EmulatorServer, certificates: Path) -> None:
        files = self.files(certificates, "client_cert", "client_key")
        assert self.start(server, verify=False, **files) == "Completed OK"

    def test_with_a_host_name_that_is_not_in_the_certificate(
        self, server: EmulatorServer, certificates: Path
    ) -> None:
        url = f"https://localhost:{server.port}"
        error = self.start(server, base_url=url, **self.files(certificates))
        assert isinstance(error, errors.TlsError)

    def test_tls_to_a_plain_server(self, emulator_server: EmulatorServer) -> None:
        url = emulator_server.url.replace("http://", "https://")
        assert isinstance(self.start(emulator_server, base_url=url), errors.TlsError)

    def test_plain_http_to_a_tls_server(self, server: EmulatorServer) -> None:
        error = self.start(server, base_url=server.url.replace("https://", "http://"))
        assert isinstance(error, errors.CallError)
        assert not server.control.instances()

    def test_with_a_missing_ca_bundle(self, server: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CURL_CA_BUNDLE", "/no/such/bundle.pem")
        error = self.start(server)
        assert isinstance(error, errors.NotSentError)
        assert error.is_transient is False

    def test_concurrent_requests_read_the_files_once(
        self, certificates: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read: list[int] = []

        def context(settings: Settings) -> ssl.SSLContext:
            read.append(threading.get_ident())
            return original(settings)

        original = _tls.create_context
        monkeypatch.setattr(_tls, "context", context)

        async def main() -> None:
            async with answering(answer(b"{}")).running(server_context(certificates)) as server:
                files = {"verify": str(certificates / "ca.pem")}
                async with transport_to(server.port, "https", **files) as transport:
                    answers = await asyncio.gather(*(transport.send(GET) for _ in range(50)))
                    assert {each.status for each in answers} == {200}

        run(main())
        assert len(read) == 1
        assert read[0] != threading.get_ident()

    def test_unusable_file(self, tmp_path: Path) -> None:
        wrong = tmp_path / "wrong.pem"
        wrong.write_text("no certificate")

        async def main() -> None:
            for scheme in ("http", "https"):
                async with transport_to(1, scheme, client_cert=str(wrong)) as transport:
                    with pytest.raises(errors.SettingsError, match="'client_cert' names"):
                        await transport.send(GET)

        run(main())


class TestClosing:
    def test_closing_twice_and_before_first_use(self) -> None:
        async def main() -> None:
            async with answering(answer(b"{}")).running() as server:
                transport = AsyncTransport(settings_for(server.port))
                await transport.close()
                await transport.send(GET)
                await transport.close()
                await transport.close()
                await server.closed.wait()
                assert (await transport.send(GET)).status == 200
                await transport.close()
                assert server.connections == 2

        run(main())

    def test_closing_interrupts_requests_under_way(self) -> None:
        async def main() -> None:
            async with silent().running() as server:
                transport = AsyncTransport(settings_for(server.port))
                call = asyncio.create_task(failure_of(transport.send(POST)))
                await server.asked.wait()
                await transport.close()
                assert type(await call) is errors.InterruptedCallError

        run(main())

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_cancelled_call_leaves_nothing_behind(self, scheme: str, certificates: Path) -> None:
        async def main() -> None:
            context = server_context(certificates) if scheme == "https" else None
            files = {"verify": str(certificates / "ca.pem")}
            async with (
                silent().running(context) as server,
                transport_to(server.port, scheme, **files) as transport,
            ):
                call = asyncio.create_task(transport.send(POST))
                await server.asked.wait()
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                await server.closed.wait()  # the server notices the end of the connection

        run(main())

    def test_cancellation_aborts_connecting(self) -> None:
        async def main() -> None:
            async def play(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
                await reader.read(1)
                greeted.set()
                await reader.read()

            greeted = asyncio.Event()
            server = Server(play)
            async with server.running(), transport_to(server.port, "https") as transport:
                call = asyncio.create_task(transport.send(POST))
                await greeted.wait()
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                await server.closed.wait()

        run(main())


def test_answer_timeout_does_not_cut_the_next_call_on_the_connection() -> None:
    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for wait in (0.0, 0.25, 0.25, 0.25):
                await server.request(reader)
                await asyncio.sleep(wait)
                writer.write(answer(b"{}"))
                await writer.drain()

        server = Server(play)
        async with server.running(), transport_to(server.port, answer_timeout=0.4) as transport:
            for _ in range(4):
                assert (await transport.send(GET)).status == 200
            assert server.connections == 1

    run(main())


def test_each_answer_has_its_own_timeout() -> None:
    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while b"/x" in await server.request(reader):
                writer.write(answer(b"{}"))
            await reader.read()

        async def seconds_until_it_is_cut() -> float:
            begun = loop.time()
            error = await failure_of(transport.send(changed(GET, target="/silence")))
            assert "the answer was not complete within 0.4 s" in str(error)
            return loop.time() - begun

        loop = asyncio.get_running_loop()
        server = Server(play)
        async with server.running(), transport_to(server.port, answer_timeout=0.4) as transport:
            for _ in range(2):
                await transport.send(GET)
                await asyncio.sleep(0.2)
                earlier = asyncio.create_task(seconds_until_it_is_cut())
                await asyncio.sleep(0.1)
                later = asyncio.create_task(seconds_until_it_is_cut())
                assert await earlier >= 0.4
                assert await later >= 0.4
                await transport.close()  # its timer starts again on the next use

    run(main())


def test_answer_timeout_works_in_a_second_loop() -> None:
    async def given_up() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(transport.send(GET), 0.1)
        await transport.close()

    async def cut() -> None:
        assert "the answer was not complete within 0.3 s" in str(await failure_of(transport.send(GET)))
        await transport.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:  # it accepts connections and never answers
        port = listener.getsockname()[1]
        transport = AsyncTransport(settings_for(port, answer_timeout=0.3, read_timeout=3))
        run(given_up())
        run(cut())
