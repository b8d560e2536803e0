"""Checks whether an action on an instance had its effect: how long to check, and how to describe the result.

An action that was accepted, or whose answer was lost, may take a while to show. So the instance is checked repeatedly for a
limited time, with growing delays.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from airflow_provider_astrobpm.client import states
from airflow_provider_astrobpm.client.backoff import Backoff
from airflow_provider_astrobpm.client.errors import AstroZeroError, CallError, InstanceNotFoundError
from airflow_provider_astrobpm.client.operations import Sleep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.operations import Action, Flow

CHECKS = Backoff(first=1, longest=15)
MAX_FAILED_CHECKS = 2  # consecutive failed checks, each with all its attempts, after which checking stops


def check_delays(grace: float, backoff: Backoff = CHECKS) -> Iterator[float]:
    """Yield the seconds between checks for the effect of an action. Their sum is ``grace``."""
    checks = 0
    while grace > 0:
        checks += 1
        pause = min(grace, backoff.pause(checks, random.random()))  # noqa: S311 - jitter
        yield pause
        grace -= pause


def has_effect(instance: BpmInstance, action: Action) -> bool:
    """Return whether an instance shows the effect of an action."""
    if action == "terminate":
        return states.class_of(instance.state) is states.StateClass.CANCELLED
    return not instance.is_closed and instance.suspended == (action == "suspend")


def is_settled(instance: BpmInstance, action: Action) -> bool:
    """Return whether further checks are useless: the effect shows, or the instance has ended."""
    return instance.is_closed or has_effect(instance, action)


def describe_accepted(seen: BpmInstance | AstroZeroError, grace: float) -> str:
    """Describe an action that was accepted but has no visible effect.

    :param seen: the instance as last seen, or the error of the last check.
    :param grace: the seconds for which it was checked.
    """
    if isinstance(seen, InstanceNotFoundError):
        return f"accepted, but {seen.problem}"
    if isinstance(seen, AstroZeroError):
        return f"accepted, but then the instance could not be read ({seen.problem})"
    when = f"shows no effect after {grace:g} s" if grace > 0 else "shows no effect yet"
    return f"accepted, but {when}: the instance is {_describe_state(seen)}"


def _describe_state(instance: BpmInstance) -> str:
    """Describe the state of an instance, as the end of a sentence."""
    return f"{instance.state!r}{', suspended' if instance.suspended else ''}"


def describe_after_failure(failure: CallError, seen: BpmInstance | AstroZeroError, grace: float) -> str:
    """Describe an instance after a failed action, as the end of a sentence.

    :param failure: the error of the action.
    :param seen: the instance as last seen, or the error of the last check.
    :param grace: the seconds for which it was checked, if it was checked more than once.
    """
    if isinstance(seen, AstroZeroError):
        return f", and afterwards the instance could not be read ({seen.problem})"
    when = f"after {grace:g} s " if failure.may_have_been_processed and grace > 0 else ""
    return f", and {when}the instance is {_describe_state(seen)}"


@dataclass(frozen=True)
class EffectCheck:
    """Checks an instance for the effect of an action.

    :param instance_id: the instance's id.
    :param action: the action.
    :param find: a flow that finds an instance by its id.
    :param grace: the seconds for which to check; ``None`` to check once.
    """

    instance_id: str
    action: Action | Literal["delete"]
    find: Callable[[str], Flow[BpmInstance]]
    grace: float | None

    def after(self, failure: CallError) -> Flow[BpmInstance | AstroZeroError]:
        """Check after a failed call. Check more than once only if the server may have acted on the call."""
        return self.until(self.grace or 0 if failure.may_have_been_processed else 0)

    def until(self, grace: float) -> Flow[BpmInstance | AstroZeroError]:
        """Check until the effect shows. Return the instance as last seen, or the error of the last check.

        :param grace: the seconds for which to check.
        """
        failed = 0
        for pause in (0.0, *check_delays(grace)):
            if pause:
                yield Sleep(pause)
            seen = yield from self._once()
            failed = failed + 1 if isinstance(seen, CallError) else 0
            if self.ends(seen) or failed >= MAX_FAILED_CHECKS:
                break
        return seen

    def _once(self) -> Flow[BpmInstance | AstroZeroError]:
        try:
            return (yield from self.find(self.instance_id))
        except (CallError, InstanceNotFoundError) as error:
            return error

    def ends(self, seen: BpmInstance | AstroZeroError) -> bool:
        """Return whether further checks are useless."""
        if self.action == "delete":
            return isinstance(seen, InstanceNotFoundError)
        return not isinstance(seen, AstroZeroError) and is_settled(seen, self.action)
