"""Control a running emulator from a test or a script: one method for each command of its control API.

Uses only the standard library.
"""

from __future__ import annotations

import json
from contextlib import closing
from datetime import timedelta
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TIMEOUT_SECONDS = 10.0


class EmulatorError(Exception):
    """The emulator refused a command or did not answer."""


class EmulatorControl:
    """The control API of one emulator.

    Every method raises :class:`EmulatorError` with the reason if the emulator refuses the command.

    :param url: the address of the emulator, ``http://host:port``; a path is ignored.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"the control URL must be http://host:port, not {url!r}")
        self.url = f"http://{parts.netloc}"
        self._host, self._port = parts.hostname, parts.port

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def counts(self) -> dict[str, int]:
        """Return the number of requests by kind; 0 for a kind that was never received."""
        return self._object("GET", "/counts")

    def reset_counts(self) -> None:
        """Clear the counts and the log of requests."""
        self._call("DELETE", "/counts")

    def requests(self) -> list[dict[str, Any]]:
        """Return the most recent requests, oldest first: number, at, kind, method, path, query, detail, status."""
        return self._list("/requests")

    def reset(self) -> None:
        """Reset the emulator to its initial state."""
        self._call("POST", "/reset")

    def instances(
        self, *, name: str | None = None, state: str | None = None, business_key: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the instances, oldest first, including those that switches hide."""
        given = {"name": name, "state": state, "business_key": business_key}
        query = urlencode({key: value for key, value in given.items() if value is not None})
        return self._list(f"/instances?{query}")

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
        by: str = "someone",
        age: float | timedelta = 0,
    ) -> dict[str, Any]:
        """Start an instance, by default as a user other than the machine user.

        :param name: the process.
        :param variables: values for its variables.
        :param business_key: the business key; by default the instance id.
        :param version: the version of the process; by default the active version.
        :param title: the title.
        :param by: the user who starts it; ``machine`` is the machine user.
        :param age: how long ago it was started, in seconds or as a ``timedelta``. Its script has run since then: it may
            have ended long ago, or have waited for a person since.
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
        self, instance_id: str, outcome: str, *, by: str = "someone", variables: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Complete the task at which an instance waits with one of its outcomes, as a person does."""
        body = {"outcome": outcome, "by": by, "variables": variables or {}}
        return self._object("POST", f"{_path(instance_id)}/act", body)

    def change(self, instance_id: str, action: Literal["suspend", "resume", "terminate"]) -> dict[str, Any]:
        """Suspend, resume or terminate an instance."""
        return self._object("POST", f"{_path(instance_id)}/change", {"action": action})

    def react(
        self,
        name: str,
        action: Literal["decide", "break", "suspend", "terminate"] = "decide",
        outcomes: Sequence[str] = (),
        *,
        where: Mapping[str, Any] | None = None,
        business_key: str | None = None,
        by: str = "someone",
        variables: Mapping[str, Any] | None = None,
        after: float | timedelta = 0,
        optional: bool = False,
    ) -> None:
        """Plan an action for each instance of a process.

        If several reactions match an instance, only the latest one applies to it.

        :param name: the process.
        :param action: the action. ``decide`` chooses an outcome each time an instance begins to wait for a person. The others
            are applied once, ``after`` the start of the instance. At the same moment they come before the end of its script.
        :param outcomes: the outcomes that the person chooses, in this order. After the last one no one decides.
        :param where: match only instances whose variables have these values.
        :param business_key: match only instances with this business key.
        :param by: the name of the person.
        :param variables: the values that the person enters.
        :param after: how long after the start of the instance, in seconds or as a ``timedelta``, by the emulator's clock; not
            for ``decide``.
        :param optional: whether it is fine that no instance matches; otherwise ``missed`` reports it.
        """
        body = {
            "name": name,
            "action": action,
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
        """Return a message for each action that ``react`` planned and that did not happen. ``decide`` is not reported.

        :param final: whether the time has run out. Otherwise only actions that can no longer happen are reported, because the
            instance ended or was deleted first.
        """
        return self._list(f"/reactions/missed?final={str(final).lower()}")

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
        """Force an instance into a state. A new state stops its script.

        :param closed: whether it has ended; by default the new state decides.
        """
        body = {"state": state, "bp_status": bp_status, "closed": closed}
        return self._object("POST", f"{_path(instance_id)}/move", body)

    def distort(
        self, instance_id: str, fields: Mapping[str, Any] | None = None, *, without: Sequence[str] = ()
    ) -> None:
        """Make the API show an instance with distorted fields from now on. Without arguments, end the distortion.

        :param fields: API field name to value, such as ``{"bpStatus": None, "suspended": "true"}``. Fields that a
            response does not have are not added.
        :param without: the names of fields to omit.
        """
        body = {"fields": dict(fields or {}), "without": list(without)}
        self._call("PUT", f"{_path(instance_id)}/distortion", body)

    def vanish(self, instance_id: str) -> None:
        """Remove an instance and leave no trace of it."""
        self._call("DELETE", _path(instance_id))

    def switches(self) -> dict[str, Any]:
        """Return every switch with its position."""
        return self._object("GET", "/switches")

    def switch(self, **positions: object) -> dict[str, Any]:
        """Set some switches to other positions; the others stay as they are."""
        return self._object("PUT", "/switches", positions)

    def fault(self, kind: str, fault: str, **parameters: object) -> None:
        """Make requests fail.

        :param kind: token, csrf, start, query, get, action, delete, variables, get_variables, definitions,
            definition, other or any.
        :param fault: delay, drop_before, drop_after, status, not_json, html, text, code_in_200, redirect, wrong_shape,
            wrong_types, other_fields, twice, nul, half_pair, oversize, truncate or trickle.
        :param parameters: times, skip, seconds, work_done, status, retry_after, res_code, res_msg, size, location, fields,
            target, share.
        """
        self._call("POST", "/faults", {"kind": kind, "fault": fault, **parameters})

    def faults(self) -> list[dict[str, Any]]:
        """Return the faults that are still active."""
        return self._list("/faults")

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._call("DELETE", "/faults")

    def outage(self, on: bool = True, *, mode: Literal["cut", "503"] = "cut") -> None:
        """Begin or end an outage of the whole API.

        :param mode: ``cut`` cuts every connection; ``503`` responds with HTTP 503.
        """
        self._call("PUT", "/outage", {"mode": mode if on else "off"})

    def revoke_tokens(self) -> int:
        """Invalidate every token, and return how many were valid."""
        return int(self._object("POST", "/tokens/revoke")["revoked"])

    def advance(self, seconds: float) -> None:
        """Advance the emulator's clock."""
        self._call("POST", "/clock/advance", {"seconds": seconds})

    def processes(self) -> list[dict[str, Any]]:
        """Return the processes that can be started: name, version, active."""
        return self._list("/processes")

    def add_processes(self, yaml_text: str) -> None:
        """Add the processes of a script, written in YAML."""
        self._call("POST", "/processes", yaml_text)

    def _object(self, method: str, path: str, body: dict[str, Any] | str = "") -> dict[str, Any]:
        answer: dict[str, Any] = self._call(method, path, body)
        return answer

    def _list(self, path: str) -> list[Any]:
        answer: list[Any] = self._call("GET", path)
        return answer

    def _call(self, method: str, path: str, body: dict[str, Any] | str = "") -> Any:
        text = body if isinstance(body, str) else json.dumps(body)
        with closing(HTTPConnection(self._host, self._port, timeout=_TIMEOUT_SECONDS)) as connection:
            try:
                connection.request(method, f"/_emulator{path}", text.encode())
                response = connection.getresponse()
                status, answer = response.status, response.read().decode()
            except (OSError, HTTPException) as error:
                raise EmulatorError(
                    f"the emulator at {self.url} did not answer {method} {path}: {error}"
                ) from error
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
