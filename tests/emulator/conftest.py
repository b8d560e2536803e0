"""One emulator in a thread for the tests of this folder, reset for each, and an HTTP client independent of the provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.support.emulator_server import control, server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_astrobpm.emulator import EmulatorControl, EmulatorServer

__all__ = ["control", "server"]

TOKEN = "/baas/auth/v1.0/oauth2/token"
INSTANCES = "/u-route/baas/bp/v2.0/runtime/instances"
CREDENTIALS = {
    "grant_type": "client_credentials",
    "client_id": "emulator-client",
    "client_secret": "emulator-only-secret",
}


class Api:
    """A plain HTTP client for one emulator, with a token in its headers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False
        self.headers: dict[str, str] = {"Content-Type": "application/json"}

    def call(self, method: str, path: str, **arguments: Any) -> requests.Response:
        arguments.setdefault("headers", self.headers)
        return self.session.request(method, self.url + path, timeout=10, allow_redirects=False, **arguments)

    def login(self) -> str:
        answer = self.session.post(self.url + TOKEN, data=CREDENTIALS, timeout=10)
        token = str(answer.json()["access_token"])
        self.headers["access-token"] = token
        return token

    def start(self, name: str = "PublishApproval", **body: Any) -> dict[str, Any]:
        started: dict[str, Any] = self.ok("POST", INSTANCES, json={"name": name, **body})
        return started

    def query(self, state: str, **params: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.ok("GET", INSTANCES, params={"states": state, **params})
        return rows

    def act(self, instance_id: str, action: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.ok("PUT", f"{INSTANCES}/{instance_id}", json={"action": action})
        return answer

    def ok(self, method: str, path: str, **arguments: Any) -> Any:
        """Make a call, require success, and return the result."""
        answer = self.call(method, path, **arguments)
        envelope = answer.json()
        assert (answer.status_code, envelope["resCode"]) == (200, "0"), answer.text
        return envelope.get("result")

    def refused(self, method: str, path: str, **arguments: Any) -> tuple[int, str]:
        """Make a call, require a refusal, and return the HTTP status and the resCode."""
        answer = self.call(method, path, **arguments)
        envelope = answer.json()
        assert set(envelope) == {"resCode", "resMsg"}
        assert envelope["resMsg"]
        return answer.status_code, envelope["resCode"]


@pytest.fixture
def api(server: EmulatorServer, control: EmulatorControl) -> Iterator[Api]:
    client = Api(server.url)
    client.login()
    control.reset_counts()
    yield client
    client.session.close()
