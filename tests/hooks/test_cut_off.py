"""How far a failed start got: servers that fail at every point, on raw sockets.

A start may be resent only if the failure provably came before the request. Each server counts the starts that reached it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_astrobpm.client import errors, operations
from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.settings import Settings
from airflow_provider_astrobpm.client.sync_client import BpmClient
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
from airflow_provider_astrobpm.starting import instance_starter

HookMaker = Callable[..., AstroZeroHook]
Play = Callable[[socket.socket], None]
Start = Callable[[Settings], BpmInstance]


def start_in_thread(settings: Settings) -> BpmInstance:
    with BpmClient(settings, sleep=lambda _seconds: None) as client:
        return client.run(instance_starter.start_once(operations.start("A"), None))


def start_in_loop(settings: Settings) -> BpmInstance:
    async def sleep(_seconds: float) -> None:
        """Skip a sleep."""

    async def start() -> BpmInstance:
        async with AsyncBpmClient(settings, sleep=sleep) as client:
            return await client.run(instance_starter.start_once(operations.start("A"), None))

    return asyncio.run(asyncio.wait_for(start(), 60))


@pytest.fixture(params=[start_in_thread, start_in_loop], ids=["sync", "async"])
def start(request: pytest.FixtureRequest) -> Start:
    """Start an instance of BPM ``A`` with either client."""
    starter: Start = request.param
    return starter


class Server:
    """Accepts connections one after another, and runs a script on each."""

    def __init__(self, play: Play) -> None:
        self._play = play
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection, suppress(OSError):
                connection.settimeout(10)
                self._play(connection)

    @contextmanager
    def running(self) -> Iterator[Server]:
        self._thread.start()
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._thread.join(15)
            assert not self._thread.is_alive()


def connect(
    make_hook: HookMaker, port: int, scheme: str = "http", host: str = "127.0.0.1", **extra: Any
) -> AstroZeroHook:
    """Create a hook that already has a token, so that its first request is the start."""
    return make_hook(
        {"access_token": "ready-token", "max_attempts": 4, "connect_timeout": 1, "read_timeout": 2, **extra},
        host=f"{scheme}://{host}:{port}",
        port=None,
        schema=None,
    )


def read_request(connection: Any) -> None:
    received = b""
    while b'"name"' not in received:
        chunk = connection.recv(65536)
        if not chunk:
            raise OSError
        received += chunk


def answering(raw: bytes) -> Play:
    def play(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(raw)

    return play


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def read_and_reset(connection: socket.socket) -> None:
    read_request(connection)
    reset(connection)


def head(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


DEEP = b"[" * 200_000

AFTER_THE_REQUEST: dict[str, Play] = {
    "closed without a word": read_request,
    "reset": read_and_reset,
    "no HTTP": answering(b"hello\r\n"),
    "half a status line": answering(b"HTTP/1.1 2"),
    "two lengths": answering(head("HTTP/1.1 200 OK", "Content-Length: 5", "Content-Length: 7") + b"{}"),
    "too short": answering(head("HTTP/1.1 200 OK", "Content-Length: 50") + b'{"resCode": "0"'),
    "a redirect to no address": answering(
        head("HTTP/1.1 302 F", "Location: http://[::1/x", "Content-Length: 0")
    ),
    "a redirect in another alphabet": answering(
        head("HTTP/1.1 302 F", "Location: http://\xff\xfe/\x80", "Content-Length: 0")
    ),
    "deep JSON": answering(head("HTTP/1.1 200 OK", f"Content-Length: {len(DEEP)}") + DEEP),
    "broken gzip": answering(
        head("HTTP/1.1 200 OK", "Content-Encoding: gzip", "Content-Length: 4") + b"abcd"
    ),
}


@pytest.mark.parametrize("play", AFTER_THE_REQUEST.values(), ids=AFTER_THE_REQUEST)
def test_failure_after_the_request_is_ambiguous_and_not_resent(
    play: Play, make_hook: HookMaker, start: Start
) -> None:
    with Server(play).running() as server:
        with pytest.raises(errors.AmbiguousStartError):
            start(connect(make_hook, server.port).settings)
        assert server.connections == 1


def test_unrelated_exception_being_handled_is_ignored(
    make_hook: HookMaker, free_port: int, emulator: EmulatorControl
) -> None:
    hook = make_hook()
    emulator.fault("start", "drop_after", times=5)
    try:
        requests.get(f"http://127.0.0.1:{free_port}/", timeout=5)
    except requests.ConnectionError:
        with pytest.raises(errors.AmbiguousStartError):
            hook.start_instance("SupplierOnboarding")
    assert len(emulator.instances()) == 1


def test_5xx_with_the_code_of_a_bad_token_is_not_resent(
    make_hook: HookMaker, emulator: EmulatorControl
) -> None:
    emulator.fault("start", "status", status=500, res_code="405230602", work_done=True)
    with pytest.raises(errors.AmbiguousStartError):
        make_hook().start_instance("SupplierOnboarding")
    assert len(emulator.instances()) == 1


def test_plain_text_after_a_tls_request_is_ambiguous(
    make_hook: HookMaker, certificates: Path, start: Start
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")

    def play(connection: socket.socket) -> None:
        raw = connection.dup()
        with context.wrap_socket(connection, server_side=True) as secure, raw:
            read_request(secure)
            raw.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    with Server(play).running() as server:
        hook = connect(make_hook, server.port, "https", verify=str(certificates / "ca.pem"))
        with pytest.raises(errors.AmbiguousStartError):
            start(hook.settings)
        assert server.connections == 1


def stall(connection: socket.socket) -> None:
    while connection.recv(65536):
        continue


def greet_and_reset(connection: socket.socket) -> None:
    connection.recv(65536)
    reset(connection)


@pytest.mark.parametrize(
    ("play", "kind"),
    [
        (stall, errors.NotSentError),
        (greet_and_reset, errors.NotSentError),
        (lambda connection: connection.sendall(b"HTTP/1.1 400 no\r\n\r\n"), errors.TlsError),
    ],
    ids=["stalled", "reset", "not TLS"],
)
def test_failed_handshake_is_not_ambiguous(
    play: Play, kind: type[errors.CallError], make_hook: HookMaker, start: Start
) -> None:
    with Server(play).running() as server:
        with pytest.raises(kind) as caught:
            start(connect(make_hook, server.port, "https").settings)
        assert caught.value.was_processed is False
        assert server.connections == (4 if kind is errors.NotSentError else 1)


def test_refusing_proxy_is_not_ambiguous(make_hook: HookMaker, start: Start) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(head("HTTP/1.1 407 Proxy Authentication Required", "Content-Length: 0"))

    with Server(refuse).running() as server:
        proxy = f"http://127.0.0.1:{server.port}"
        hook = connect(make_hook, 1, "https", "somewhere.invalid", proxy=proxy, max_attempts=1)
        with pytest.raises(errors.NotSentError, match="407"):
            start(hook.settings)


def test_token_request_has_its_own_attempts_once(make_hook: HookMaker, emulator: EmulatorControl) -> None:
    emulator.fault("token", "status", status=503, times=100)
    with pytest.raises(errors.ServerError, match="Could not get a token"):
        make_hook({"max_attempts": 3}).query_instances(["Running"])
    assert emulator.counts()["token"] == 3


@pytest.mark.parametrize(("status", "requests_made"), [(503, 3), (401, 2)])
def test_search_without_a_token_does_not_request_it_again(
    status: int, requests_made: int, make_hook: HookMaker, emulator: EmulatorControl
) -> None:
    emulator.fault("token", "status", status=status, times=100)
    with pytest.raises(errors.CallError, match="Could not get a token"):
        make_hook({"max_attempts": 3}).get_instance("002N1")
    assert emulator.counts()["token"] == requests_made


def answering_early(served: list[int]) -> Play:
    """Answer requests in turn, the first one with an interim answer before the real one."""

    def play(connection: socket.socket) -> None:
        while True:
            read_request(connection)
            served.append(len(served) + 1)
            body = (
                f'{{"resCode": "0", "result": {{"id": "ID-{served[-1]}", "name": "A", "state": "Running"}}}}'
            )
            if served == [1]:
                connection.sendall(head("HTTP/1.1 103 Early Hints"))
            connection.sendall(head("HTTP/1.1 200 OK", f"Content-Length: {len(body)}") + body.encode())

    return play


def test_interim_answer_does_not_shift_later_answers(make_hook: HookMaker) -> None:
    with Server(answering_early([])).running() as server:
        hook = connect(make_hook, server.port)
        with pytest.raises(errors.AmbiguousStartError, match="HTTP 103"):
            hook.start_instance("A")
        assert hook.start_instance("A").id == "ID-2"
        assert hook.start_instance("A").id == "ID-3"
        hook.client.close()


def test_interim_answer_is_skipped_by_the_async_client(make_hook: HookMaker) -> None:
    async def start_three(settings: Settings) -> list[str]:
        async with AsyncBpmClient(settings) as client:
            return [(await client.call(operations.start("A"))).id for _ in range(3)]

    with Server(answering_early([])).running() as server:
        settings = connect(make_hook, server.port).settings
        started = asyncio.run(asyncio.wait_for(start_three(settings), 60))
        assert (started, server.connections) == (["ID-1", "ID-2", "ID-3"], 1)


@pytest.mark.parametrize(
    "environment",
    [
        {"REQUESTS_CA_BUNDLE": "/no/such/bundle.pem"},
        {"HTTPS_PROXY": "socks5://127.0.0.1:1"},
        {"HTTPS_PROXY": "http://ho st"},
    ],
)
def test_failure_before_a_connection_is_not_ambiguous(
    environment: dict[str, str], make_hook: HookMaker, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    hook = connect(make_hook, 1, "https", "somewhere.invalid")
    with pytest.raises(errors.NotSentError) as caught:
        start(hook.settings)
    assert "my_conn" in str(caught.value)
    assert caught.value.is_transient is False


def test_encrypted_key_is_refused_without_a_prompt(make_hook: HookMaker, certificates: Path) -> None:
    encrypted = certificates / "encrypted.key"
    subprocess.run(
        [
            "openssl",
            "rsa",
            "-aes256",
            "-passout",
            "pass:password",
            "-in",
            "client.key",
            "-out",
            encrypted.name,
        ],
        cwd=certificates,
        check=True,
        capture_output=True,
        timeout=60,
    )
    with pytest.raises(errors.SettingsError, match="the key is encrypted"):
        connect(
            make_hook, 1, "https", client_cert=str(certificates / "client.pem"), client_key=str(encrypted)
        )


TRICKLES = {
    "header": (b"HTTP/1.1 200 OK\r\n", b"X-Slow: " + b"x" * 10_000),
    "body": (head("HTTP/1.1 200 OK", "Content-Length: 10000"), b" " * 10_000),
    "packed body": (
        head("HTTP/1.1 200 OK", "Content-Encoding: gzip", "Content-Length: 10000"),
        b"\x1f\x8b" * 5_000,
    ),
}


@pytest.mark.parametrize(("at_once", "slowly"), TRICKLES.values(), ids=TRICKLES)
def test_trickling_answer_times_out(
    at_once: bytes, slowly: bytes, make_hook: HookMaker, start: Start
) -> None:
    over = threading.Event()

    def trickle(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(at_once)
        for position in range(len(slowly)):
            connection.sendall(slowly[position : position + 1])
            if over.wait(0.02):
                return

    with Server(trickle).running() as server:
        settings = replace(connect(make_hook, server.port).settings, answer_timeout=0.5)
        try:
            with pytest.raises(errors.AmbiguousStartError, match=r"within 0\.5 s|cannot be decompressed"):
                start(settings)
        finally:
            over.set()
