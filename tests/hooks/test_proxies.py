"""Requests that never use a proxy, from the settings or from the environment: those to this machine, and plain http."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from airflow_provider_astrobpm.client import errors, operations
from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
from airflow_provider_astrobpm.client.settings import (
    ClientCredentials,
    Settings,
    StaticToken,
    is_loopback,
    secrets_of_proxy,
)
from airflow_provider_astrobpm.client.sync_client import BpmClient
from airflow_provider_astrobpm.client.tokens import TokenCache
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
LIST = operations.query("Running")


class Proxy:
    """Accepts connections, records the requests, and answers each with an empty list."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        body = b'{"resCode": "0", "result": []}'
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.settimeout(10)
                self.heard.append(connection.recv(65536))
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                connection.sendall(head.encode() + body)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(15)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    running = Proxy()
    yield running
    running.close()


def call_in_thread(settings: Settings) -> Any:
    with BpmClient(settings, tokens=TokenCache(), sleep=lambda _seconds: None) as client:
        return client.call(LIST)


def call_in_loop(settings: Settings) -> Any:
    async def call() -> Any:
        async with AsyncBpmClient(settings, tokens=TokenCache()) as client:
            return await client.call(LIST)

    return asyncio.run(asyncio.wait_for(call(), 30))


Call = Callable[[Settings], Any]


@pytest.fixture(params=[call_in_thread, call_in_loop], ids=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Call:
    found: Call = request.param
    return found


@pytest.fixture(params=["HTTP_PROXY", "ALL_PROXY", "all_proxy", "extra"])
def named(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, proxy: Proxy) -> dict[str, Any]:
    """Set the proxy in the environment, or return it as a setting."""
    url = f"http://user:proxy-password@127.0.0.1:{proxy.port}"
    if request.param == "extra":
        return {"proxy": url}
    for name in ("HTTPS_PROXY", request.param):
        monkeypatch.setenv(name, url)
    return {}


@pytest.mark.usefixtures("emulator")  # without what an earlier test has left, such as faults
@pytest.mark.parametrize("allow_http", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_reached_without_a_proxy(
    host: str,
    allow_http: bool,
    call: Call,
    named: dict[str, Any],
    proxy: Proxy,
    emulator_server: EmulatorServer,
) -> None:
    connection = json.loads(emulator_server.connection_json())
    credentials = ClientCredentials(connection["login"], connection["password"])
    url = emulator_server.url.replace("127.0.0.1", host)
    assert call(Settings("my_conn", url, credentials, allow_http=allow_http, **named)) == []
    assert not proxy.heard


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_this_machine_is_reached_by_https_without_a_proxy(
    host: str, call: Call, named: dict[str, Any], proxy: Proxy, free_port: int
) -> None:
    settings = Settings("my_conn", f"https://{host}:{free_port}", StaticToken("t"), max_attempts=1, **named)
    with pytest.raises(errors.NotSentError):
        call(settings)
    assert not proxy.heard


def test_plain_http_uses_a_proxy_only_with_allow_http(
    call: Call, named: dict[str, Any], proxy: Proxy
) -> None:
    url = "http://somewhere.invalid"
    with pytest.raises(errors.NotSentError, match=r"gaierror|NameResolutionError"):
        call(Settings("my_conn", url, StaticToken("t"), max_attempts=1, **named))
    assert not proxy.heard
    assert call(Settings("my_conn", url, StaticToken("t"), max_attempts=1, allow_http=True, **named)) == []
    assert proxy.heard[0].startswith(b"GET http://somewhere.invalid/")


def test_https_uses_the_proxy(call: Call, named: dict[str, Any], proxy: Proxy) -> None:
    with pytest.raises(errors.NotSentError):
        call(Settings("my_conn", "https://somewhere.invalid", StaticToken("t"), max_attempts=1, **named))
    assert proxy.heard[0].startswith(b"CONNECT somewhere.invalid:443 ")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),  # noqa: S104 - nothing listens there
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("", False),
    ],
)
def test_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://proxy.example:3128", ()),
        ("http://user@proxy.example", ()),
        ("http://user:pa%2Fss@proxy.example", ("pa%2Fss", "pa/ss", "dXNlcjpwYS9zcw==")),
        ("user:pw@proxy.example", ("pw", "pw", "dXNlcjpwdw==")),
        ("http://[", ()),
    ],
)
def test_secrets_of_proxy(url: str, expected: tuple[str, ...]) -> None:
    assert secrets_of_proxy(url) == expected
