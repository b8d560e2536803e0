"""The command ``start``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.cli import output
from airflow_provider_astrobpm.cli.exit_codes import Exit
from airflow_provider_astrobpm.cli.option_values import variables_from
from airflow_provider_astrobpm.cli.runner import connected, say
from airflow_provider_astrobpm.client import operations, validation
from airflow_provider_astrobpm.client.errors import AmbiguousStartError, WaitFailedError

if TYPE_CHECKING:
    import argparse

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook


def start_instance(args: argparse.Namespace) -> Exit:
    """Start an instance, wait for its end if requested, and print it."""
    bpm_name = _bpm_name(args)
    start = {
        "version": args.version,
        "variables": variables_from(args.variable, args.variables, args.variables_file),
        "business_key": args.business_key,
        "title": args.title,
    }
    operations.start(bpm_name, **start)  # reports bad arguments before the connection is read
    validation.seconds(args.poll_interval, "--poll-interval", least=validation.MIN_POLL_INTERVAL_SECONDS)
    if args.timeout is not None:
        validation.seconds(args.timeout, "--timeout")
    with connected(args.conn_id) as hook:
        _ = hook.settings  # read the connection before the start can be in doubt
        if args.check_variables:
            hook.check_variables(bpm_name, start["variables"], version=args.version)
        try:
            instance = hook.start_instance(bpm_name, **start)
        except AmbiguousStartError as error:
            error.advice = _advice(bpm_name, args)
            raise
        except KeyboardInterrupt:
            say(f"Interrupted while the start request was in progress. {_advice(bpm_name, args)}")
            return Exit.AMBIGUOUS_START
        say(f"Started instance {instance.id!r}.")  # now, because the wait may fail
        if args.wait_for_completion:
            return _wait(hook, instance, args)
        output.print_instance(hook, instance, args.output)
        return Exit.OK


def _bpm_name(args: argparse.Namespace) -> str:
    given = [name for name in (args.bpm_name, args.bpm_name_too) if name is not None]
    if len(given) != 1:
        raise ValueError("give the name of the BPM once: start NAME, or start --bpm-name NAME")
    return str(given[0])


def _wait(hook: AstroZeroHook, instance: BpmInstance, args: argparse.Namespace) -> Exit:
    say("Waiting for the instance to end.")
    try:
        ended = hook.wait_for_instance(instance, poll_interval=args.poll_interval, timeout=args.timeout)
    except WaitFailedError as failed:
        output.print_instance(hook, failed.instance, args.output)
        raise
    except KeyboardInterrupt:
        say(f"Interrupted. Instance {instance.id!r} was started and keeps running.")
        return Exit.INTERRUPTED
    output.print_instance(hook, ended, args.output)
    return Exit.OK


def _advice(bpm_name: str, args: argparse.Namespace) -> str:
    selector = ["--business-key", args.business_key] if args.business_key else ["--bpm-name", bpm_name]
    command = shlex.join(["list", "--all", *selector, "--conn-id", args.conn_id])
    return (
        "The instance may or may not have been started, so it was not started again. Check for it before you retry: "
        f"python -m airflow_provider_astrobpm {command}"
    )
