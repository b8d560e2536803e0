"""The emulator in a thread and on the command line: starting, stopping and settings."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
import requests

from airflow_provider_astrobpm.emulator import EmulatorServer
from airflow_provider_astrobpm.emulator.__main__ import main
from airflow_provider_astrobpm.emulator.emulator_state import CLIENT_ID, CLIENT_SECRET, EmulatorSettings
from airflow_provider_astrobpm.emulator.process_scripts import parse_script
from airflow_provider_astrobpm.emulator.switches import Switches

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "/baas/auth/v1.0/oauth2/token"
INSTANCES = "/u-route/baas/bp/v2.0/runtime/instances"


def login(url: str, client_id: str = CLIENT_ID, secret: str = CLIENT_SECRET) -> requests.Response:
    form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
    return requests.post(url + TOKEN, data=form, timeout=10)


def test_stopping_leaves_no_thread_and_no_socket() -> None:
    before = threading.enumerate()
    with EmulatorServer() as server:
        assert login(server.url).status_code == 200
        assert len(threading.enumerate()) == len(before) + 1
    assert threading.enumerate() == before
    with pytest.raises(requests.ConnectionError):
        login(server.url)
    server.stop()


def test_stopping_does_not_wait_for_a_hanging_request() -> None:
    with EmulatorServer() as server:
        server.control.fault("token", "delay", seconds=60)
        client = socket.create_connection(("127.0.0.1", server.port))
        client.sendall(f"POST {TOKEN} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
        deadline = time.monotonic() + 10
        while not server.control.counts()["token"]:
            assert time.monotonic() < deadline
    with client:
        assert client.recv(1) == b""


def test_two_emulators_share_nothing() -> None:
    with EmulatorServer() as one, EmulatorServer() as other:
        assert one.port != other.port
        one.control.start("Instant")
        assert other.control.instances() == []


def test_unreachable_refuses_connections_and_keeps_the_state() -> None:
    with EmulatorServer() as server:
        instance_id = server.control.start("PublishApproval")["id"]
        port = server.port
        with server.unreachable(), pytest.raises(requests.ConnectionError, match="refused"):
            login(server.url)
        assert server.port == port
        assert server.control.instance(instance_id)["state"] == "Waiting for user interaction"


def test_starting_twice_or_on_a_used_port_fails() -> None:
    with EmulatorServer() as server:
        with pytest.raises(RuntimeError, match="is already running"):
            server.start()
        taken = EmulatorServer(port=server.port)
        with pytest.raises(OSError, match="address already in use"):
            taken.start()
    taken.start()
    taken.stop()


def test_settings_take_effect() -> None:
    settings = EmulatorSettings(
        processes=tuple(parse_script("processes: [{name: Mine}]", "test")),
        switches=Switches().changed(refusal_status=500),
        client_id="me",
        client_secret="my-own-secret",
        token_lifetime=7,
        base_path="/portal/x",
    )
    with EmulatorServer(settings) as server:
        assert server.url == f"http://127.0.0.1:{server.port}/portal/x"
        assert login(server.url).status_code == 400
        token = login(server.url, "me", "my-own-secret").json()
        assert token["expires_in"] == 7
        headers = {"access-token": token["access_token"]}
        answer = requests.post(server.url + INSTANCES, json={"name": "Instant"}, headers=headers, timeout=10)
        assert (answer.status_code, answer.json()["resCode"]) == (500, "405230020")
        answer = requests.post(server.url + INSTANCES, json={"name": "Mine"}, headers=headers, timeout=10)
        assert answer.json()["resCode"] == "0"
        assert requests.get(f"http://127.0.0.1:{server.port}{INSTANCES}", timeout=10).status_code == 404
        assert len(server.control.instances()) == 1
        assert json.loads(server.connection_json())["host"] == server.url


@pytest.mark.parametrize(
    "wrong",
    [
        {"token_lifetime": 0},
        {"base_path": "x"},
        {"base_path": "/x/"},
        {"client_id": ""},
        {"client_secret": ""},
    ],
)
def test_invalid_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EmulatorSettings(**wrong)  # type: ignore[arg-type]


def test_the_repr_of_the_settings_hides_the_secret() -> None:
    assert "emulator-only-secret" not in repr(EmulatorSettings())


def test_connection_json_is_an_airflow_connection() -> None:
    with EmulatorServer() as server:
        assert json.loads(server.connection_json()) == {
            "conn_type": "astro_zero",
            "host": "127.0.0.1",
            "port": server.port,
            "schema": "http",
            "login": "emulator-client",
            "password": "emulator-only-secret",
        }


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_the_api_is_served_over_tls(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subprocess.run([*command, *files, *subject], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with EmulatorServer(ssl_context=context) as server:
        assert server.url == f"https://127.0.0.1:{server.port}"
        assert json.loads(server.connection_json())["schema"] == "https"
        with pytest.raises(requests.exceptions.SSLError):
            login(server.url)
        answer = requests.get(f"{server.url}/nothing", verify=str(certificate), timeout=10)
        assert answer.status_code == 404
        assert server.control.counts()["other"] == 1


def test_the_command_line_behaves_like_a_report(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    points = {"get_by_id": "row", "plus": "no", "token_lifetime": 30, "long_key": "cut at 37"}
    listed = [{"name": name, "value": value} for name, value in points.items()]
    report.write_text(json.dumps({"signed_in": True, "points": listed}))
    options = ["--like", str(report), "--switch", "plus_is_blank=true"]
    command = [sys.executable, "-m", "airflow_provider_astrobpm.emulator", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        unspecified, unlike, address = (process.stdout.readline().strip() for _ in range(3))
        assert unspecified.startswith("Not in the report, so at the default: definition_variables, ")
        assert unlike == "Unlike the report: long_key is 'cut at 37'"
        url = address.removeprefix("Astro Zero emulator: ")
        switches = requests.get(f"{url}/_emulator/switches", timeout=10).json()
        assert (switches["get_by_id"], switches["plus_is_blank"]) == ("row", True)
        assert login(url).json()["expires_in"] == 30
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
    assert process.returncode == 0


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_the_command_line_serves_until_a_signal(ending: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "mine.yaml"
    script.write_text("processes: [{name: Mine}]")
    options = ["--processes", str(script), "--switch", "get_by_id=row", "--token-lifetime", "30"]
    options += ["--client-id", "it's me", "--client-secret", "a $ecret", "--allowed-host", "Mine.example"]
    command = [sys.executable, "-m", "airflow_provider_astrobpm.emulator", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first, page, control, last = (process.stdout.readline().strip() for _ in range(4))
        url = first.removeprefix("Astro Zero emulator: ")
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        assert page == f"Web page:            {url}/"
        assert control == f"Control API:         {url}/_emulator"
        word, assignment = shlex.split(last)
        name, _, value = assignment.partition("=")
        assert (word, name) == ("export", "AIRFLOW_CONN_ASTRO_ZERO_DEFAULT")
        connection = json.loads(value)
        assert (connection["login"], connection["password"]) == ("it's me", "a $ecret")
        assert connection["extra"] == {"instance_url": f"{url}/instances/{{instance_id}}"}
        assert login(url, connection["login"], connection["password"]).json()["expires_in"] == 30
        assert requests.get(f"{url}/_emulator/switches", timeout=10).json()["get_by_id"] == "row"
        assert requests.get(f"{url}/_emulator/processes", timeout=10).json()[0]["name"] == "Mine"
        for name, status in (("mine.example", 200), ("yours.example", 403)):
            assert requests.get(f"{url}/", headers={"Host": name}, timeout=10).status_code == status
        process.send_signal(ending)
        output, errors = process.communicate(timeout=10)
    assert (process.returncode, output, errors) == (0, "", "")


def test_help_lists_the_switches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert (
        "bad_token = 401 | 401_html | 400_602 | 403_603 | 200_602 | 403 | 403_html | 500_602 (default: 401)"
        in text
    )
    assert "runs until it is interrupted" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--switch", "colour=red"], "unknown switch 'colour'"),
        (["--process", "/nowhere/x.yaml"], "unrecognized arguments: --process"),
        (["--processes", "/nowhere/x.yaml"], "No such file or directory"),
        (["--like", "/nowhere/x.json"], "/nowhere/x.json cannot be read: No such file or directory"),
        (["--token-lifetime", "0"], "token_lifetime must be at least 1"),
        (["--allowed-host", "emulator.example:8765"], "without a port, not 'emulator.example:8765'"),
        (["--base-path", "x"], "base_path must begin with a slash"),
    ],
)
def test_invalid_options_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_used_port_and_a_public_address_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with EmulatorServer() as server:
        assert main(["--port", str(server.port)]) == 1
        assert main(["--host", "0.0.0.0", "--port", str(server.port)]) == 1  # noqa: S104 - the warning is the point
    first, warning, last = capsys.readouterr().err.splitlines()
    assert first.startswith(f"Cannot listen on 127.0.0.1 port {server.port}: ")
    assert warning.startswith("Warning: 0.0.0.0 can be reached from other machines")
    assert last.startswith("Cannot listen on 0.0.0.0")
