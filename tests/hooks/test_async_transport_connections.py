"""The asynchronous transport on real sockets: proxies, TLS and idle connections."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as changed

from airflow_provider_astrobpm.client import _route, errors, operations
from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
from airflow_provider_astrobpm.client.async_transport import AsyncTransport
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings
from airflow_provider_astrobpm.client.sync_client import BpmClient
from airflow_provider_astrobpm.client.tokens import TokenCache
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
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
                for port in (1, near.port):
                    base_url = f"http://somewhere.invalid:{port}"
                    async with transport_to(1, allow_http=True, base_url=base_url) as transport:
                        for _ in range(2):
                            await transport.send(GET)
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

        original = _route.create_context
        monkeypatch.setattr(_route, "create_context", context)

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
