"""Polls for one wait, builds the query of a poll, and computes when the next poll is due."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.client import search
from airflow_provider_astrobpm.client.backoff import Backoff
from airflow_provider_astrobpm.client.metrics import NULL_METER, count_poll
from airflow_provider_astrobpm.client.operations import Sleep
from airflow_provider_astrobpm.client.resend_policy import retry_after_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_astrobpm.client.errors import CallError
    from airflow_provider_astrobpm.client.log_note import LogNote
    from airflow_provider_astrobpm.client.metrics import Meter
    from airflow_provider_astrobpm.client.moment import Moment
    from airflow_provider_astrobpm.client.operations import Flow
    from airflow_provider_astrobpm.client.search_result import SearchResult
    from airflow_provider_astrobpm.client.settings import Settings
    from airflow_provider_astrobpm.waiting.wait import BaseWait, InstanceWait

MAX_JITTER_SHARE = 0.1  # of the interval, by which a pause may be shorter
MAX_BACKOFF_SECONDS = 60.0  # between two polls of a server that is down, unless the poll interval is longer
MAX_RETRY_AFTER_SECONDS = 600.0  # that a Retry-After header is obeyed


@dataclass(frozen=True, kw_only=True)
class WorkerPolling:
    """Polls for waits in one thread, as workers and the command line do.

    :param settings: the environment.
    :param log: called with each change, and with nothing while nothing changes.
    :param clock: returns the current moment.
    :param jitter: returns a random number from 0 to 1.
    :param meter: counts the polls.
    """

    settings: Settings
    log: Callable[[LogNote], None]
    clock: Callable[[], Moment]
    jitter: Callable[[], float] = random.random
    meter: Meter = NULL_METER

    def run_wait(self, wait: BaseWait[Any], poll_interval: float) -> Flow[None]:
        """Run a wait to its end: pause and poll until it ends.

        :param poll_interval: seconds between two polls.
        """
        failures = PollFailures()
        while wait.ending is None:
            yield self._pause(wait, poll_interval, failures)
            failures.record((yield from self.poll_once(wait)))

    def poll_until_conclusive(self, wait: InstanceWait, again_after: float) -> Flow[None]:
        """Poll, and again while polls fail or do not show the instance.

        :param again_after: seconds until the next poll.
        """
        failures = PollFailures()
        failures.record((yield from self.poll_once(wait)))
        while wait.is_inconclusive():
            yield self._pause(wait, again_after, failures)
            failures.record((yield from self.poll_once(wait)))

    def poll_once(self, *waits: BaseWait[Any]) -> Flow[CallError | None]:
        """Poll once for some waits, and return the ``failure`` of the search."""
        search_result = yield from query_for_waits(waits, self.settings)
        count_poll(self.meter, failed=search_result.has_gaps)
        for wait in waits:
            wait.grace = self.settings.start_grace
            wait.record_poll(search_result, self.clock(), self.settings.connection)
            for note in wait.notes:
                self.log(note)
            wait.notes.clear()
        return search_result.failure

    def _pause(self, wait: BaseWait[Any], interval: float, failures: PollFailures) -> Sleep:
        return Sleep(next_delay(wait, interval, failures, self.clock(), self.jitter()))


class PollFailures:
    """Counts consecutive polls for which the server was down. Only these make polls back off, not one list that fails."""

    def __init__(self) -> None:
        self.in_a_row = 0
        self.last: CallError | None = None
        """The error of the last poll; ``None`` if it succeeded."""

    def record(self, failure: CallError | None) -> None:
        """Record the ``failure`` of a poll; ``None`` if the server was not down."""
        self.in_a_row = self.in_a_row + 1 if failure is not None else 0
        self.last = failure


def query_for_waits(waits: Iterable[BaseWait[Any]], settings: Settings) -> Flow[SearchResult]:
    """Search for everything that the given waits need."""
    sought = search.SearchRequest()
    for wait in waits:
        wait.add_to_query(sought)
    endpoint = search.traits_of_endpoint(settings.base_url)
    return (
        yield from search.find(
            sought.ids, sought.keys, sought.lists, lookup=settings.instance_lookup, endpoint=endpoint
        )
    )


def next_delay(
    wait: BaseWait[Any], poll_interval: float, failures: PollFailures, now: Moment, jitter: float
) -> float:
    """Return the seconds until the next poll for one wait."""
    seconds = poll_delay(poll_interval, failures, now.wall, jitter)
    left = wait.seconds_left(now)
    return seconds if left is None else max(0.0, min(seconds, left))


def poll_delay(poll_interval: float, failures: PollFailures, now: float, jitter: float) -> float:
    """Return the seconds between two polls: slightly less than the interval, and longer each time while the server is down.

    :param poll_interval: the requested interval, in seconds.
    :param failures: the polls that have failed.
    :param now: the current time, in seconds since the epoch.
    :param jitter: a random number from 0 to 1.
    """
    backoff = Backoff(
        poll_interval,
        max(poll_interval, MAX_BACKOFF_SECONDS),
        jitter=MAX_JITTER_SHARE,
        longest_asked=MAX_RETRY_AFTER_SECONDS,
    )
    return backoff.pause(failures.in_a_row + 1, jitter, retry_after_delay(failures.last, now))


def retry_after_delay(error: CallError | None, now: float) -> float | None:
    """Return for how many seconds the server asked not to be called, or ``None`` if it did not ask.

    :param error: the error of the last poll, if it failed.
    :param now: the current time, in seconds since the epoch.
    """
    asked = retry_after_seconds(error.retry_after, now) if error else None
    return None if asked is None else min(asked, MAX_RETRY_AFTER_SECONDS)
