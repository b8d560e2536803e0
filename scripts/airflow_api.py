"""Client for the REST API of a local Airflow that requires no login."""

from __future__ import annotations

import json
import urllib.request
from typing import Any
from urllib.error import HTTPError

_TIMEOUT = 30.0


class AirflowApiError(Exception):
    """Airflow refused a call; the message contains the call and the response."""


class AirflowApi:
    """Call the REST API directly, without a proxy.

    :param url: Airflow's address.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._token = ""
        self._direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Make one call.

        :param path: the path with its query, such as ``/api/v2/dags``.
        :param body: the body, sent as JSON.
        :return: the decoded JSON of the response; None if it has no body.
        :raises AirflowApiError: if the response is an error.
        :raises OSError: if there is no response.
        """
        request = urllib.request.Request(  # noqa: S310 - the address of an Airflow on this machine
            f"{self.url}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
            method=method,
        )
        try:
            with self._direct.open(request, timeout=_TIMEOUT) as answer:
                return json.loads(answer.read() or b"null")
        except HTTPError as error:
            with error:
                text = error.read().decode(errors="replace")
            raise AirflowApiError(f"{method} {path}: HTTP {error.code} {text}") from None

    def is_healthy(self) -> bool:
        """Sign in, and return whether every component is healthy; False if Airflow does not answer yet."""
        try:
            self._token = self.call("GET", "/auth/token")["access_token"]
            states = [part["status"] for part in self.call("GET", "/api/v2/monitor/health").values()]
        except (OSError, AirflowApiError):
            return False
        return set(states) == {"healthy"}

    def dag_ids(self) -> list[str]:
        """Return the ids of the DAGs that Airflow has parsed.

        :raises AirflowApiError: if a file could not be parsed; the message says why.
        """
        broken = self.call("GET", "/api/v2/importErrors")["import_errors"]
        if broken:
            raise AirflowApiError("\n".join(f"{each['filename']}: {each['stack_trace']}" for each in broken))
        return [dag["dag_id"] for dag in self.call("GET", "/api/v2/dags?limit=100")["dags"]]

    def unpause(self, dag_id: str) -> None:
        """Unpause a DAG and parse its file again. Airflow starts the watchers of a DAG when it parses the file."""
        dag = self.call("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": False})
        self.call("PUT", f"/api/v2/parseDagFile/{dag['file_token']}")
