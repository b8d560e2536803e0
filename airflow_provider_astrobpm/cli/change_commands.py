"""The commands that change instances: ``suspend``, ``resume``, ``terminate`` and ``set``."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from airflow_provider_astrobpm.bpm import checks
from airflow_provider_astrobpm.bpm.effect import shows
from airflow_provider_astrobpm.bpm.group_change import DONE, GroupChange, change_all
from airflow_provider_astrobpm.bpm.group_set import set_all
from airflow_provider_astrobpm.bpm.states import OPEN_STATES
from airflow_provider_astrobpm.cli import output
from airflow_provider_astrobpm.cli.arguments import variables_from
from airflow_provider_astrobpm.cli.exit_codes import Exit
from airflow_provider_astrobpm.cli.runner import connected, say
from airflow_provider_astrobpm.cli.selection import select

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping

    from airflow_provider_astrobpm.bpm.group_change import GroupAction
    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook


def suspend(args: argparse.Namespace) -> Exit:
    """Suspend instances."""
    return _change(args, "suspend")


def resume(args: argparse.Namespace) -> Exit:
    """Resume instances."""
    return _change(args, "resume")


def terminate(args: argparse.Namespace) -> Exit:
    """Terminate instances."""
    return _change(args, "terminate")


def set_variables(args: argparse.Namespace) -> Exit:
    """Set variables of instances."""
    variables = variables_from(args.variable, args.variables, args.variables_file)
    if not variables:
        raise ValueError("say which variables to set: --variable, --variables or --variables-file")
    return _change(args, "set", variables)


def _change(args: argparse.Namespace, action: GroupAction, variables: dict[str, Any] | None = None) -> Exit:
    checks.count(args.max_concurrency, "--max-concurrency", least=1)
    with connected(args.conn_id) as hook:
        try:
            selection = select(hook, args, OPEN_STATES)
            plan = make_plan(selection.instances, action)
            for missing in selection.missing:
                say(str(missing))
            otherwise = Exit.NOT_FOUND if selection.missing else Exit.OK
            if not plan.to_change:
                say(plan.nothing_to_do)
                return otherwise
            if variables and args.check_variables:
                check_variables(hook, plan.to_change, variables)
            if args.dry_run:
                _show(hook, plan, args)
                say(plan.dry_run(variables or ()))
                return otherwise
            if not _is_confirmed(hook, plan, args):
                say("Nothing was changed.")
                return Exit.NOT_CONFIRMED
        except KeyboardInterrupt:
            say("Interrupted. Nothing was changed.")
            return Exit.INTERRUPTED
        return _carry_out(hook, plan, variables, args) or otherwise


def check_variables(hook: AstroZeroHook, instances: Iterable[BpmInstance], variables: Iterable[str]) -> None:
    """Check that the BPMs of instances have variables, with two calls for each BPM and version."""
    for instance in {(one.name, one.version): one for one in instances}.values():
        hook.check_variables_of(instance, variables)


def _show(hook: AstroZeroHook, plan: Plan, args: argparse.Namespace) -> None:
    """Show what would be changed, and say what would not."""
    output.print_instances(hook, plan.to_change, args.output)
    if plan.spared:
        say(f"Of the others {plan.spared}.")


def _is_confirmed(hook: AstroZeroHook, plan: Plan, args: argparse.Namespace) -> bool:
    """Show what would be changed, and ask.

    :raises ValueError: if there is nobody to ask.
    """
    _show(hook, plan, args)
    if args.yes:
        say(plan.count)
        return True
    if not sys.stdin.isatty():
        raise ValueError(
            f"{plan.question} There is no terminal to ask at, so nothing was changed; give --yes"
        )
    sys.stderr.write(f"{plan.question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _carry_out(
    hook: AstroZeroHook, plan: Plan, variables: dict[str, Any] | None, args: argparse.Namespace
) -> Exit:
    outcome = asyncio.run(_Bulk(hook, plan, variables, args.max_concurrency).run())
    for line in (*outcome.failures, outcome.summary):
        say(line)
    return outcome.exit


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


class _Bulk:
    def __init__(
        self, hook: AstroZeroHook, plan: Plan, variables: Mapping[str, Any] | None, concurrency: int
    ) -> None:
        self._hook = hook
        self._plan = plan
        self._variables = variables
        self._concurrency = concurrency
        self._stopped = False
        self._so_far = GroupChange(plan.action)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(plan.action.capitalize(), total=len(plan.to_change))

    async def run(self) -> Outcome:
        work = asyncio.ensure_future(self._change())
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._stop, work)
        try:
            with self._bar:
                change = await work
        except asyncio.CancelledError:
            return Outcome(self._plan, self._so_far, interrupted=True)
        finally:
            loop.remove_signal_handler(signal.SIGINT)
        return Outcome(self._plan, change, interrupted=self._stopped)

    async def _change(self) -> GroupChange:
        limits: dict[str, Any] = {
            "max_concurrency": self._concurrency,
            "log": lambda _note: None,  # the bar says it
            "is_stopped": lambda: self._stopped,
            "progress": self._show,
        }
        async with self._hook.make_async_client(self._hook.settings) as client:
            if self._plan.action == "set":
                ids = [one.id for one in self._plan.to_change]
                return await set_all(client, ids, self._variables or {}, **limits)
            last_seen = {one.id: one.state for one in self._plan.to_change}
            return await change_all(client, last_seen, self._plan.action, **limits)

    def _show(self, so_far: GroupChange, through: int) -> None:
        self._so_far = so_far
        self._bar.update(self._task, completed=through)

    def _stop(self, work: asyncio.Future[GroupChange]) -> None:
        """Take Ctrl-C: the first stops what was not begun, the second leaves at once."""
        if self._stopped:
            work.cancel()
            return
        self._stopped = True
        say("Stopping: what is under way comes to its end. Ctrl-C again leaves at once.")
