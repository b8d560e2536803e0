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
from airflow_provider_astrobpm.cli.orphan_selection import StillOrphans, select_orphans
from airflow_provider_astrobpm.cli.runner import connected, say
from airflow_provider_astrobpm.cli.selection import counted, select
from airflow_provider_astrobpm.client import validation
from airflow_provider_astrobpm.client.changes import CHANGES, has_effect
from airflow_provider_astrobpm.client.states import OPEN_STATES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Mapping

    from airflow_provider_astrobpm.cli.selection import Selection
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
            selection = _selection(hook, args)
            plan = make_plan(selection.instances, action)
            for missing in selection.missing:
                say(str(missing))
            otherwise = Exit.NOT_FOUND if selection.missing else Exit.OK
            if not plan.to_change:
                say(f"Nothing to do: {plan.skipped or 'no instance matches'}.")
                return otherwise
            if variables and args.check_variables:
                for instance in {(one.name, one.version): one for one in plan.to_change}.values():
                    hook.check_variables_of(instance, variables)
            output.print_instances(hook, plan.to_change, args.output)
            if plan.skipped:
                say(f"Skipped: {plan.skipped}.")
            if args.dry_run:
                say(plan.dry_run(variables or ()))
                return otherwise
            if not _is_confirmed(plan.count, yes=args.yes):
                say("Nothing was changed.")
                return Exit.NOT_CONFIRMED
        except KeyboardInterrupt:
            say("Interrupted. Nothing was changed.")
            return Exit.INTERRUPTED
        is_wanted = StillOrphans(plan.to_change) if _wants_orphans(args) else lambda _id: True
        summary = asyncio.run(_carry_out(hook, plan, variables, args.max_concurrency, is_wanted))
        for line in (*summary.failures, summary.text):
            say(line)
        return summary.exit or otherwise


suspend = partial(_change, action="suspend")
resume = partial(_change, action="resume")
terminate = partial(_change, action="terminate")


def _selection(hook: AstroZeroHook, args: argparse.Namespace) -> Selection:
    return select_orphans(hook, args) if _wants_orphans(args) else select(hook, args, OPEN_STATES)


def _wants_orphans(args: argparse.Namespace) -> bool:
    return bool(getattr(args, "orphans", False))  # only "terminate" has the option


def _is_confirmed(count: str, *, yes: bool) -> bool:
    """Return whether the user confirms what is to be changed.

    :raises ValueError: if there is no terminal to ask on.
    """
    if yes:
        say(f"{count}.")
        return True
    if not sys.stdin.isatty():
        raise ValueError(
            f"{count}? There is no terminal to confirm this on, so nothing was changed; use --yes"
        )
    sys.stderr.write(f"{count}? [y/N] ")
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
        parts = []
        if done := len(self.done_already):
            parts.append(f"{done} {'is' if done == 1 else 'are'} {CHANGES[self.action].already}")
        if ended := len(self.ended):
            parts.append(f"{ended} {'has' if ended == 1 else 'have'} ended already")
        return ", ".join(parts)

    @property
    def count(self) -> str:
        """The action and the number of instances, as a sentence without its full stop."""
        return f"{CHANGES[self.action].do} {counted(len(self.to_change))}"

    def dry_run(self, variables: Iterable[str]) -> str:
        """Return the message of a dry run.

        :param variables: the names of the variables to set.
        """
        names = ", ".join(map(repr, variables))
        which = f" to new values of {names}" if names else ""
        return f"Dry run, nothing was changed. Without --dry-run: {self.count}{which}."


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


@dataclass
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
        reported = {*change.done, *change.ended, *change.failed, *change.not_tried, *change.left_alone}
        return [one.id for one in self.plan.to_change if one.id not in reported]

    @property
    def text(self) -> str:
        """What was done and what was not."""
        change, row = self.change, CHANGES[self.plan.action]
        others = {
            "had ended already": len(change.ended),
            "left alone": len(change.left_alone),
            "failed": len(change.failed) - len(change.in_doubt),
            "unconfirmed": len(change.in_doubt),
            "not tried": len(change.not_tried),
            "unknown": len(self.unknown),
        }
        parts = [
            f"{row.done} {len(change.done)} of {len(self.plan.to_change)}",
            *(f"{number} {words}" for words, number in others.items() if number),
        ]
        lines = [f"{'Interrupted. ' if self.interrupted else ''}{', '.join(parts)}."]
        if change.left_alone:
            lines.insert(
                0,
                f"Left alone, because their tasks have changed meanwhile: {counted(len(change.left_alone))}.",
            )
        if change.stopped_by:
            lines.append(f"Stopped: {change.stopped_by}")
        # If instances do not show the effect, the command would change all of them again.
        advice = " Run the same command again to finish." if row.shows_effect else ""
        for ids, words in ((change.not_tried, "Not tried"), (self.unknown, "Unknown")):
            if ids:
                rest = f" and {len(ids) - MAX_LISTED_IDS} more" if len(ids) > MAX_LISTED_IDS else ""
                lines.append(f"{words}: {', '.join(ids[:MAX_LISTED_IDS])}{rest}.{advice}")
        return "\n".join(lines)

    @property
    def exit(self) -> Exit:
        """The exit code."""
        if self.interrupted:
            return Exit.INTERRUPTED
        return Exit.FAILED if self.change.failed or self.change.not_tried or self.unknown else Exit.OK


async def _carry_out(
    hook: AstroZeroHook,
    plan: ChangePlan,
    variables: Mapping[str, Any] | None,
    max_concurrency: int,
    is_wanted: Callable[[str], bool],
) -> ChangeSummary:
    """Carry out a plan, with a progress bar. Ctrl-C stops further changes; the second one aborts at once."""
    summary = ChangeSummary(plan, BulkChange(plan.action))
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    task = bar.add_task(plan.action.capitalize(), total=len(plan.to_change))

    def show(progress: BulkChange, finished: int) -> None:
        summary.change = progress
        bar.update(task, completed=finished)

    async def change() -> None:
        async with hook.make_async_client(hook.settings) as client:
            summary.change = await change_all(
                client,
                {one.id: one.state for one in plan.to_change},
                plan.action,
                variables=variables,
                max_concurrency=max_concurrency,
                log=lambda _note: None,  # the progress bar shows it
                is_stopped=lambda: summary.interrupted,
                is_wanted=is_wanted,
                progress=show,
            )

    work = asyncio.ensure_future(change())

    def stop() -> None:
        if summary.interrupted:
            work.cancel()
            return
        summary.interrupted = True
        say("Stopping after the changes in progress. Press Ctrl-C again to abort at once.")

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop)
    try:
        with bar:
            await work
    except asyncio.CancelledError:
        summary.interrupted = True
    finally:
        loop.remove_signal_handler(signal.SIGINT)
    return summary
