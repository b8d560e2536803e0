"""The retry policy for tasks of this provider: whether and when a failed task is retried (Airflow 3.3).

DAG files import this module at every parse, on every version of Airflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_astrobpm._airflow.version_compat import has_retry_policies
from airflow_provider_astrobpm.client import validation

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow_provider_astrobpm.policies.retry import AstroZeroRetryPolicy

MAX_DELAY_SECONDS = 3600.0


def astro_zero_retry_policy(*, max_delay: float | timedelta = MAX_DELAY_SECONDS) -> AstroZeroRetryPolicy:
    """Return the ``retry_policy`` for tasks of this provider.

    Refused credentials, settings, names and arguments fail the task at once. After throttling or an outage, the retry comes
    when the server asks for it, or else after the task's ``retry_delay``. A start in doubt is retried soon, because the retry
    searches for the instance. Any other error follows the task's ``retries`` and ``retry_delay``. No policy allows more than
    ``retries``.

    :param max_delay: the longest time in seconds before a retry, even if the server asks for more.
    :raises RuntimeError: before Airflow 3.3.
    """
    longest = validation.seconds(max_delay, "max_delay")
    if not has_retry_policies():
        raise RuntimeError(
            "astro_zero_retry_policy() needs Airflow 3.3 or newer, where tasks have a retry_policy; leave it out, "
            "then retries and retry_delay apply to every failure"
        )
    from airflow_provider_astrobpm.policies.retry import AstroZeroRetryPolicy  # noqa: PLC0415

    return AstroZeroRetryPolicy(max_delay=longest)
