"""Reactions: actions that are planned in advance and applied to each matching instance when they are due.

A test plans them because it cannot act while the code under test waits.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from airflow_provider_astrobpm.emulator.instances import Instance
    from airflow_provider_astrobpm.emulator.process_scripts import Process

ReactionAction = Literal["decide", "break", "suspend", "terminate"]

MAX_NAMED_INSTANCES = 3  # in a message about a missed reaction
PAST_PARTICIPLES = {"break": "broken", "suspend": "suspended", "terminate": "terminated"}


class Reaction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An action that is applied to each matching instance.

    ``decide`` chooses one of the outcomes, in their order, each time the instance begins to wait for a person. After the
    last outcome no one decides. The other actions are applied once, ``after`` seconds from the start of the instance. An
    action that is due at the same moment as the end of the script comes before it, and after any other step.

    :param name: the process.
    :param action: the action.
    :param outcomes: the outcomes that the person chooses.
    :param where: match only instances whose variables have these values.
    :param business_key: match only instances with this business key.
    :param by: the name of the person.
    :param variables: the values that the person enters.
    :param after: seconds from the start of the instance; not for ``decide``.
    :param optional: whether it is fine that no instance matches.
    """

    name: str
    action: ReactionAction = "decide"
    outcomes: list[str] = []
    where: dict[str, Any] = {}
    business_key: str | None = None
    by: str = "someone"
    variables: dict[str, Any] = {}
    after: float = 0.0
    optional: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.after) and self.after >= 0):
            raise ValueError(f"after must be 0 or more seconds, not {self.after!r}")
        if self.after and self.action == "decide":
            raise ValueError("a person decides when an instance begins to wait, so after has no effect")

    def matches(self, instance: Instance) -> bool:
        """Return whether the reaction matches an instance."""
        return (
            instance.process.name == self.name
            and self.business_key in (None, instance.business_key)
            and all(
                name in instance.variables and instance.variables[name] == value
                for name, value in self.where.items()
            )
        )


@dataclass(frozen=True)
class _ActiveReaction:
    """An active reaction.

    :param number: the sequence number of the reaction.
    :param since: when it was added, in seconds since the epoch.
    :param first: the number of the first instance that is started after that.
    """

    reaction: Reaction
    number: int
    since: float
    first: int

    def applies_to(self, instance: Instance) -> bool:
        """Return whether it matches an instance, and the instance was still open when the reaction was added."""
        return self.reaction.matches(instance) and (
            instance.number >= self.first or instance.ended is None or instance.ended > self.since
        )


@dataclass(frozen=True)
class DueReaction:
    """A reaction that is due for an instance.

    :param at: when it is due, in seconds since the epoch.
    """

    at: float
    reaction: Reaction
    number: int


class Reactions:
    """The active reactions. Only the latest one that matches an instance applies to it."""

    def __init__(self) -> None:
        self._in_force: list[_ActiveReaction] = []
        self._done: Counter[tuple[int, str]] = Counter()
        self._gone: list[tuple[int, str]] = []

    def __iter__(self) -> Iterator[Reaction]:
        return (each.reaction for each in self._in_force)

    def add(self, reaction: Reaction, *, now: float, first: int) -> None:
        """Add a reaction. It also applies to instances that are already open.

        :param now: seconds since the epoch.
        :param first: the number of the first instance that is started after this.
        """
        self._in_force.append(_ActiveReaction(reaction, len(self._in_force), now, first))

    def next_for(self, instance: Instance) -> DueReaction | None:
        """Return the next reaction for an instance in its current state; ``None`` if there is none."""
        if instance.closed or (found := self._latest(instance)) is None:
            return None
        reaction, done = found.reaction, self._done[found.number, instance.id]
        if reaction.action == "decide":
            if reaction.outcomes[done : done + 1] and reaction.outcomes[done] in instance.outcomes:
                at = instance.changed
            else:
                return None
        elif done:
            return None
        else:
            # The instance may match only since its last change.
            at = max(instance.started + reaction.after, instance.changed)
        return DueReaction(
            at if instance.number >= found.first else max(at, found.since), reaction, found.number
        )

    def carry_out(self, due: DueReaction, instance: Instance, terminate_state: str) -> None:
        """Apply a due reaction to an instance.

        :param terminate_state: the state after terminating.
        """
        reaction = due.reaction
        done = self._done[due.number, instance.id]
        self._done[due.number, instance.id] += 1
        if reaction.action == "decide":
            outcome = instance.outcomes[reaction.outcomes[done]]
            instance.decide(outcome, reaction.by, reaction.variables, due.at)
        elif reaction.action == "break":
            instance.break_(due.at)
        else:
            instance.act(reaction.action, terminate_state, due.at)

    def forget(self, instance: Instance) -> None:
        """Record that an instance was deleted; a reaction that it still had is missed."""
        found = self._latest(instance)
        if found and found.reaction.action != "decide" and not self._done[found.number, instance.id]:
            self._gone.append((found.number, _why_not(instance) or f"{instance.id} was deleted first"))

    def missed_reactions(self, instances: Iterable[Instance], *, final: bool) -> list[str]:
        """Return a message for each reaction that did not happen. Decisions of people are not reported.

        :param instances: all instances, settled.
        :param final: whether the time has run out. Otherwise only reactions that can no longer happen are reported.
        """
        missed: dict[int, list[str]] = {}
        superseded: set[int] = set()
        for number, reason in self._gone:
            missed.setdefault(number, []).append(reason)
        for instance in instances:
            applicable = [each for each in self._in_force if each.applies_to(instance)]
            superseded |= {each.number for each in applicable[:-1]}
            for each in applicable[-1:]:
                if each.reaction.action != "decide" and not self._done[each.number, instance.id]:
                    why = _why_not(instance)
                    if final and why is None:
                        why = f"{instance.id} is in state {instance.state!r}, and the action is not due yet"
                    if why:
                        missed.setdefault(each.number, []).append(why)
        happened = {number for number, _ in self._done}
        return [
            _missed_message(each.reaction, missed.get(each.number, []))
            for each in self._in_force
            if each.reaction.action != "decide"
            and (
                each.number in missed
                or (final and not (each.reaction.optional or each.number in superseded | happened))
            )
        ]

    def _latest(self, instance: Instance) -> _ActiveReaction | None:
        return next((each for each in reversed(self._in_force) if each.applies_to(instance)), None)


def _why_not(instance: Instance) -> str | None:
    if instance.ended is None:
        return None
    seconds = instance.ended - instance.started
    return f"{instance.id} had ended as {instance.state!r} {seconds:.3g} s after its start"


def _missed_message(reaction: Reaction, missed: list[str]) -> str:
    which: Mapping[str, Any] = {
        "business key": reaction.business_key,
        **{f"variable {name}": value for name, value in reaction.where.items()},
    }
    asked = ", ".join(f"{name} {value!r}" for name, value in which.items() if value is not None)
    what = f"each {reaction.name}{f' with {asked}' if asked else ''}"
    plan = f"{what} should have been {PAST_PARTICIPLES[reaction.action]} {reaction.after:g} s after its start"
    if not missed:
        return f"{plan}, but none was started"
    more = f"; and {len(missed) - MAX_NAMED_INSTANCES} more" if len(missed) > MAX_NAMED_INSTANCES else ""
    not_so = f"{len(missed)} of them {'was' if len(missed) == 1 else 'were'} not"
    return f"{plan}, but {not_so}: {'; '.join(missed[:MAX_NAMED_INSTANCES])}{more}"


def outcomes_of(processes: Iterable[Process]) -> list[str]:
    """Return the distinct outcomes that the steps of these processes offer."""
    return list(
        dict.fromkeys(outcome for process in processes for step in process.steps for outcome in step.outcomes)
    )
