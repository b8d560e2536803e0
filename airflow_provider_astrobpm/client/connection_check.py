"""Checks whether a connection works, with a token and one short list, without changing anything.

A machine user may have all permissions that tasks need but not be allowed to list BPM definitions. So if that fails, a list
of instances decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_astrobpm.client import operations, states
from airflow_provider_astrobpm.client.changes import was_certainly_not_sent
from airflow_provider_astrobpm.client.errors import CallError, ThrottledError
from airflow_provider_astrobpm.client.operations import Sleep
from airflow_provider_astrobpm.client.resend_policy import resend_pause

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.client.operations import Flow, Operation

T = TypeVar("T")

MAX_DELAY_SECONDS = 5.0  # before the second attempt of a throttled call, even if the server asks for more


def check_connection(now: Callable[[], float]) -> Flow[str]:
    """Check a connection, and describe what it shows.

    :param now: returns the time, in seconds since the epoch.
    :raises CallError: if neither definitions nor instances can be listed.
    """
    try:
        definitions: list[Any] = yield from _patiently(operations.definitions(limit=1), now)
    except CallError as failure:
        if (
            failure.failed_fetching_token
            or was_certainly_not_sent(failure)
            or isinstance(failure, ThrottledError)
        ):
            raise
        try:
            yield from _patiently(operations.query(states.SHORT_LIVED), now)
        except CallError:
            raise failure from None
        return f"this user can list instances, but not BPM definitions: {failure.problem}"
    if definitions:
        return f"the first BPM is {definitions[0].name!r}"
    return "this user sees no BPM"


def _patiently(operation: Operation[T], now: Callable[[], float]) -> Flow[T]:
    """Send a call, and send it once more if it was throttled."""
    answer: T
    try:
        answer = yield operation
    except ThrottledError as throttled:
        yield Sleep(resend_pause(throttled, 1, max_wait=MAX_DELAY_SECONDS, now=now()))
        answer = yield operation
    return answer
