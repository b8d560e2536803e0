"""Whether an action on an instance has had its effect: for how long that is looked for, and what is said of what is seen.

An action that was accepted, or whose answer was lost, may take a while to show. So the instance is looked at again for a bounded
time, with pauses that grow.
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

FIRST_PAUSE = 1.0  # seconds between the first two looks, doubled with each further one
LONGEST_PAUSE = 15.0  # seconds
MOST_FAILED_LOOKS = 2  # looks in a row that fail, each with all its attempts, after which none follows


def pauses(grace: float) -> Iterator[float]:
    """Yield the seconds between looks for what an action has done: from one look to the last they are ``grace`` in all."""
    pause = FIRST_PAUSE
    while grace > 0:
        step = min(pause, LONGEST_PAUSE, grace)
        yield step
        grace -= step
        pause *= 2


def shows(instance: BpmInstance, action: Action) -> bool:
    """Tell whether an instance is as the action wants it."""
    if action == "terminate":
        return states.class_of(instance.state) is states.StateClass.CANCELLED
    return not instance.is_closed and instance.suspended == (action == "suspend")


def is_settled(instance: BpmInstance, action: Action) -> bool:
    """Tell whether no further look can change what came of an action: it shows, or the instance has ended."""
    return instance.is_closed or shows(instance, action)


def accepted(seen: BpmInstance | AstroZeroError, grace: float) -> str:
    """Return what is said of an action that was accepted and does not show.

    :param seen: the instance as it was seen last, or why it could not be.
    :param grace: the seconds for which was looked.
    """
    if isinstance(seen, InstanceNotFoundError):
        return f"accepted, and yet {seen.problem}"
    if isinstance(seen, AstroZeroError):
        return f"accepted, and then the instance could not be read ({seen.problem})"
    when = f"after {grace:g} s its effect does not show" if grace > 0 else "its effect does not show yet"
    return f"accepted, and {when}: the instance is {how_it_is(seen)}"


def how_it_is(instance: BpmInstance) -> str:
    """Return the state of an instance, as the end of a sentence."""
    return f"{instance.state!r}{', suspended' if instance.suspended else ''}"


def after_all(failure: CallError, seen: BpmInstance | AstroZeroError, grace: float) -> str:
    """Return how an instance is after an action that failed, as the end of a sentence.

    :param failure: how the action failed.
    :param seen: the instance as it was seen last, or why it could not be.
    :param grace: the seconds for which was looked, where it was looked more than once.
    """
    if isinstance(seen, AstroZeroError):
        return f", and then the instance could not be read ({seen.problem})"
    when = f"after {grace:g} s " if failure.may_be_done and grace > 0 else ""
    return f", and {when}the instance is {how_it_is(seen)}"


@dataclass(frozen=True)
class Look:
    """Looks for what an action has done.

    :param instance_id: the instance's id.
    :param action: the action.
    :param find: a plan that finds an instance by its id.
    :param grace: seconds for which is looked; ``None`` for one look.
    """

    instance_id: str
    action: Action | Literal["delete"]
    find: Callable[[str], Plan[BpmInstance]]
    grace: float | None

    def after(self, failure: CallError) -> Plan[BpmInstance | AstroZeroError]:
        """Look after a call that failed: more than once only where it may have been carried out."""
        return self.until(self.grace or 0 if failure.may_be_done else 0)

    def until(self, grace: float) -> Plan[BpmInstance | AstroZeroError]:
        """Look until the effect shows, and return the instance as it was seen last, or why it could not be.

        :param grace: seconds for which is looked.
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
        """Tell whether no further look can change what came of the action."""
        if self.action == "delete":
            return isinstance(seen, InstanceNotFoundError)
        return not isinstance(seen, AstroZeroError) and is_settled(seen, self.action)
