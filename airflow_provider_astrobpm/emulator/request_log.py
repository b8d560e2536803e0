"""What came in: counts by kind of request, and a log of the last ones. Headers and bodies are never kept."""

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

    :param at: when it came in, seconds since the epoch by the emulator's clock.
    :param query: the raw query; a token request's is withheld, secrets may have strayed there.
    :param detail: the action, or the name of the BPM to start.
    :param status: of the answer; 0 while there is none, and for good where the connection was cut.
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
    """Counts and logs requests to the API; the control API is not among them.

    :param keep: how many requests the log holds.
    """

    def __init__(self, keep: int = 1000) -> None:
        self._counts: Counter[RequestKind] = Counter()
        self.log: deque[RecordedRequest] = deque(maxlen=keep)
        self._number = 0

    @property
    def counts(self) -> dict[RequestKind, int]:
        """How many requests came in, for every kind."""
        return {kind: self._counts[kind] for kind in get_args(RequestKind)}

    def note(self, at: float, kind: RequestKind, method: str, path: str, query: str) -> RecordedRequest:
        """Count a request that came in, and return its entry for what is known later."""
        self._number += 1
        self._counts[kind] += 1
        entry = RecordedRequest(
            self._number, at, kind, method, path, "(withheld)" if query and kind == "token" else query
        )
        self.log.append(entry)
        return entry

    def reset(self) -> None:
        """Start counting and logging anew."""
        self._counts.clear()
        self.log.clear()
