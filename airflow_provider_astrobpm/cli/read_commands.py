"""The commands that only read: ``list``, ``show`` and ``definitions``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_astrobpm.bpm.definitions import chosen, nearest, variables_of, why_unknown
from airflow_provider_astrobpm.bpm.states import OPEN_STATES, STATES
from airflow_provider_astrobpm.cli import output
from airflow_provider_astrobpm.cli.exit_codes import Exit
from airflow_provider_astrobpm.cli.runner import connected, say
from airflow_provider_astrobpm.cli.selection import filter_from, matching

if TYPE_CHECKING:
    import argparse


def list_instances(args: argparse.Namespace) -> None:
    """List the instances that a filter means; by default all that have not ended."""
    if args.all and args.state:
        raise ValueError("--all and --state exclude each other")
    with connected(args.conn_id) as hook:
        wanted = filter_from(args, hook.settings.timezone, args.conn_id)
        instances = matching(hook, wanted, tuple(STATES) if args.all else OPEN_STATES)
        output.print_instances(hook, instances, args.output)


def show_instance(args: argparse.Namespace) -> None:
    """Show the instance of an id or of a business key."""
    if (args.instance_id is None) == (args.business_key is None):
        raise ValueError("give the instance's id or its --business-key, one of them")
    if args.instance_id is not None and args.bpm_name is not None:
        raise ValueError("--bpm-name goes with --business-key; an id needs no more")
    with connected(args.conn_id) as hook:
        if args.instance_id is not None:
            instance = hook.get_instance(args.instance_id)
        else:
            instance = hook.find_instance(args.business_key, bpm_name=args.bpm_name)
        output.print_instance(hook, instance, args.output)


def definitions(args: argparse.Namespace) -> Exit:
    """List BPM definitions, or show one with its variables."""
    if args.what:
        return _show_definition(args)
    if args.version is not None:
        raise ValueError("--version goes with show: definitions show NAME --version VERSION")
    if args.like and args.bpm_name is None:
        raise ValueError("--like goes with --bpm-name")
    with connected(args.conn_id) as hook:
        listed = hook.get_definitions(name=args.bpm_name, like=args.like)
        # The query could choose as well, but how it has to be asked to is undocumented.
        shown = [one for one in listed if one.active or not args.enabled]
        output.print_definitions(shown, args.output)
    return Exit.OK


def _show_definition(args: argparse.Namespace) -> Exit:
    """Show the definition of a BPM, and say where it does not tell which variables there are."""
    if len(args.what) != 2 or args.what[0] != "show":
        raise ValueError("say definitions to list them, or definitions show NAME to show one")
    if args.bpm_name is not None or args.like or args.enabled:
        raise ValueError("--bpm-name, --like and --enabled choose what is listed; they do not go with show")
    name = args.what[1]
    with connected(args.conn_id) as hook:
        found = chosen(hook.get_definitions(name=name), name, args.version)
        if isinstance(found, str):
            near = nearest(name, (one.name for one in hook.get_definitions()))
            guess = f" The nearest name that is listed is {near!r}." if near not in (None, name) else ""
            version = f" version {args.version!r}" if args.version else ""
            say(f"BPM {name!r}{version} cannot be shown: {found}.{guess}")
            return Exit.NOT_FOUND
        graph = hook.get_definition(found.id)
        output.print_definition(found, variables_of(graph), args.output)
        if why := why_unknown(graph):
            say(f"Which variables it has cannot be told: {why}.")
    return Exit.OK
