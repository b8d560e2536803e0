"""The commands that only read: ``list``, ``show`` and ``definitions``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_astrobpm.cli import output
from airflow_provider_astrobpm.cli.exit_codes import Exit
from airflow_provider_astrobpm.cli.runner import connected, say
from airflow_provider_astrobpm.cli.selection import filter_from, matching
from airflow_provider_astrobpm.client.definitions import chosen, variables_of, why_unknown
from airflow_provider_astrobpm.client.states import OPEN_STATES, STATES
from airflow_provider_astrobpm.client.validation import nearest

if TYPE_CHECKING:
    import argparse


def list_instances(args: argparse.Namespace) -> None:
    """List the instances that match a filter; by default, all that have not ended."""
    if args.all and args.state:
        raise ValueError("give --all or --state, not both")
    with connected(args.conn_id) as hook:
        wanted = filter_from(args, hook.settings.timezone, args.conn_id)
        instances = matching(hook, wanted, tuple(STATES) if args.all else OPEN_STATES)
        output.print_instances(hook, instances, args.output)


def show_instance(args: argparse.Namespace) -> None:
    """Show the instance with an id or a business key."""
    if (args.instance_id is None) == (args.business_key is None):
        raise ValueError("give either the id of an instance or its --business-key")
    if args.instance_id is not None and args.bpm_name is not None:
        raise ValueError("--bpm-name is for --business-key; do not combine it with an id")
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
        raise ValueError("--version is for show: definitions show NAME --version VERSION")
    if args.like and args.bpm_name is None:
        raise ValueError("--like requires --bpm-name")
    with connected(args.conn_id) as hook:
        listed = hook.get_definitions(name=args.bpm_name, like=args.like)
        # The API could filter them too, but the query parameter for it is undocumented.
        shown = [one for one in listed if one.active or not args.enabled]
        output.print_definitions(shown, args.output)
    return Exit.OK


def _show_definition(args: argparse.Namespace) -> Exit:
    """Show the definition of a BPM, with a note if its variables are unknown."""
    if len(args.what) != 2 or args.what[0] != "show":
        raise ValueError("the command is definitions, to list them, or definitions show NAME, to show one")
    if args.bpm_name is not None or args.like or args.enabled:
        raise ValueError("--bpm-name, --like and --enabled filter a list; do not combine them with show")
    name = args.what[1]
    with connected(args.conn_id) as hook:
        found = chosen(hook.get_definitions(name=name), name, args.version)
        if isinstance(found, str):
            near = nearest(name, (one.name for one in hook.get_definitions()))
            guess = f" The most similar name in the list is {near!r}." if near not in (None, name) else ""
            version = f" version {args.version!r}" if args.version else ""
            say(f"BPM {name!r}{version} cannot be shown: {found}.{guess}")
            return Exit.NOT_FOUND
        graph = hook.get_definition(found.id)
        output.print_definition(found, variables_of(graph), args.output)
        if why := why_unknown(graph):
            say(f"Its variables are unknown: {why}.")
    return Exit.OK
