"""What a bulk command does with the instances it was given, and what it says about that. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.bpm.effect import shows
from airflow_provider_astrobpm.bpm.group_change import DONE
from airflow_provider_astrobpm.cli.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_astrobpm.bpm.group_change import GroupAction, GroupChange
    from airflow_provider_astrobpm.bpm.instance import BpmInstance

WANTED: dict[GroupAction, str] = {
    "suspend": "suspended already",
    "resume": "not suspended",
    "terminate": "terminated already",
    "set": "",
}
"""How an instance is that the action has nothing to do with."""

NAMED = 10  # instances that were not tried and are named


@dataclass(frozen=True)
class Plan:
    """What is to be done with instances.

    :param action: the action.
    :param to_change: those that it is to change; it may touch no others.
    :param wanted: those that are as it wants them.
    :param ended: those that have ended otherwise.
    """

    action: GroupAction
    to_change: list[BpmInstance] = field(default_factory=list)
    wanted: list[BpmInstance] = field(default_factory=list)
    ended: list[BpmInstance] = field(default_factory=list)

    @property
    def spared(self) -> str:
        """How many need nothing, and why; empty if there are none."""
        parts = [
            f"{len(self.wanted)} {'is' if len(self.wanted) == 1 else 'are'} {WANTED[self.action]}"
            if self.wanted
            else "",
            f"{len(self.ended)} {'has' if len(self.ended) == 1 else 'have'} ended already"
            if self.ended
            else "",
        ]
        return ", ".join(filter(None, parts))

    @property
    def nothing_to_do(self) -> str:
        """Why there is nothing to do, where that is so."""
        return f"Nothing to do: {self.spared or 'no instance is meant'}."

    @property
    def question(self) -> str:
        """What a person is asked before anything is changed."""
        return f"{self.count.removesuffix('.')}?"

    def dry_run(self, variables: Iterable[str]) -> str:
        """Say what would have been done, had this not been a dry run.

        :param variables: the names of the variables to set.
        """
        names = ", ".join(map(repr, variables))
        which = f" to new values of {names}" if names else ""
        return f"Dry run, nothing was changed. Without --dry-run: {self.count.removesuffix('.')}{which}."

    @property
    def count(self) -> str:
        """What is to be done with how many, as a sentence."""
        what = "Set the variables of" if self.action == "set" else self.action.capitalize()
        number = len(self.to_change)
        return f"{what} {number} instance{'' if number == 1 else 's'}."


def make_plan(instances: Iterable[BpmInstance], action: GroupAction) -> Plan:
    """Sort instances by what an action has to do with them.

    Variables are set whatever an instance is like: what Astro Zero does with those of one that has ended is
    undocumented, so its answer decides.
    """
    plan = Plan(action)
    for instance in instances:
        if action == "set":
            plan.to_change.append(instance)
        elif shows(instance, action):
            plan.wanted.append(instance)
        elif instance.is_closed:
            plan.ended.append(instance)
        else:
            plan.to_change.append(instance)
    return plan


@dataclass(frozen=True)
class Outcome:
    """What came of a plan.

    :param plan: the plan.
    :param change: what came of each instance that is told of there.
    :param interrupted: whether a person said stop.
    """

    plan: Plan
    change: GroupChange
    interrupted: bool = False

    @property
    def failures(self) -> list[str]:
        """One line for each instance that is not as it should be, with the reason."""
        names = {one.id: one.name for one in self.plan.to_change}
        return [
            f"Instance {instance_id!r} of {names[instance_id]!r}: {reason.removesuffix('.')}."
            for instance_id, reason in self.change.failed.items()
        ]

    @property
    def unknown(self) -> list[str]:
        """The ids of those that were under way, or still to be looked at, when it was broken off."""
        change = self.change
        told = {*change.done, *change.ended, *change.failed, *change.not_tried}
        return [one.id for one in self.plan.to_change if one.id not in told]

    @property
    def summary(self) -> str:
        """What was done and what was not, as a line or two."""
        change, total = self.change, len(self.plan.to_change)
        failed = len(change.failed) - len(change.in_doubt)
        parts = [
            f"{DONE[change.action]} {len(change.done)} of {total}",
            f"{len(change.ended)} had ended already" if change.ended else "",
            f"{failed} failed" if failed else "",
            f"{len(change.in_doubt)} not certain" if change.in_doubt else "",
            f"{len(change.not_tried)} not tried" if change.not_tried else "",
            f"{len(self.unknown)} unknown" if self.unknown else "",
        ]
        lines = [f"{'Interrupted. ' if self.interrupted else ''}{', '.join(filter(None, parts))}."]
        if change.stopped_by:
            lines.append(f"Stopped: {change.stopped_by}")
        for ids, words in ((change.not_tried, "Not tried"), (self.unknown, "Unknown")):
            if ids:
                rest = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
                # Whether a variable was set does not show, so that would be set once more.
                goes_on = "" if change.action == "set" else " The same command goes on with them."
                lines.append(f"{words}: {', '.join(ids[:NAMED])}{rest}.{goes_on}")
        return "\n".join(lines)

    @property
    def exit(self) -> Exit:
        """The exit code."""
        if self.interrupted:
            return Exit.INTERRUPTED
        return Exit.FAILED if self.change.failed or self.change.not_tried or self.unknown else Exit.OK
