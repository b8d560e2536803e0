"""The metrics of this provider, and the meters that count them.

``METRICS`` is the only place that names metrics; ``docs/observability.md`` describes them for users. This module does not
know where the counts go: a client is given a meter, and the default meter does nothing.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Literal, NamedTuple

POLLS = "polls"
POLL_ERRORS = "poll_errors"
WAITERS = "waiters"
REQUESTS = "requests"
TOKEN_REQUESTS = "token_requests"  # noqa: S105 - a name
STARTS = "starts"
ADOPTIONS = "adoptions"
AMBIGUOUS_STARTS = "ambiguous_starts"
KILLS = "kills"


class Metric(NamedTuple):
    """One metric."""

    type: Literal["counter", "gauge"]
    meaning: str
    """What it counts, for the documentation."""
    tag: str | None = None
    """The tag that distinguishes its values."""


METRICS: dict[str, Metric] = {
    POLLS: Metric("counter", "Polls. One poll serves all waits that share it."),
    POLL_ERRORS: Metric(
        "counter", "Polls in which a call failed after all its attempts. The waits continue."
    ),
    WAITERS: Metric(
        "gauge",
        "Deferred tasks and watchers that the pollers of this process serve. A batch counts as one.",
        tag="hostname",
    ),
    REQUESTS: Metric("counter", "HTTP requests sent. Each attempt counts.", tag="kind"),
    TOKEN_REQUESTS: Metric("counter", "Requests for a token, the first one and renewals."),
    STARTS: Metric("counter", "Instances started."),
    ADOPTIONS: Metric("counter", "Instances of earlier tries that a later try adopted."),
    AMBIGUOUS_STARTS: Metric(
        "counter",
        "Starts in doubt: the server may or may not have acted on them. Counted even if a later search resolves the doubt.",
    ),
    KILLS: Metric(
        "counter", "Waiting tasks that a user ended, so that their open instances had to be terminated."
    ),
}


class Meter:
    """Counts events; this one does nothing. Its methods do not block, so they may be called in an event loop."""

    def count(self, name: str, amount: int = 1, **tags: str) -> None:
        """Add an amount to one of the counters of ``METRICS``, for its tags."""

    def gauge(self, name: str, change: int) -> None:
        """Raise or lower one of the gauges of ``METRICS``."""

    def flush(self) -> None:
        """Pass on all counts that have not been passed on yet."""


NULL_METER = Meter()

Tags = tuple[tuple[str, str], ...]


class BufferedMeter(Meter):
    """A meter that keeps its counts until they are taken. Threads may share it."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Reset all counts and gauges."""
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, Tags], int] = {}
        self._gauges: dict[str, int] = {}

    def count(self, name: str, amount: int = 1, **tags: str) -> None:
        """Add to a counter."""
        if not amount:
            return
        key = name, tuple(tags.items())
        with self._lock:
            self._counts[key] = self._counts.get(key, 0) + amount

    def gauge(self, name: str, change: int) -> None:
        """Raise or lower a gauge."""
        with self._lock:
            self._gauges[name] = self._gauges.get(name, 0) + change

    def take(self) -> tuple[dict[tuple[str, Tags], int], dict[str, int]]:
        """Return the counts since the last call, by name and tags, and the current value of each gauge."""
        with self._lock:
            counts, self._counts = self._counts, {}
            return counts, dict(self._gauges)


class RequestCounts(Counter[str]):
    """Number of requests of each kind that have not been passed to a meter yet.

    Only one thread may use it. Counting a request costs no more than ``requests[kind] += 1``.
    """

    def flush_to(self, meter: Meter) -> None:
        """Pass the counts to a meter and reset them."""
        for kind, amount in self.items():
            meter.count(REQUESTS, amount, kind=kind)
        self.clear()


def count_poll(meter: Meter, *, failed: bool) -> None:
    """Count one poll."""
    meter.count(POLLS)
    if failed:
        meter.count(POLL_ERRORS)
