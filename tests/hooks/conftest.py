"""Hooks on the emulator, with the extras that a test needs and without real waiting."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook

HookMaker = Callable[..., AstroZeroHook]


@pytest.fixture
def make_hook(
    emulator: EmulatorControl,
    emulator_server: EmulatorServer,
    emulator_time: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[HookMaker]:
    """Create a hook on connection ``my_conn``. Instead of sleeping, it advances the emulator's clock."""
    hooks: list[AstroZeroHook] = []

    def make(extra: dict[str, Any] | None = None, **fields: Any) -> AstroZeroHook:
        connection = {**json.loads(emulator_server.connection_json()), **fields}
        connection["extra"] = json.dumps({"max_attempts": 2, "max_wait": 1, **(extra or {})})
        monkeypatch.setenv("AIRFLOW_CONN_MY_CONN", json.dumps(connection))
        hook = AstroZeroHook("my_conn")
        emulator_time(hook.client, emulator)
        hooks.append(hook)
        return hook

    yield make
    for hook in hooks:
        hook.client.close()


@pytest.fixture
def hook(make_hook: HookMaker) -> AstroZeroHook:
    return make_hook()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA with a server certificate and a client certificate."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
            "-subj", "/CN=test CA", "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    for name in ("server", "client"):
        (folder / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1,DNS:somewhere.invalid\n")
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
                "-subj", f"/CN={name}")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-out", f"{name}.pem", "-days", "2", "-extfile", f"{name}.ext")  # fmt: skip
    return folder


@pytest.fixture
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
