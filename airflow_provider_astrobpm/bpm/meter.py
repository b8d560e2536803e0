"""What is counted, by name, and the meter that is told.

The table is the only place that names metrics; ``docs/observability.md`` shows it to people. Where the counts go is not
known here: clients are given a meter, and by default it does nothing.
"""

from __future__ import annotations

import threading
from typing import Literal, NamedTuple, Protocol

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
    """What it counts, in words for people."""
    tag: str | None = None
    """What its values are told apart by."""


METRICS: dict[str, Metric] = {
    POLLS: Metric(
        "counter", "Looks for what is waited for. One look asks for everything that waits with it."
    ),
    POLL_ERRORS: Metric("counter", "Polls of which a call failed, after all its attempts. The waits go on."),
    WAITERS: Metric(
        "gauge",
        "Deferred tasks, a batch being one, and watchers that the pollers of this process look after.",
        tag="hostname",
    ),
    REQUESTS: Metric("counter", "HTTP requests sent, each attempt counted.", tag="kind"),
    TOKEN_REQUESTS: Metric("counter", "Times that a token was asked for, at first or to renew it."),
    STARTS: Metric("counter", "Instances that were started."),
    ADOPTIONS: Metric("counter", "Instances that a try found started, and went on with."),
    AMBIGUOUS_STARTS: Metric(
        "counter", "Starts that may or may not have been taken, whatever a look-up has shown later."
    ),
    KILLS: Metric(
        "counter", "Waiting tasks that a person ended, so that what they had open was to be terminated."
    ),
}


class Meter(Protocol):
    """Is told of what happens. No call of it waits for anything, so it may be called in an event loop."""

    def count(self, name: str, amount: int = 1, **tags: str) -> None:
        """Add to a counter.

        :param name: one of the counters of ``METRICS``.
        :param amount: how much.
        :param tags: what its values are told apart by.
        """

    def gauge(self, name: str, change: int) -> None:
        """Let a gauge rise or fall.

        :param name: one of the gauges of ``METRICS``.
        :param change: by how much.
        """

    def flush(self) -> None:
        """Pass on what was not passed on yet."""


class NoMeter:
    """A meter that does nothing."""

    def count(self, name: str, amount: int = 1, **tags: str) -> None:
        """Do nothing."""

    def gauge(self, name: str, change: int) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""


NO_METER = NoMeter()

Tags = tuple[tuple[str, str], ...]


class Tally:
    """A meter that keeps what it is told until somebody takes it. Threads may share it."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
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
        """Let a gauge rise or fall."""
        with self._lock:
            self._gauges[name] = self._gauges.get(name, 0) + change

    def flush(self) -> None:
        """Keep everything."""

    def take(self) -> tuple[dict[tuple[str, Tags], int], dict[str, int]]:
        """Return the counts since they were taken last, by names and tags, and the gauges as they are."""
        with self._lock:
            counts, self._counts = self._counts, {}
            return counts, dict(self._gauges)


class Requests(dict[str, int]):
    """How many requests of each kind were sent and not told yet.

    One thread alone may count here; then a request costs no more than ``requests[kind] += 1``.
    """

    def __missing__(self, kind: str) -> int:
        return 0

    def tell(self, meter: Meter) -> None:
        """Tell a meter, and begin anew."""
        for kind, amount in self.items():
            meter.count(REQUESTS, amount, kind=kind)
        self.clear()


def count_look(meter: Meter, *, failed: bool) -> None:
    """Count one look for what is waited for."""
    meter.count(POLLS)
    if failed:
        meter.count(POLL_ERRORS)
