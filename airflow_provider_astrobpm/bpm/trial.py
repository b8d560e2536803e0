"""Whether a connection works: a token, and one short list, without changing anything.

A machine user may do all that tasks do and yet not list BPM definitions. So where that fails, a list of instances decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_astrobpm.bpm import api, states
from airflow_provider_astrobpm.bpm.api import Pause
from airflow_provider_astrobpm.bpm.change import is_certainly_not_sent
from airflow_provider_astrobpm.bpm.errors import CallError, ThrottledError
from airflow_provider_astrobpm.bpm.retry import retry_after_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.bpm.api import Operation, Plan

T = TypeVar("T")

PAUSE = 1.0  # seconds before the second attempt of a call that is throttled, where the server does not say
LONGEST_PAUSE = 5.0  # seconds


def trial(now: Callable[[], float]) -> Plan[str]:
    """Try a connection out, and return what it shows, in words.

    :param now: returns the time, in seconds since the epoch.
    :raises CallError: if neither definitions nor instances can be listed.
    """
    try:
        definitions: list[Any] = yield from _patiently(api.definitions(limit=1), now)
    except CallError as failure:
        if failure.came_before or is_certainly_not_sent(failure) or isinstance(failure, ThrottledError):
            raise
        try:
            yield from _patiently(api.query(states.SHORT_LIVED), now)
        except CallError:
            raise failure from None
        return f"this user lists instances, and no BPM definitions: {failure.problem}"
    if definitions:
        return f"the first BPM is {definitions[0].name!r}"
    return "it shows no BPM to this user"


def _patiently(operation: Operation[T], now: Callable[[], float]) -> Plan[T]:
    """Send a call, and once more where it was throttled."""
    answer: T
    try:
        answer = yield operation
    except ThrottledError as throttled:
        asked = retry_after_seconds(throttled.retry_after, now())
        yield Pause(min(PAUSE if asked is None else asked, LONGEST_PAUSE))
        answer = yield operation
    return answer
