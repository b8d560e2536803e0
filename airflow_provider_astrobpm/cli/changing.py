"""The commands that change instances: ``suspend``, ``resume``, ``terminate`` and ``set``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.bpm import checks
from airflow_provider_astrobpm.bpm.states import OPEN_STATES
from airflow_provider_astrobpm.cli import output
from airflow_provider_astrobpm.cli.exits import Exit
from airflow_provider_astrobpm.cli.plan import make_plan
from airflow_provider_astrobpm.cli.running import say
from airflow_provider_astrobpm.cli.selecting import select
from airflow_provider_astrobpm.cli.session import connected
from airflow_provider_astrobpm.cli.variables import variables_from

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from airflow_provider_astrobpm.bpm.group_change import GroupAction
    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.cli.plan import Plan
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
    from airflow_provider_astrobpm.cli.bulk import carry_out  # noqa: PLC0415 - brings aiohttp in

    outcome = carry_out(hook, plan, variables, concurrency=args.max_concurrency)
    for line in (*outcome.failures, outcome.summary):
        say(line)
    return outcome.exit
