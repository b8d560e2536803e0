"""The retry policy as a class of Airflow 3.3; earlier versions cannot import this module.

A serialized DAG only says that a task has a policy. When the task fails, the worker takes the policy itself from the DAG file.
"""

from __future__ import annotations

import random
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import RetryAction, RetryDecision, RetryPolicy

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

PACKAGE = "airflow_provider_astrobpm"


class AstroZeroRetryPolicy(RetryPolicy):  # type: ignore[misc, unused-ignore]
    """Applies the decision table in ``starting.retry_decision``.

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
        from airflow_provider_astrobpm.starting.retry_decision import decide_retry  # noqa: PLC0415

        after = decide_retry(
            exception,
            is_bad_argument=isinstance(exception, ValueError) and raised_by_this_provider(exception),
            try_number=try_number,
            max_delay=self.max_delay,
            now=time.time(),
            chance=random.random(),  # noqa: S311 - jitter
        )
        return RetryDecision(
            action=RetryAction(after.action.value),
            retry_delay=None if after.delay is None else timedelta(seconds=after.delay),
            reason=after.reason,
        )

    def serialize(self) -> dict[str, Any]:
        """Return the policy as plain JSON."""
        return {"__type": type(self).__name__, "max_delay": self.max_delay}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> AstroZeroRetryPolicy:
        """Restore a policy from the result of ``serialize``."""
        return cls(max_delay=data["max_delay"])


def raised_by_this_provider(error: BaseException) -> bool:
    """Return whether the provider's own code raised an error, as opposed to code that it called.

    The provider raises ``ValueError`` only for bad arguments; the function of a ``@task.astro_bpm`` may do so for any reason.
    """
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = str(trace.tb_frame.f_globals.get("__name__"))
    return module.split(".", 1)[0] == PACKAGE
