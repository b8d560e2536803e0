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
RESCHEDULE_TIMEOUT_SECONDS = 12 * 3600.0
"""How long an outage may last by default before it uses up retries: longer than a night's maintenance, shorter than a day."""


def astro_zero_retry_policy(
    *,
    max_delay: float | timedelta = MAX_DELAY_SECONDS,
    max_reschedules: int | None = None,
    reschedule_timeout: float | timedelta | None = RESCHEDULE_TIMEOUT_SECONDS,
) -> AstroZeroRetryPolicy:
    """Return the ``retry_policy`` for tasks of this provider.

    Refused credentials, settings, names and arguments fail the task at once. A start in doubt is retried soon, because the retry
    searches for the instance. Any other error follows the task's ``retries`` and ``retry_delay``. No policy allows more than
    ``retries``.

    After throttling or an outage, Airflow 3.4 reschedules the task: it runs the same try again, and uses up no retry. The pause
    is at least the task's ``retry_delay``, and as long as the server asks for. Airflow 3.3 retries the task instead, when the
    server asks for it, or else after the task's ``retry_delay``.

    :param max_delay: the longest time in seconds before a retry, even if the server asks for more.
    :param max_reschedules: how often a try may be rescheduled, before an outage uses up retries; ``None`` for no such limit. Each
        poke of a sensor in ``reschedule`` mode counts.
    :param reschedule_timeout: seconds after the first reschedule of a try, after which an outage uses up retries; ``None`` for no
        such limit. If both are ``None``, nothing is rescheduled.
    :raises RuntimeError: before Airflow 3.3.
    """
    longest = validation.seconds(max_delay, "max_delay")
    if max_reschedules is not None:
        validation.count(max_reschedules, "max_reschedules", least=1)
    limit = reschedule_timeout
    if limit is not None:
        limit = validation.seconds(limit, "reschedule_timeout", least=1)
    if not has_retry_policies():
        raise RuntimeError(
            "astro_zero_retry_policy() needs Airflow 3.3 or newer, where tasks have a retry_policy; leave it out, "
            "then retries and retry_delay apply to every failure"
        )
    from airflow_provider_astrobpm.policies.retry import AstroZeroRetryPolicy  # noqa: PLC0415

    return AstroZeroRetryPolicy(max_delay=longest, max_reschedules=max_reschedules, reschedule_timeout=limit)
