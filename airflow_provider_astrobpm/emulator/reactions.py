"""Reactions: actions that are planned in advance and applied to each matching instance when they are due.

A test plans them because it cannot act while the code under test waits.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from airflow_provider_astrobpm.emulator.instances import Instance

ReactionAction = Literal["decide", "break", "suspend", "terminate"]

MAX_NAMED_INSTANCES = 3  # in a message about a missed reaction
PAST_PARTICIPLES = {"break": "broken", "suspend": "suspended", "terminate": "terminated"}


class Reaction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An action that is applied to each matching instance; ``EmulatorControl.react`` describes the fields.

    An action that is due at the same moment as the end of the script comes before it, and after any other step.
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
            and self.where.items() <= instance.variables.items()
        )


@dataclass(eq=False)
class ActiveReaction:
    """An active reaction.

    :param since: when it was added, in seconds since the epoch.
    :param first: the number of the first instance that is started after that.
    :param done: how often it was applied to an instance, by id.
    :param gone: why it was not applied to instances that were deleted.
    """

    reaction: Reaction
    since: float
    first: int
    done: Counter[str] = field(default_factory=Counter)
    gone: list[str] = field(default_factory=list)

    def applies_to(self, instance: Instance) -> bool:
        """Return whether it matches an instance, and the instance was still open when the reaction was added."""
        return self.reaction.matches(instance) and (
            instance.number >= self.first or instance.ended is None or instance.ended > self.since
        )

    def is_missing(self, instance: Instance) -> bool:
        """Return whether it was not applied to an instance. Decisions of people are never missing."""
        return self.reaction.action != "decide" and not self.done[instance.id]

    def apply(self, instance: Instance, at: float, terminate_state: str) -> None:
        """Apply it to an instance.

        :param at: when it is due, in seconds since the epoch.
        :param terminate_state: the state after terminating.
        """
        reaction, done = self.reaction, self.done[instance.id]
        self.done[instance.id] += 1
        if reaction.action == "decide":
            outcome = instance.outcomes[reaction.outcomes[done]]
            instance.decide(outcome, reaction.by, reaction.variables, at)
        elif reaction.action == "break":
            instance.break_(at)
        else:
            instance.act(at, reaction.action, terminate_state)


class Reactions:
    """The active reactions. Only the latest one that matches an instance applies to it."""

    def __init__(self) -> None:
        self._active: list[ActiveReaction] = []

    def __iter__(self) -> Iterator[Reaction]:
        return (each.reaction for each in self._active)

    def add(self, reaction: Reaction, *, since: float, first: int) -> None:
        """Add a reaction; see ``ActiveReaction``. It also applies to instances that are already open."""
        self._active.append(ActiveReaction(reaction, since, first))

    def next_for(self, instance: Instance) -> tuple[float, ActiveReaction | None]:
        """Return when the next reaction is due for an instance in its current state, and the reaction.

        If there is none, return infinity and ``None``.
        """
        found = None if instance.closed else self._latest(instance)
        if found is None:
            return math.inf, None
        outcomes, done = found.reaction.outcomes, found.done[instance.id]
        if found.reaction.action == "decide":
            if done >= len(outcomes) or outcomes[done] not in instance.outcomes:
                return math.inf, None
            at = instance.changed
        elif done:
            return math.inf, None
        else:
            # The instance may match only since its last change.
            at = max(instance.started + found.reaction.after, instance.changed)
        return at if instance.number >= found.first else max(at, found.since), found

    def forget(self, instance: Instance) -> None:
        """Record that an instance was deleted; a reaction that it still had is missed."""
        found = self._latest(instance)
        if found and found.is_missing(instance):
            found.gone.append(_why_not(instance) or f"{instance.id} was deleted first")

    def missed_reactions(self, instances: Iterable[Instance], *, final: bool) -> list[str]:
        """Return a message for each reaction that did not happen. Decisions of people are not reported.

        :param instances: all instances, settled.
        :param final: whether the time has run out. Otherwise only reactions that can no longer happen are reported.
        """
        missed = {each: list(each.gone) for each in self._active if each.reaction.action != "decide"}
        superseded: set[ActiveReaction] = set()
        for instance in instances:
            applicable = [each for each in self._active if each.applies_to(instance)]
            superseded.update(applicable[:-1])
            if applicable and applicable[-1].is_missing(instance):
                why = _why_not(instance)
                if final and why is None:
                    why = f"{instance.id} is in state {instance.state!r}, and the action is not due yet"
                if why:
                    missed[applicable[-1]].append(why)
        return [
            _missed_message(each.reaction, reasons)
            for each, reasons in missed.items()
            if reasons or (final and not (each.reaction.optional or each.done or each in superseded))
        ]

    def _latest(self, instance: Instance) -> ActiveReaction | None:
        return next((each for each in reversed(self._active) if each.applies_to(instance)), None)


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
