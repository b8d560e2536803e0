"""What tests of the retry policy ask it about."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.policies.bpm import astro_zero_retry_policy


def call_error(kind: type[errors.CallError], **attributes: Any) -> errors.CallError:
    """Return an error of a call.

    :param attributes: its attributes that differ from those of its class.
    """
    error = kind("it went wrong")
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


def judged_for_task(error: BaseException, *, past: Any = 0, retry_delay: float = 0, **limits: Any) -> Any:
    """Return the decision for a task.

    :param past: how often the try was rescheduled before.
    :param retry_delay: the task's own delay, in seconds.
    :param limits: the arguments of the policy.
    """
    task = SimpleNamespace(retry_delay=timedelta(seconds=retry_delay))
    context = cast("Any", {"task": task, "task_reschedule_count": past})
    return astro_zero_retry_policy(**limits).evaluate(error, 1, 5, context)
