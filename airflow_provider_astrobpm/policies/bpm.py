"""What becomes of a task after a failure, by what it has failed over (Airflow 3.3).

DAG files import this module at every parse, on every version of Airflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_astrobpm._airflow.version_compat import has_retry_policies
from airflow_provider_astrobpm.bpm import checks

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow_provider_astrobpm.policies.retry import AstroZeroRetryPolicy

LONGEST_DELAY = 3600.0  # seconds


def astro_zero_retry_policy(*, max_delay: float | timedelta = LONGEST_DELAY) -> AstroZeroRetryPolicy:
    """Return the ``retry_policy`` for tasks of this provider.

    Refused credentials, settings, names and arguments fail the task at once. Throttling and outages are retried when the
    server asks for it, otherwise after the task's ``retry_delay``; a start in doubt soon, because the retry looks for the
    instance. Anything else is as the task's ``retries`` and ``retry_delay`` say. No policy allows more than ``retries``.

    :param max_delay: seconds before a retry at most, however long the server asks to wait.
    :raises RuntimeError: before Airflow 3.3.
    """
    longest = checks.seconds(max_delay, "max_delay")
    if not has_retry_policies():
        raise RuntimeError(
            "astro_zero_retry_policy() needs Airflow 3.3 or newer, where tasks have a retry_policy; leave it out here, "
            "then every failure is retried as retries and retry_delay say"
        )
    from airflow_provider_astrobpm.policies.retry import AstroZeroRetryPolicy  # noqa: PLC0415

    return AstroZeroRetryPolicy(max_delay=longest)
