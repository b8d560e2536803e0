"""The retry policy as Airflow 3.3 knows it; earlier versions cannot import this module.

Airflow keeps no more of it with a DAG than that there is one. The worker finds it again in the DAG file, and asks it
where the task has failed.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import RetryAction, RetryDecision, RetryPolicy

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

PACKAGE = "airflow_provider_astrobpm"


class AstroZeroRetryPolicy(RetryPolicy):  # type: ignore[misc, unused-ignore]
    """Decides by ``bpm.task_retry``.

    :param max_delay: seconds before a retry at most, where the task's own delay does not count.
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
        """Decide what becomes of a task that has failed."""
        from airflow_provider_astrobpm.bpm.task_retry import after_failure  # noqa: PLC0415

        after = after_failure(
            exception,
            is_bad_argument=isinstance(exception, ValueError) and raised_by_this_provider(exception),
            try_number=try_number,
            max_delay=self.max_delay,
            now=time.time(),
        )
        return RetryDecision(
            action=RetryAction(after.action.value),
            retry_delay=None if after.delay is None else timedelta(seconds=after.delay),
            reason=after.reason,
        )

    def serialize(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {"__type": type(self).__name__, "max_delay": self.max_delay}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> AstroZeroRetryPolicy:
        """Make it again of what ``serialize`` has returned."""
        return cls(max_delay=data["max_delay"])


def raised_by_this_provider(error: BaseException) -> bool:
    """Tell whether the code of this provider has raised an error itself, and nothing that it called.

    It raises ``ValueError`` for bad arguments alone; the function of a ``@task.astro_bpm`` may do so for any reason.
    """
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = str(trace.tb_frame.f_globals.get("__name__"))
    return module.split(".", 1)[0] == PACKAGE
