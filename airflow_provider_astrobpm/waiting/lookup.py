"""Failed reads of what a wait needs before it can poll: its connection, or the instances of its batch.

While a triggerer restarts, the secrets backend may be down for a moment, and the connection cannot be read. That must not end a
wait of several days. So a failed read counts as a failed poll: the same time limit, the same deadline and the same log line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.client.backoff import Backoff
from airflow_provider_astrobpm.client.errors import AstroZeroError, PreparationError
from airflow_provider_astrobpm.waiting.wait import BaseWait

if TYPE_CHECKING:
    from airflow_provider_astrobpm.client.errors import CallError
    from airflow_provider_astrobpm.client.moment import Moment
    from airflow_provider_astrobpm.client.search import SearchRequest
    from airflow_provider_astrobpm.client.search_result import SearchResult

READS = Backoff(first=1, longest=60)


def record_failed_read(
    wait: BaseWait[Any],
    what: str,
    error: Exception,
    *,
    connection: str,
    now: Moment,
    jitter: float,
) -> float:
    """Record a failed read as a failed poll, which may end the wait, and return the seconds until the next read.

    :param wait: the wait.
    :param what: what could not be read, such as ``the connection``.
    :param error: how the read failed.
    :param connection: the connection id.
    :param now: when the read ended.
    :param jitter: a random number from 0 to 1. After a restart a thousand waits read their connections at once.
    """
    # Quote only this provider's errors: the text of a secrets backend's error may contain a secret.
    words = error.problem if isinstance(error, AstroZeroError) else type(error).__name__
    failure = PreparationError(f"{what} could not be read ({words})")
    failure.connection = connection
    wait.record_failed_poll(failure, now)
    seconds = READS.pause(wait.failed_polls, jitter)
    left = wait.seconds_left(now)
    return seconds if left is None else max(0.0, min(seconds, left))


class LookupWait(BaseWait[None]):
    """A wait that only tolerates failed reads, for lookups before the actual wait. It has no deadline and no polls."""

    __slots__ = ()

    def __init__(self, max_poll_failure_time: float) -> None:
        super().__init__(None, max_poll_failure_time)

    def add_to_query(self, sought: SearchRequest) -> None:
        """Add nothing."""

    def _judge_result(self, search_result: SearchResult, now: float) -> CallError | None:
        return None
