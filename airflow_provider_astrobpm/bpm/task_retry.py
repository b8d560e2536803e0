"""When a task that has failed is tried again, by what it has failed over. No I/O.

| the try failed over                                               | then                                                    |
|-------------------------------------------------------------------|---------------------------------------------------------|
| settings, credentials, a refusal, a bad argument, what has ended  | the task fails: a retry would end in the same way       |
| throttling, an outage, no answer                                  | a retry, as late as the server asks or the task says    |
| a start of which nobody knows whether it was taken                | a retry soon, for it looks; each one later than the last|
| anything else                                                     | what the task's ``retries`` and ``retry_delay`` say     |

Anything else is, among others, a wait that has failed: a retry starts another instance where the first has come to a bad
end, which costs people's time, and whether it is worth that only the author can know. A failed TLS handshake and an answer that
nobody understands may be a passing outage as well as a mistake.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from airflow_provider_astrobpm.bpm.errors import (
    AmbiguousStartError,
    AuthenticationError,
    CallError,
    InstanceClosedError,
    NotSentError,
    RefusedError,
    SettingsError,
    TlsError,
    UnknownVariablesError,
)
from airflow_provider_astrobpm.bpm.retry import retry_after_seconds

SOON = 10.0  # seconds before the retry of a start in doubt, doubled with each further try


class Action(Enum):
    """What becomes of a task after a failure."""

    FAIL = "fail"
    RETRY = "retry"
    AS_THE_TASK_SAYS = "default"


class AfterFailure(NamedTuple):
    """What becomes of a task after a failure, and why."""

    action: Action
    reason: str | None = None
    delay: float | None = None
    """Seconds before the retry; ``None`` for the task's own delay."""


def after_failure(
    error: BaseException, *, is_bad_argument: bool, try_number: int, max_delay: float, now: float
) -> AfterFailure:
    """Decide by the table above.

    :param error: what the try has failed with.
    :param is_bad_argument: whether it is the refusal of an argument.
    :param try_number: the number of this try, from 1.
    :param max_delay: seconds before a retry at most, where the task's own delay does not count.
    :param now: the time, in seconds since the epoch.
    """
    name = type(error).__name__
    if is_bad_argument or _ends_alike(error):
        return AfterFailure(Action.FAIL, f"{name}: a retry would end in the same way")
    if isinstance(error, AmbiguousStartError):
        delay = min(max_delay, SOON * 2.0 ** min(max(try_number, 1) - 1, 30))
        return AfterFailure(Action.RETRY, f"{name}: the retry looks for the instance", delay)
    if isinstance(error, CallError) and error.passing:
        asked = retry_after_seconds(error.retry_after, now)
        if asked is None:
            return AfterFailure(Action.RETRY, f"{name}: it may pass")
        return AfterFailure(
            Action.RETRY, f"{name}: the server asks to wait {asked:g} s", min(max_delay, asked)
        )
    return AfterFailure(Action.AS_THE_TASK_SAYS)


def _ends_alike(error: BaseException) -> bool:
    """Tell whether a retry of what ended so would end so again."""
    if isinstance(error, NotSentError):
        return not error.passing and not isinstance(error, TlsError)
    final = (SettingsError, AuthenticationError, RefusedError, InstanceClosedError, UnknownVariablesError)
    return isinstance(error, final)
