"""The commands that change instances: ``suspend``, ``resume``, ``terminate`` and ``set``."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from airflow_provider_astrobpm.batches.bulk_change import BulkChange, change_all
from airflow_provider_astrobpm.cli import output
from airflow_provider_astrobpm.cli.exit_codes import Exit
from airflow_provider_astrobpm.cli.option_values import variables_from
from airflow_provider_astrobpm.cli.runner import connected, say
from airflow_provider_astrobpm.cli.selection import select
from airflow_provider_astrobpm.client import validation
from airflow_provider_astrobpm.client.changes import CHANGES, has_effect
from airflow_provider_astrobpm.client.states import OPEN_STATES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping

    from airflow_provider_astrobpm.client.changes import ChangeName
    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook


def set_variables(args: argparse.Namespace) -> Exit:
    """Set variables of instances."""
    variables = variables_from(args.variable, args.variables, args.variables_file)
    if not variables:
        raise ValueError("give the variables to set: --variable, --variables or --variables-file")
    return _change(args, "set", variables)


def _change(args: argparse.Namespace, action: ChangeName, variables: dict[str, Any] | None = None) -> Exit:
    validation.count(args.max_concurrency, "--max-concurrency", least=1)
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
        summary = asyncio.run(_BulkRun(hook, plan, variables, args.max_concurrency).run())
        for line in (*summary.failures, summary.text):
            say(line)
        return summary.exit or otherwise


suspend = partial(_change, action="suspend")
resume = partial(_change, action="resume")
terminate = partial(_change, action="terminate")


def check_variables(hook: AstroZeroHook, instances: Iterable[BpmInstance], variables: Iterable[str]) -> None:
    """Check that the BPMs of instances have the given variables, with two calls per BPM and version."""
    for instance in {(one.name, one.version): one for one in instances}.values():
        hook.check_variables_of(instance, variables)


def _show(hook: AstroZeroHook, plan: ChangePlan, args: argparse.Namespace) -> None:
    """Print the instances to change, and how many of the others are skipped."""
    output.print_instances(hook, plan.to_change, args.output)
    if plan.skipped:
        say(f"Skipped: {plan.skipped}.")


def _is_confirmed(hook: AstroZeroHook, plan: ChangePlan, args: argparse.Namespace) -> bool:
    """Print the instances to change, and return whether the user confirms.

    :raises ValueError: if there is no terminal to ask on.
    """
    _show(hook, plan, args)
    if args.yes:
        say(plan.count)
        return True
    if not sys.stdin.isatty():
        raise ValueError(
            f"{plan.question} There is no terminal to confirm this on, so nothing was changed; use --yes"
        )
    sys.stderr.write(f"{plan.question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


MAX_LISTED_IDS = 10  # of the instances that were not tried


@dataclass(frozen=True)
class ChangePlan:
    """The instances of a command, by what the action has to do with them.

    :param action: the action.
    :param to_change: the instances to change. The command touches no others.
    :param done_already: the instances that the action would not change.
    :param ended: other instances that have ended.
    """

    action: ChangeName
    to_change: list[BpmInstance] = field(default_factory=list)
    done_already: list[BpmInstance] = field(default_factory=list)
    ended: list[BpmInstance] = field(default_factory=list)

    @property
    def skipped(self) -> str:
        """How many instances are skipped, and why; empty if none is."""
        parts = [
            f"{len(self.done_already)} {'is' if len(self.done_already) == 1 else 'are'} {CHANGES[self.action].already}"
            if self.done_already
            else "",
            f"{len(self.ended)} {'has' if len(self.ended) == 1 else 'have'} ended already"
            if self.ended
            else "",
        ]
        return ", ".join(filter(None, parts))

    @property
    def nothing_to_do(self) -> str:
        """The message if there is nothing to change."""
        return f"Nothing to do: {self.skipped or 'no instance matches'}."

    @property
    def question(self) -> str:
        """The question that asks for confirmation."""
        return f"{self.count.removesuffix('.')}?"

    def dry_run(self, variables: Iterable[str]) -> str:
        """Return the message of a dry run.

        :param variables: the names of the variables to set.
        """
        names = ", ".join(map(repr, variables))
        which = f" to new values of {names}" if names else ""
        return f"Dry run, nothing was changed. Without --dry-run: {self.count.removesuffix('.')}{which}."

    @property
    def count(self) -> str:
        """The action and the number of instances, as a sentence."""
        number = len(self.to_change)
        return f"{CHANGES[self.action].do} {number} instance{'' if number == 1 else 's'}."


def make_plan(instances: Iterable[BpmInstance], action: ChangeName) -> ChangePlan:
    """Sort instances by what an action has to do with them.

    Variables are set in any state, also of instances that have ended: what Astro Zero does then is undocumented, so its
    answer decides.
    """
    plan = ChangePlan(action)
    for instance in instances:
        if CHANGES[action].shows_effect is None:
            plan.to_change.append(instance)
        elif has_effect(instance, action):
            plan.done_already.append(instance)
        elif instance.is_closed:
            plan.ended.append(instance)
        else:
            plan.to_change.append(instance)
    return plan


@dataclass(frozen=True)
class ChangeSummary:
    """The result of carrying out a plan.

    :param plan: the plan.
    :param change: the results, as far as they are known.
    :param interrupted: whether the user pressed Ctrl-C.
    """

    plan: ChangePlan
    change: BulkChange
    interrupted: bool = False

    @property
    def failures(self) -> list[str]:
        """One line for each instance that was not changed as requested, with the reason."""
        names = {one.id: one.name for one in self.plan.to_change}
        return [
            f"Instance {instance_id!r} of {names[instance_id]!r}: {reason.removesuffix('.')}."
            for instance_id, reason in self.change.failed.items()
        ]

    @property
    def unknown(self) -> list[str]:
        """The ids of the instances whose results were still pending when the run was aborted."""
        change = self.change
        reported = {*change.done, *change.ended, *change.failed, *change.not_tried}
        return [one.id for one in self.plan.to_change if one.id not in reported]

    @property
    def text(self) -> str:
        """What was done and what was not."""
        change, total = self.change, len(self.plan.to_change)
        failed = len(change.failed) - len(change.in_doubt)
        parts = [
            f"{CHANGES[change.action].done} {len(change.done)} of {total}",
            f"{len(change.ended)} had ended already" if change.ended else "",
            f"{failed} failed" if failed else "",
            f"{len(change.in_doubt)} unconfirmed" if change.in_doubt else "",
            f"{len(change.not_tried)} not tried" if change.not_tried else "",
            f"{len(self.unknown)} unknown" if self.unknown else "",
        ]
        lines = [f"{'Interrupted. ' if self.interrupted else ''}{', '.join(filter(None, parts))}."]
        if change.stopped_by:
            lines.append(f"Stopped: {change.stopped_by}")
        for ids, words in ((change.not_tried, "Not tried"), (self.unknown, "Unknown")):
            if ids:
                rest = f" and {len(ids) - MAX_LISTED_IDS} more" if len(ids) > MAX_LISTED_IDS else ""
                # If instances do not show the effect, the command would change all of them again.
                can_show = CHANGES[change.action].shows_effect is not None
                advice = " Run the same command again to finish." if can_show else ""
                lines.append(f"{words}: {', '.join(ids[:MAX_LISTED_IDS])}{rest}.{advice}")
        return "\n".join(lines)

    @property
    def exit(self) -> Exit:
        """The exit code."""
        if self.interrupted:
            return Exit.INTERRUPTED
        return Exit.FAILED if self.change.failed or self.change.not_tried or self.unknown else Exit.OK


class _BulkRun:
    """Carries out a plan, many instances at a time, with a progress bar and a handler for Ctrl-C."""

    def __init__(
        self, hook: AstroZeroHook, plan: ChangePlan, variables: Mapping[str, Any] | None, concurrency: int
    ) -> None:
        self._hook = hook
        self._plan = plan
        self._variables = variables
        self._concurrency = concurrency
        self._stopped = False
        self._progress = BulkChange(plan.action)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(plan.action.capitalize(), total=len(plan.to_change))

    async def run(self) -> ChangeSummary:
        work = asyncio.ensure_future(self._change())
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._stop, work)
        try:
            with self._bar:
                change = await work
        except asyncio.CancelledError:
            return ChangeSummary(self._plan, self._progress, interrupted=True)
        finally:
            loop.remove_signal_handler(signal.SIGINT)
        return ChangeSummary(self._plan, change, interrupted=self._stopped)

    async def _change(self) -> BulkChange:
        options: dict[str, Any] = {
            "variables": self._variables,
            "max_concurrency": self._concurrency,
            "log": lambda _note: None,  # the progress bar shows it
            "is_stopped": lambda: self._stopped,
            "progress": self._show,
        }
        async with self._hook.make_async_client(self._hook.settings) as client:
            last_seen = {one.id: one.state for one in self._plan.to_change}
            return await change_all(client, last_seen, self._plan.action, **options)

    def _show(self, progress: BulkChange, finished: int) -> None:
        self._progress = progress
        self._bar.update(self._task, completed=finished)

    def _stop(self, work: asyncio.Future[BulkChange]) -> None:
        """Handle Ctrl-C: the first stops further changes, the second aborts at once."""
        if self._stopped:
            work.cancel()
            return
        self._stopped = True
        say("Stopping after the changes in progress. Press Ctrl-C again to abort at once.")
