"""Checks whether an action on an instance had its effect: how long to check, and how to describe the result.

An action that was accepted, or whose answer was lost, may take a while to show. So the instance is checked repeatedly for a
limited time, with growing delays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from airflow_provider_astrobpm.bpm import states
from airflow_provider_astrobpm.bpm.api import Pause
from airflow_provider_astrobpm.bpm.errors import AstroZeroError, CallError, InstanceNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_astrobpm.bpm.api import Action, Plan
    from airflow_provider_astrobpm.bpm.instance import BpmInstance

FIRST_DELAY_SECONDS = 1.0  # between the first two checks, doubled for each further one
MAX_DELAY_SECONDS = 15.0
MOST_FAILED_LOOKS = 2  # consecutive failed checks, each with all its attempts, after which checking stops


def pauses(grace: float) -> Iterator[float]:
    """Yield the seconds between checks for the effect of an action. Their sum is ``grace``."""
    pause = FIRST_DELAY_SECONDS
    while grace > 0:
        step = min(pause, MAX_DELAY_SECONDS, grace)
        yield step
        grace -= step
        pause *= 2


def shows(instance: BpmInstance, action: Action) -> bool:
    """Return whether an instance shows the effect of an action."""
    if action == "terminate":
        return states.class_of(instance.state) is states.StateClass.CANCELLED
    return not instance.is_closed and instance.suspended == (action == "suspend")


def is_settled(instance: BpmInstance, action: Action) -> bool:
    """Return whether further checks are useless: the effect shows, or the instance has ended."""
    return instance.is_closed or shows(instance, action)


def accepted(seen: BpmInstance | AstroZeroError, grace: float) -> str:
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


def after_all(failure: CallError, seen: BpmInstance | AstroZeroError, grace: float) -> str:
    """Describe an instance after a failed action, as the end of a sentence.

    :param failure: the error of the action.
    :param seen: the instance as last seen, or the error of the last check.
    :param grace: the seconds for which it was checked, if it was checked more than once.
    """
    if isinstance(seen, AstroZeroError):
        return f", and afterwards the instance could not be read ({seen.problem})"
    when = f"after {grace:g} s " if failure.may_be_done and grace > 0 else ""
    return f", and {when}the instance is {_describe_state(seen)}"


@dataclass(frozen=True)
class Look:
    """Checks an instance for the effect of an action.

    :param instance_id: the instance's id.
    :param action: the action.
    :param find: a flow that finds an instance by its id.
    :param grace: the seconds for which to check; ``None`` to check once.
    """

    instance_id: str
    action: Action | Literal["delete"]
    find: Callable[[str], Plan[BpmInstance]]
    grace: float | None

    def after(self, failure: CallError) -> Plan[BpmInstance | AstroZeroError]:
        """Check after a failed call. Check more than once only if the server may have acted on the call."""
        return self.until(self.grace or 0 if failure.may_be_done else 0)

    def until(self, grace: float) -> Plan[BpmInstance | AstroZeroError]:
        """Check until the effect shows. Return the instance as last seen, or the error of the last check.

        :param grace: the seconds for which to check.
        """
        failed = 0
        for pause in (0.0, *pauses(grace)):
            if pause:
                yield Pause(pause)
            seen = yield from self._once()
            failed = failed + 1 if isinstance(seen, CallError) else 0
            if self.ends(seen) or failed >= MOST_FAILED_LOOKS:
                break
        return seen

    def _once(self) -> Plan[BpmInstance | AstroZeroError]:
        try:
            return (yield from self.find(self.instance_id))
        except (CallError, InstanceNotFoundError) as error:
            return error

    def ends(self, seen: BpmInstance | AstroZeroError) -> bool:
        """Return whether further checks are useless."""
        if self.action == "delete":
            return isinstance(seen, InstanceNotFoundError)
        return not isinstance(seen, AstroZeroError) and is_settled(seen, self.action)
