"""The retry policy as a class of Airflow 3.3; earlier versions cannot import this module.

| the try failed because of                                             | decision                                              |
|-----------------------------------------------------------------------|-------------------------------------------------------|
| settings, credentials, a refusal, a bad argument, a closed instance   | fail: a retry would end in the same way               |
| throttling, an outage, no answer; a start that is in doubt for this   | reschedule (Airflow 3.4), so that no retry is used up |
| the same before Airflow 3.4; a token that was just issued is refused  | retry when the server asks, or after ``retry_delay``  |
| any other start in doubt                                              | retry soon to search for it, each time twice as late  |
| anything else                                                         | follow the task's ``retries`` and ``retry_delay``     |

A failed wait is in the last row. If its instance has failed, a retry starts another one, which costs people's time; only the
author knows whether that is worth it. A failed TLS handshake and an unreadable answer are there too, because each may be a
transient outage or a mistake.

A rescheduled task runs the same try again. Callbacks are not called, so people learn of the outage only when its limit is
reached and the retries are used up. Airflow does not let the pauses grow, and a ``retry_delay`` may be 0, so the policy has
its own pauses.

A serialized DAG only says that a task has a policy. When the task fails, the worker takes the policy itself from the DAG file.
"""

from __future__ import annotations

import random
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import RetryDecision, RetryPolicy

from airflow_provider_astrobpm._airflow.version_compat import has_reschedules
from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.client.backoff import Backoff

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

PACKAGE = "airflow_provider_astrobpm"
DOUBT_RETRY_SECONDS = 10.0  # before the first retry of a start in doubt, at most
OUTAGE_PAUSE_SECONDS = 30.0  # before the first reschedule in an outage, at most, unless retry_delay is longer
MAX_OUTAGE_PAUSE_SECONDS = 600.0  # so that tasks run again soon after a long outage
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
    :param max_reschedules: how often a try may be rescheduled; ``None`` for no such limit.
    :param reschedule_timeout: seconds after the first reschedule of a try in which it may be rescheduled again; ``None`` for no
        such limit. Without both limits nothing is rescheduled.
    """

    def __init__(
        self, *, max_delay: float, max_reschedules: int | None = None, reschedule_timeout: float | None = None
    ) -> None:
        self.max_delay = max_delay
        self.max_reschedules = max_reschedules
        self.reschedule_timeout = reschedule_timeout

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Context | None = None,
    ) -> RetryDecision:
        """Decide whether and when a failed task is retried."""
        name = type(exception).__name__
        # An outage fails many tasks at once.
        backoff, chance = Backoff(DOUBT_RETRY_SECONDS, self.max_delay), random.random()  # noqa: S311 - jitter
        if _is_final(exception):
            return RetryDecision.fail(f"{name}: a retry would end in the same way")
        if self._may_reschedule and (outage := _outage(exception)) is not None:
            return self._reschedule(exception, outage, context, chance)
        if isinstance(exception, errors.AmbiguousStartError):
            delay = timedelta(seconds=backoff.pause(try_number, chance))
            return RetryDecision.retry(delay, f"{name}: the retry searches for the instance")
        if isinstance(exception, errors.CallError) and exception.is_transient:
            asked = _asked_seconds(exception)
            if asked is None:
                return RetryDecision.retry(None, f"{name}: it may be transient")
            delay = timedelta(seconds=backoff.asked_pause(asked, chance))
            return RetryDecision.retry(delay, f"{name}: the server asks to wait {asked:g} s")
        return RetryDecision.default()

    @property
    def _may_reschedule(self) -> bool:
        has_limit = self.max_reschedules is not None or self.reschedule_timeout is not None
        return has_limit and has_reschedules()

    def _reschedule(
        self, error: BaseException, outage: errors.CallError, context: Context | None, chance: float
    ) -> RetryDecision:
        """Return the decision to run the try again; past its limits Airflow takes it for the default decision.

        :param error: the error of the task.
        :param outage: the failed call.
        :param chance: a random number from 0 to 1.
        """
        in_doubt = isinstance(error, errors.AmbiguousStartError)
        backoff = Backoff(
            DOUBT_RETRY_SECONDS if in_doubt else OUTAGE_PAUSE_SECONDS,
            min(MAX_OUTAGE_PAUSE_SECONDS, self.max_delay),
            longest_asked=self.max_delay,
        )
        past = int(context.get("task_reschedule_count") or 0) if context else 0
        asked = _asked_seconds(outage)
        pause = timedelta(seconds=backoff.pause(past + 1, chance, asked))
        if context and not in_doubt:
            pause = max(pause, context["task"].retry_delay)
        why = "an outage uses up no retry"
        if asked is not None:
            why += f", and the server asks to wait {asked:g} s"
        # Airflow 3.3 has no such decision.
        decision: RetryDecision = RetryDecision.reschedule(  # type: ignore[attr-defined, unused-ignore]
            pause,
            max_reschedules=self.max_reschedules,
            reschedule_timeout=None
            if self.reschedule_timeout is None
            else timedelta(seconds=self.reschedule_timeout),
            reason=f"{type(error).__name__}: {why}",
        )
        return decision

    def serialize(self) -> dict[str, Any]:
        """Return the policy as plain JSON."""
        return {"__type": type(self).__name__, **vars(self)}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> AstroZeroRetryPolicy:
        """Restore a policy from the result of ``serialize``."""
        return cls(**{name: value for name, value in data.items() if name != "__type"})


def _is_final(error: BaseException) -> bool:
    """Return whether a retry would fail with the same error."""
    if isinstance(error, errors.NotSentError):
        return not error.is_transient and not isinstance(error, errors.TlsError)
    return isinstance(error, FINAL_ERRORS) or (isinstance(error, ValueError) and _is_of_this_provider(error))


def _outage(error: BaseException) -> errors.CallError | None:
    """Return the failed call if an error means that the server is throttled, down or unreachable.

    A start in doubt counts only if a failed call has caused the doubt. If answers cause it, only a person may be able to end it.
    A refused token does not count, because a missing permission may be the reason.
    """
    call = error.failed_call if isinstance(error, errors.AmbiguousStartError) else error
    if not isinstance(call, errors.CallError) or isinstance(call, errors.TokenRefusedError):
        return None
    return call if call.is_transient else None


def _asked_seconds(call: errors.CallError) -> float | None:
    """Return the seconds that the server asks to wait, if it does."""
    from airflow_provider_astrobpm.client.resend_policy import retry_after_seconds  # noqa: PLC0415

    return retry_after_seconds(call.retry_after, time.time())


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
