"""The asynchronous transport on real sockets: requests, errors, answers and timeouts."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as changed

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.client.async_transport import MAX_CACHED_URLS, AsyncTransport, _prepared
from airflow_provider_astrobpm.client.protocol import Request, Response
from tests.support.raw_server import (
    GET,
    POST,
    SECRET,
    Server,
    answer,
    answering,
    failure_of,
    head,
    run,
    settings_for,
    silent,
    transport_to,
)

pytestmark = pytest.mark.usefixtures("no_proxies")


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
