"""What is done with instances by themselves, as soon as it can be done: for whoever cannot act while something else waits."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_provider_astrobpm.emulator.instances import Instance
    from airflow_provider_astrobpm.emulator.scripts import Process

Deed = Literal["decide", "break", "suspend", "terminate"]


class Reaction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is done with each instance that it is about.

    ``decide`` takes the outcomes in their order, one each time the instance waits for a person; then nobody decides any
    more. The others are done once, when somebody first looks at the instance after its start.

    :param name: the process.
    :param deed: what is done.
    :param outcomes: what the person decides.
    :param where: only instances whose variables have these values.
    :param business_key: only instances that carry it.
    :param by: who the person is.
    :param variables: what the person fills in.
    """

    name: str
    deed: Deed = "decide"
    outcomes: list[str] = []
    where: dict[str, Any] = {}
    business_key: str | None = None
    by: str = "somebody"
    variables: dict[str, Any] = {}

    def is_about(self, instance: Instance) -> bool:
        """Tell whether an instance is one of those that it is about."""
        return (
            instance.process.name == self.name
            and self.business_key in (None, instance.business_key)
            and all(
                name in instance.variables and instance.variables[name] == value
                for name, value in self.where.items()
            )
        )


class Reactions:
    """The reactions in force. An instance gets the latest that is about it, and no other."""

    def __init__(self) -> None:
        self._in_force: list[Reaction] = []
        self._done: Counter[tuple[int, str]] = Counter()

    def __iter__(self) -> Iterator[Reaction]:
        return iter(self._in_force)

    def add(self, reaction: Reaction) -> None:
        """Put one into force, also for instances that have started already."""
        self._in_force.append(reaction)

    def carry_out(self, instance: Instance, now: float, terminate_state: str) -> None:
        """Do with an instance whatever can be done now.

        :param now: seconds since the epoch; the instance has been settled to it.
        :param terminate_state: the state that terminating yields.
        """
        for number, reaction in reversed(list(enumerate(self._in_force))):
            if reaction.is_about(instance):
                self._carry_out(reaction, (number, instance.id), instance, now, terminate_state)
                return

    def _carry_out(
        self, reaction: Reaction, key: tuple[int, str], instance: Instance, now: float, terminate_state: str
    ) -> None:
        if reaction.deed == "decide":
            for outcome in reaction.outcomes[self._done[key] :]:
                if outcome not in instance.outcomes:
                    return
                self._done[key] += 1
                instance.decide(instance.outcomes[outcome], reaction.by, reaction.variables, now)
                instance.settle(now)
        elif not self._done[key] and not instance.closed:
            self._done[key] += 1
            if reaction.deed == "break":
                instance.break_(now)
            else:
                instance.accept(reaction.deed, terminate_state, now)
                instance.settle(now)


def outcomes_of(processes: Iterable[Process]) -> list[str]:
    """Return every outcome that a step of these processes offers, each once."""
    return list(
        dict.fromkeys(outcome for process in processes for step in process.steps for outcome in step.outcomes)
    )
