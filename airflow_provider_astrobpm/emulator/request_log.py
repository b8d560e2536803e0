"""The requests that the emulator received: counts by kind, and a log of the latest. It keeps no headers or bodies."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Literal, get_args

RequestKind = Literal[
    "token",
    "csrf",
    "start",
    "query",
    "get",
    "action",
    "delete",
    "variables",
    "get_variables",
    "definitions",
    "definition",
    "other",
]


@dataclass
class RecordedRequest:
    """An entry of the log.

    :param at: when the request arrived, in seconds since the epoch by the emulator's clock.
    :param query: the raw query; withheld for a token request, because it might contain a secret.
    :param detail: the action, or the name of the BPM to start.
    :param status: the HTTP status; 0 until the response is sent, and if the connection was cut.
    """

    number: int
    at: float
    kind: RequestKind
    method: str
    path: str
    query: str
    detail: str = ""
    status: int = 0


class RequestLog:
    """Count the requests to the API, and log the latest thousand. Requests to the control API are not included."""

    def __init__(self) -> None:
        self._counts: Counter[RequestKind] = Counter()
        self.log: deque[RecordedRequest] = deque(maxlen=1000)
        self._number = 0

    @property
    def counts(self) -> dict[RequestKind, int]:
        """The number of requests of every kind."""
        return {kind: self._counts[kind] for kind in get_args(RequestKind)}

    def note(self, at: float, kind: RequestKind, method: str, path: str, query: str) -> RecordedRequest:
        """Count a new request, and return its entry, to which the caller adds the result."""
        self._number += 1
        self._counts[kind] += 1
        entry = RecordedRequest(
            self._number, at, kind, method, path, "(withheld)" if query and kind == "token" else query
        )
        self.log.append(entry)
        return entry

    def reset(self) -> None:
        """Clear the counts and the log."""
        self._counts.clear()
        self.log.clear()
