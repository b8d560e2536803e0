"""Steers a running emulator from a test or a script: one method for each command of its control API.

Needs nothing but the standard library.
"""

from __future__ import annotations

import json
from datetime import timedelta
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TIMEOUT_SECONDS = 10.0


class EmulatorError(Exception):
    """The emulator refused a command, or did not answer it."""


class EmulatorControl:
    """The control API of one emulator.

    Every method raises :class:`EmulatorError` if the emulator refuses, with what it said.

    :param url: where the emulator listens, ``http://host:port``; a path is left aside.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"the control URL must be http://host:port, not {url!r}")
        self.url = f"http://{parts.netloc}"
        self._host, self._port = parts.hostname, parts.port

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    # What it did.

    def counts(self) -> dict[str, int]:
        """Return how many requests came in, by kind; 0 for a kind that never came."""
        return self._object("GET", "/counts")

    def reset_counts(self) -> None:
        """Start counting and logging requests anew."""
        self._call("DELETE", "/counts")

    def requests(self) -> list[dict[str, Any]]:
        """Return the last requests, oldest first: number, at, kind, method, path, query, detail, status."""
        return self._list("GET", "/requests")

    def reset(self) -> None:
        """Put everything back to how the emulator began."""
        self._call("POST", "/reset")

    # Instances.

    def instances(
        self, *, name: str | None = None, state: str | None = None, business_key: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the instances, oldest first, those that switches hide included."""
        given = {"name": name, "state": state, "business_key": business_key}
        query = urlencode({key: value for key, value in given.items() if value is not None})
        return self._list("GET", f"/instances?{query}")

    def instance(self, instance_id: str) -> dict[str, Any]:
        """Return one instance with its history."""
        return self._object("GET", _path(instance_id))

    def start(
        self,
        name: str,
        variables: dict[str, Any] | None = None,
        business_key: str | None = None,
        *,
        version: str | None = None,
        title: str | None = None,
        by: str = "somebody",
        age: float | timedelta = 0,
    ) -> dict[str, Any]:
        """Start an instance as somebody else than the machine user does.

        :param name: the process.
        :param variables: values for its variables.
        :param business_key: the business key; without one it is the id.
        :param version: the version of the process; without it, the active one.
        :param title: the title.
        :param by: who starts it; ``machine`` is the machine user.
        :param age: how long ago it was started, as seconds or as a ``timedelta``. Its script has run since: it may have
            ended, or wait for a person, for that long.
        """
        body = {
            "name": name,
            "version": version,
            "variables": variables or {},
            "business_key": business_key,
            "title": title,
            "by": by,
            "age": _seconds(age),
        }
        return self._object("POST", "/instances", body)

    def act(
        self, instance_id: str, outcome: str, *, by: str = "somebody", variables: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Complete the task that an instance waits at, as a person does, with one of its outcomes."""
        body = {"outcome": outcome, "by": by, "variables": variables or {}}
        return self._object("POST", f"{_path(instance_id)}/act", body)

    def change(self, instance_id: str, action: Literal["suspend", "resume", "terminate"]) -> dict[str, Any]:
        """Suspend, resume or terminate an instance."""
        return self._object("POST", f"{_path(instance_id)}/change", {"action": action})

    def react(
        self,
        name: str,
        deed: Literal["decide", "break", "suspend", "terminate"] = "decide",
        outcomes: Sequence[str] = (),
        *,
        where: Mapping[str, Any] | None = None,
        business_key: str | None = None,
        by: str = "somebody",
        variables: Mapping[str, Any] | None = None,
        after: float | timedelta = 0,
        optional: bool = False,
    ) -> None:
        """Let something be done with each instance of a process, at a moment of its own.

        An instance gets the latest reaction that is about it, and no other.

        :param name: the process.
        :param deed: what is done. ``decide`` takes an outcome each time an instance begins to wait for a person; the others
            are done once, ``after`` its start, and before the end of its script where both are due at the same moment.
        :param outcomes: what the person decides, in this order; after the last one nobody decides any more.
        :param where: only with instances whose variables have these values.
        :param business_key: only with instances that carry it.
        :param by: who the person is.
        :param variables: what the person fills in.
        :param after: how long after the start of the instance, as seconds or as a ``timedelta``, by the emulator's clock; not
            for ``decide``.
        :param optional: whether ``missed`` does not tell that no instance came which it is about.
        """
        body = {
            "name": name,
            "deed": deed,
            "outcomes": list(outcomes),
            "where": dict(where or {}),
            "business_key": business_key,
            "by": by,
            "variables": dict(variables or {}),
            "after": _seconds(after),
            "optional": optional,
        }
        self._call("POST", "/reactions", body)

    def missed(self, *, final: bool = True) -> list[str]:
        """Return, in words, what ``react`` has ordered and did not happen; decisions of people are none of it.

        :param final: whether nothing happens any more. Otherwise only what cannot happen any more is told: an instance had
            ended, or was deleted, before that.
        """
        answer: list[str] = self._call("GET", f"/reactions/missed?final={str(final).lower()}")
        return answer

    def break_instance(self, instance_id: str) -> dict[str, Any]:
        """Break an instance: it ends as ``Broken``."""
        return self._object("POST", f"{_path(instance_id)}/break")

    def move(
        self,
        instance_id: str,
        *,
        state: str | None = None,
        bp_status: str | None = None,
        closed: bool | None = None,
    ) -> dict[str, Any]:
        """Force an instance into a state; a new state stops its script.

        :param closed: whether it has ended; without it, the new state decides.
        """
        body = {"state": state, "bp_status": bp_status, "closed": closed}
        return self._object("POST", f"{_path(instance_id)}/move", body)

    def distort(
        self, instance_id: str, fields: Mapping[str, Any] | None = None, *, without: Sequence[str] = ()
    ) -> None:
        """Let the API show an instance otherwise than it is, from now on; without arguments as it is again.

        :param fields: values by the names of the API's fields, such as ``{"bpStatus": None, "suspended": "true"}``. What
            an answer has no field for is not added to it.
        :param without: the names of fields that are left out.
        """
        body = {"fields": dict(fields or {}), "without": list(without)}
        self._call("PUT", f"{_path(instance_id)}/distortion", body)

    def vanish(self, instance_id: str) -> None:
        """Remove an instance without a trace."""
        self._call("DELETE", _path(instance_id))

    # The world around.

    def switches(self) -> dict[str, Any]:
        """Return every switch with its position."""
        return self._object("GET", "/switches")

    def switch(self, **positions: object) -> dict[str, Any]:
        """Put some switches into another position; the others stay."""
        return self._object("PUT", "/switches", positions)

    def fault(self, kind: str, fault: str, **parameters: object) -> None:
        """Make requests go wrong.

        :param kind: token, csrf, start, query, get, action, delete, variables, get_variables, definitions,
            definition, other or any.
        :param fault: delay, drop_before, drop_after, status, not_json, html, code_in_200, redirect, wrong_shape,
            wrong_types, other_fields, twice, nul, half_pair, oversize, truncate or trickle.
        :param parameters: times, skip, seconds, work_done, status, retry_after, res_code, res_msg, size, location, fields,
            target, share.
        """
        self._call("POST", "/faults", {"kind": kind, "fault": fault, **parameters})

    def faults(self) -> list[dict[str, Any]]:
        """Return the faults that are still to come."""
        return self._list("GET", "/faults")

    def clear_faults(self) -> None:
        """Let nothing go wrong any more."""
        self._call("DELETE", "/faults")

    def outage(self, on: bool = True, *, mode: Literal["cut", "503"] = "cut") -> None:
        """Begin or end an outage of the whole API.

        :param mode: whether every connection is cut, or HTTP 503 is answered.
        """
        self._call("PUT", "/outage", {"mode": mode if on else "off"})

    def revoke_tokens(self) -> int:
        """Make every token invalid, and return how many were valid."""
        return int(self._object("POST", "/tokens/revoke")["revoked"])

    def advance(self, seconds: float) -> None:
        """Put the emulator's clock forward."""
        self._call("POST", "/clock/advance", {"seconds": seconds})

    def processes(self) -> list[dict[str, Any]]:
        """Return what can be started: name, version, active."""
        return self._list("GET", "/processes")

    def add_processes(self, yaml_text: str) -> None:
        """Offer the processes of a script, written in YAML."""
        self._call("POST", "/processes", yaml_text)

    def _object(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer: dict[str, Any] = self._call(method, path, body)
        return answer

    def _list(self, method: str, path: str) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = self._call(method, path)
        return answer

    def _call(self, method: str, path: str, body: dict[str, Any] | str | None = None) -> Any:
        text = body if isinstance(body, str) else "" if body is None else json.dumps(body)
        connection = HTTPConnection(self._host, self._port, timeout=_TIMEOUT_SECONDS)
        try:
            connection.request(method, f"/_emulator{path}", text.encode())
            response = connection.getresponse()
            status, answer = response.status, response.read().decode()
        except (OSError, HTTPException) as error:
            raise EmulatorError(
                f"the emulator at {self.url} did not answer {method} {path}: {error}"
            ) from error
        finally:
            connection.close()
        if status != 200:
            raise EmulatorError(f"the emulator at {self.url} refused {method} {path}: {_reason(answer)}")
        return json.loads(answer)


def _seconds(given: float | timedelta) -> float:
    return given.total_seconds() if isinstance(given, timedelta) else given


def _path(instance_id: str) -> str:
    return f"/instances/{quote(instance_id, safe='')}"


def _reason(answer: str) -> str:
    try:
        return str(json.loads(answer)["error"])
    except (ValueError, KeyError, TypeError):
        return answer
