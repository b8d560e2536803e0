"""Finds the instances that a command is about: by their ids, or by a filter."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.bpm import checks, listing, search
from airflow_provider_astrobpm.bpm.errors import InstanceNotFoundError
from airflow_provider_astrobpm.bpm.shown_keys import ShownKeys
from airflow_provider_astrobpm.bpm.wire import length_of, unreadable_in
from airflow_provider_astrobpm.cli.filters import filter_from
from airflow_provider_astrobpm.cli.running import say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.cli.filters import Filter
    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook


class Selection(NamedTuple):
    """The instances that a command is about."""

    instances: list[BpmInstance]
    missing: list[InstanceNotFoundError]
    """Those that were asked for by their ids and do not exist."""


def select(hook: AstroZeroHook, args: argparse.Namespace, states: Sequence[str]) -> Selection:
    """Find the instances that a command is given by ids or by a filter.

    :param hook: the hook.
    :param args: the arguments of the command.
    :param states: the states to list where the filter does not say which.
    :raises ValueError: for neither of the two, for both, and for a bad argument. Nothing was sent then.
    """
    wanted = filter_from(args, hook.settings.timezone, args.conn_id)
    if args.instance_ids and not wanted.asks_nothing:
        raise ValueError("give the ids of instances or a filter, not both")
    if args.instance_ids:
        return find_all(hook, args.instance_ids)
    if wanted.asks_nothing:
        raise ValueError(
            "say which instances: their ids, or a filter of --state, --bpm-name, --business-key, --older-than and "
            "--younger-than"
        )
    return Selection(matching(hook, wanted, states), [])


def find_all(hook: AstroZeroHook, ids: Iterable[str]) -> Selection:
    """Find instances by their ids, with one search for all of them."""
    sought = dict.fromkeys(checks.identifier(one, "ID") for one in ids)
    findings = hook.client.run(
        search.find(
            sought, lookup=hook.settings.instance_lookup, endpoint=search.endpoint_at(hook.settings.base_url)
        )
    )
    selection = Selection([], [])
    for instance_id in sought:
        try:
            selection.instances.append(findings.instance(instance_id))
        except InstanceNotFoundError as error:
            error.locate("", hook.settings.connection)
            selection.missing.append(error)
    return selection


def matching(hook: AstroZeroHook, wanted: Filter, states: Sequence[str]) -> list[BpmInstance]:
    """List the instances that a filter means, and warn where they may not be all.

    :param hook: the hook.
    :param wanted: the filter.
    :param states: the states to list where the filter does not say which.
    """
    to_list = wanted.states_to_list(states)
    findings = hook.client.run(search.find({}, lists=to_list))
    lists = {state: findings.rows_of(state) for state in to_list}
    now = time.time()
    # An instance that moved from one state to another meanwhile shows twice; the later look counts.
    seen = {one: row for one, row in findings.rows.items() if one not in findings.doubts}
    verdicts = {one.id: wanted.matches(one, now) for one in seen.values()}
    for state, rows in lists.items():
        for odd in unreadable_in(rows):
            if odd.may_be(bpm_name=wanted.bpm_name, business_key=wanted.business_key):
                which = f"instance {odd.id!r}" if odd.id else "an instance"
                say(
                    f"Warning: the row of {which} in state {state!r} cannot be read, because {odd.reason}. It is left out."
                )
        if search.looks_capped(length_of(rows)):
            say(
                f"Warning: Astro Zero listed exactly {length_of(rows)} instances in state {state!r}, which looks cut off. There "
                "may be more than are taken here."
            )
    found = [one for one in seen.values() if verdicts[one.id]]
    if not found and wanted.business_key is not None:
        _check_keys_show(hook, wanted, lists)
    if doubtful := len(findings.doubts):
        say(f"Warning: left out {doubtful} that the lists show in ways that contradict each other.")
    if unknown := sum(verdict is None for verdict in verdicts.values()):
        say(f"Warning: left out {unknown} whose start time does not tell for certain how old they are.")
    return found


def _check_keys_show(hook: AstroZeroHook, wanted: Filter, lists: Mapping[str, Sequence[BpmInstance]]) -> None:
    """Check that lists show business keys, where nothing was found by one.

    :raises KeysNotShownError: if no row of any state shows one.
    """
    endpoint = search.endpoint_at(hook.settings.base_url)
    shown = ShownKeys(shows_any=endpoint.shows_keys)
    for rows in lists.values():
        shown.take(rows)
    hook.client.run(listing.check_keys_show(shown, lists, wanted.in_any_state(), endpoint))
