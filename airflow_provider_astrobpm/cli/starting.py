"""The command ``start``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_astrobpm.bpm import api, checks
from airflow_provider_astrobpm.bpm.errors import AmbiguousStartError, WaitFailedError
from airflow_provider_astrobpm.cli import output
from airflow_provider_astrobpm.cli.exits import Exit
from airflow_provider_astrobpm.cli.running import say
from airflow_provider_astrobpm.cli.session import connected
from airflow_provider_astrobpm.cli.variables import variables_from

if TYPE_CHECKING:
    import argparse

    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook


def start_instance(args: argparse.Namespace) -> Exit:
    """Start an instance, wait for its end if that is asked for, and print it."""
    start = {
        "version": args.version,
        "variables": variables_from(args.variable, args.variables_file),
        "business_key": args.business_key,
        "title": args.title,
    }
    api.start(args.process, **start)  # bad arguments are told before the connection is looked for
    checks.seconds(args.interval, "--interval", least=checks.SHORTEST_INTERVAL)
    if args.timeout is not None:
        checks.seconds(args.timeout, "--timeout")
    with connected(args.conn_id) as hook:
        _ = hook.settings  # read the connection before anything can be in doubt
        try:
            instance = hook.start_instance(args.process, **start)
        except AmbiguousStartError as error:
            error.advice = _advice(args)
            raise
        except KeyboardInterrupt:
            say(f"Interrupted while the start was under way. {_advice(args)}")
            return Exit.AMBIGUOUS_START
        say(f"Started instance {instance.id!r}.")  # whatever becomes of what follows
        return _wait(hook, instance, args) if args.wait else _show(hook, instance, args)


def _show(hook: AstroZeroHook, instance: BpmInstance, args: argparse.Namespace) -> Exit:
    output.print_instance(hook, instance, args.output)
    return Exit.OK


def _wait(hook: AstroZeroHook, instance: BpmInstance, args: argparse.Namespace) -> Exit:
    say("Waiting for its end.")
    try:
        ended = hook.wait_for_instance(instance, poll_interval=args.interval, timeout=args.timeout)
    except WaitFailedError as failed:
        output.print_instance(hook, failed.instance, args.output)
        raise
    except KeyboardInterrupt:
        say(
            f"Interrupted. Instance {instance.id!r} goes on; it was started, and nothing was done to it since."
        )
        return Exit.INTERRUPTED
    return _show(hook, ended, args)


def _advice(args: argparse.Namespace) -> str:
    sign = f"--business-key {args.business_key}" if args.business_key else f"--process {args.process}"
    return (
        "The instance may or may not have been started, so it was not started again. Before you start it again look for it: "
        f"list --all {sign}"
    )
