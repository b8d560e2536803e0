"""The retry policy as a class of Airflow 3.3; earlier versions cannot import this module.

| the try failed because of                                             | decision                                              |
|-----------------------------------------------------------------------|-------------------------------------------------------|
| settings, credentials, a refusal, a bad argument, a closed instance   | fail: a retry would end in the same way               |
| throttling, an outage, no answer                                      | retry when the server asks, or after ``retry_delay``  |
| a start in doubt                                                      | retry soon to search for it, each time twice as late  |
| anything else                                                         | follow the task's ``retries`` and ``retry_delay``     |

A failed wait is in the last row. If its instance has failed, a retry starts another one, which costs people's time; only the
author knows whether that is worth it. A failed TLS handshake and an unreadable answer are there too, because each may be a
transient outage or a mistake.

A serialized DAG only says that a task has a policy. When the task fails, the worker takes the policy itself from the DAG file.
"""

from __future__ import annotations

import random
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import RetryDecision, RetryPolicy

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.client.backoff import Backoff

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

PACKAGE = "airflow_provider_astrobpm"
DOUBT_RETRY_SECONDS = 10.0  # before the first retry of a start in doubt, at most
FINAL_ERRORS = (
    errors.SettingsError,
    errors.AuthenticationError,
    errors.RefusedError,
    errors.InstanceClosedError,
    errors.UnknownVariablesError,
)


class AstroZeroRetryPolicy(RetryPolicy):  # type: ignore[misc, unused-ignore]
    """Applies the table above.

    :param max_delay: the longest time in seconds before a retry; the task's own delay is not limited.
    """

    def __init__(self, *, max_delay: float) -> None:
        self.max_delay = max_delay

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Context | None = None,
    ) -> RetryDecision:
        """Decide whether and when a failed task is retried."""
        from airflow_provider_astrobpm.client.resend_policy import retry_after_seconds  # noqa: PLC0415

        name = type(exception).__name__
        # An outage fails many tasks at once.
        backoff, chance = Backoff(DOUBT_RETRY_SECONDS, self.max_delay), random.random()  # noqa: S311 - jitter
        if _is_final(exception):
            return RetryDecision.fail(f"{name}: a retry would end in the same way")
        if isinstance(exception, errors.AmbiguousStartError):
            delay = timedelta(seconds=backoff.pause(try_number, chance))
            return RetryDecision.retry(delay, f"{name}: the retry searches for the instance")
        if isinstance(exception, errors.CallError) and exception.is_transient:
            asked = retry_after_seconds(exception.retry_after, time.time())
            if asked is None:
                return RetryDecision.retry(None, f"{name}: it may be transient")
            delay = timedelta(seconds=backoff.asked_pause(asked, chance))
            return RetryDecision.retry(delay, f"{name}: the server asks to wait {asked:g} s")
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """Return the policy as plain JSON."""
        return {"__type": type(self).__name__, "max_delay": self.max_delay}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> AstroZeroRetryPolicy:
        """Restore a policy from the result of ``serialize``."""
        return cls(max_delay=data["max_delay"])


def _is_final(error: BaseException) -> bool:
    """Return whether a retry would fail with the same error."""
    if isinstance(error, errors.NotSentError):
        return not error.is_transient and not isinstance(error, errors.TlsError)
    return isinstance(error, FINAL_ERRORS) or (isinstance(error, ValueError) and _is_of_this_provider(error))


def _is_of_this_provider(error: BaseException) -> bool:
    """Return whether the provider's own code raised an error, as opposed to code that it called.

    The provider raises ``ValueError`` only for bad arguments; the function of a ``@task.astro_bpm`` may do so for any reason.
    """
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = str(trace.tb_frame.f_globals.get("__name__"))
    return module.partition(".")[0] == PACKAGE
