"""TLS, proxies, tokens and threads, on real sockets."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.emulator_state import EmulatorSettings
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook

HookMaker = Callable[..., AstroZeroHook]


def test_expired_token_is_renewed_once(
    make_hook: HookMaker, emulator: EmulatorControl, emulator_server: EmulatorServer
) -> None:
    hook = make_hook()
    hook.start_instance("SupplierOnboarding")
    emulator.advance(
        emulator_server.settings.token_lifetime + 1
    )  # advances the clock of the emulator, not of the cache
    hook.start_instance("SupplierOnboarding")
    counts = emulator.counts()
    assert (counts["token"], counts["start"], len(emulator.instances())) == (2, 3, 2)


@pytest.mark.parametrize("report", ["401", "401_html", "400_602", "403_603", "200_602"])
def test_revoked_token_is_renewed_once_for_each_form_of_refusal(
    report: str, make_hook: HookMaker, emulator: EmulatorControl
) -> None:
    emulator.switch(bad_token=report)
    hook = make_hook()
    hook.query_instances(["Running"])
    emulator.revoke_tokens()
    hook.query_instances(["Running"])
    assert emulator.counts()["token"] == 2


def test_200_threads_share_one_token_request(make_hook: HookMaker, emulator: EmulatorControl) -> None:
    hooks = [make_hook() for _ in range(200)]
    barrier = threading.Barrier(len(hooks))

    def ask(hook: AstroZeroHook) -> None:
        barrier.wait(30)
        hook.query_instances(["Running"])

    with ThreadPoolExecutor(len(hooks)) as pool:
        list(pool.map(ask, hooks))
    assert (emulator.counts()["token"], emulator.counts()["query"]) == (1, 200)


def test_threads_can_share_a_hook(make_hook: HookMaker, emulator: EmulatorControl) -> None:
    hook = make_hook()
    with ThreadPoolExecutor(50) as pool:
        list(pool.map(lambda _: hook.query_instances(["Running"]), range(200)))
    assert emulator.counts()["token"] == 1


def test_base_path_precedes_every_path(make_hook: HookMaker) -> None:
    with EmulatorServer(EmulatorSettings(base_path="/portal/x")) as server:
        hook = make_hook(host=server.url, port=None, schema=None)
        assert hook.start_instance("Instant").state == "Completed OK"


def test_cookies_and_netrc_are_ignored(
    make_hook: HookMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    seen: list[dict[str, str]] = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(dict(self.headers))
            body = b'{"resCode": "0", "result": []}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Set-Cookie", "access-token=other; Path=/")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Stay quiet."""

    with serving(Server) as port:
        hook = make_hook(
            {"access_token": "ready-token"}, host=f"http://127.0.0.1:{port}", port=None, schema=None
        )
        hook.query_instances(["Running", "Paused"])
    assert len(seen) == 2
    for headers in seen:
        assert headers["access-token"] == "ready-token"
        assert not {"Cookie", "Authorization"} & set(headers)


def test_proxy_of_the_settings_overrides_the_environment(
    make_hook: HookMaker, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    asked: list[str] = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = b'{"resCode": "0", "result": []}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Stay quiet."""

    with serving(Proxy) as port:
        hook = make_hook(
            {"access_token": "ready-token", "proxy": f"http://127.0.0.1:{port}", "allow_http": True},
            host="http://somewhere.invalid",
            port=None,
            schema=None,
        )
        hook.query_instances(["Running"])
    assert asked[0].startswith("http://somewhere.invalid/u-route/")


def test_unreachable_proxy(make_hook: HookMaker, free_port: int) -> None:
    proxy = f"http://user:proxy-password@127.0.0.1:{free_port}"
    hook = make_hook({"proxy": proxy}, host="https://somewhere.invalid", port=None, schema=None)
    with pytest.raises(errors.NotSentError) as caught:
        hook.query_instances(["Running"])
    assert "proxy-password" not in str(caught.value)


class TestTls:
    @pytest.fixture(params=[False, True], ids=["tls", "mutual"])
    def server(self, request: pytest.FixtureRequest, certificates: Path) -> Iterator[EmulatorServer]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
        if request.param:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(certificates / "ca.pem")
        with EmulatorServer(ssl_context=context) as server:
            yield server

    def connect(self, make_hook: HookMaker, server: EmulatorServer, **extra: Any) -> AstroZeroHook:
        return make_hook(extra, host=server.url, port=None, schema=None)

    def test_with_the_right_files(
        self, make_hook: HookMaker, server: EmulatorServer, certificates: Path
    ) -> None:
        files = {"verify": "ca.pem", "client_cert": "client.pem", "client_key": "client.key"}
        extra = {name: str(certificates / file) for name, file in files.items()}
        assert self.connect(make_hook, server, **extra).start_instance("Instant").state == "Completed OK"

    def test_with_an_unknown_ca(self, make_hook: HookMaker, server: EmulatorServer) -> None:
        with pytest.raises(errors.TlsError, match=r"CERTIFICATE_VERIFY_FAILED.*extras 'verify'") as caught:
            self.connect(make_hook, server).start_instance("Instant")
        assert caught.value.was_processed is False
        assert not server.control.instances()

    @pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
    def test_without_verification(
        self, make_hook: HookMaker, server: EmulatorServer, certificates: Path
    ) -> None:
        extra = {
            "client_cert": str(certificates / "client.pem"),
            "client_key": str(certificates / "client.key"),
        }
        hook = self.connect(make_hook, server, verify=False, **extra)
        assert hook.start_instance("Instant").state == "Completed OK"

    def test_tls_to_a_plain_server(self, make_hook: HookMaker, emulator_server: EmulatorServer) -> None:
        hook = make_hook(host=emulator_server.url.replace("http://", "https://"), port=None, schema=None)
        with pytest.raises(errors.TlsError):
            hook.query_instances(["Running"])


class serving:  # noqa: N801 - used as a function
    """Serve a handler on a free port in a thread."""

    def __init__(self, handler: type[http.server.BaseHTTPRequestHandler]) -> None:
        self.server = http.server.HTTPServer(("127.0.0.1", 0), handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))

    def __enter__(self) -> int:
        self.thread.start()
        return self.server.server_port

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
