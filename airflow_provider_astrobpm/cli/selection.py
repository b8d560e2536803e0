"""Selects the instances of a command: by ids, or by a filter."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.cli.option_values import states_named
from airflow_provider_astrobpm.cli.runner import say
from airflow_provider_astrobpm.client import listing, search, states, validation
from airflow_provider_astrobpm.client.ages import limits, parse_age
from airflow_provider_astrobpm.client.errors import InstanceNotFoundError
from airflow_provider_astrobpm.client.listing import ALL_INSTANCES, ListingFilter
from airflow_provider_astrobpm.client.wire import row_count, unreadable_in

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence
    from datetime import tzinfo

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook


def filter_from(args: argparse.Namespace, timezone: tzinfo | None, conn_id: str) -> ListingFilter:
    """Return the filter that a command was given. A command need not have all of its options.

    :param timezone: the zone of the API's timestamps, if the connection sets it.
    :param conn_id: the connection, for the error.
    :raises ValueError: if an argument is invalid, or an age is given and the zone is unknown.
    """
    business_key, state = getattr(args, "business_key", None), getattr(args, "state", None)
    if args.bpm_name is not None:
        validation.identifier(args.bpm_name, "--bpm-name")
    if business_key is not None:
        business_key = validation.sought_key(business_key, "--business-key")
    older, younger = (
        None if text is None else parse_age(text, option)
        for text, option in (
            (args.older_than, "--older-than"),
            (getattr(args, "younger_than", None), "--younger-than"),
        )
    )
    return ListingFilter(
        states=states_named(state, "--state") if state else None,
        bpm_name=args.bpm_name,
        business_key=business_key,
        ages=limits(older, younger, timezone=timezone, connection=conn_id),
        now=time.time(),
    )


class Selection(NamedTuple):
    """The instances that a command selected."""

    instances: list[BpmInstance]
    missing: list[InstanceNotFoundError]
    """An error for each given id that does not exist."""


def select(hook: AstroZeroHook, args: argparse.Namespace, otherwise: Sequence[str]) -> Selection:
    """Return the instances that a command selects by ids or by a filter.

    :param otherwise: the states to list if the filter names none.
    :raises ValueError: if neither or both are given, or an argument is invalid. Nothing was sent then.
    """
    wanted = filter_from(args, hook.settings.timezone, args.conn_id)
    if args.instance_ids and wanted != ALL_INSTANCES:
        raise ValueError("give either ids or a filter, not both")
    if args.instance_ids:
        return find_all(hook, args.instance_ids)
    if wanted == ALL_INSTANCES:
        filters = ["--state", "--bpm-name", "--business-key", "--older-than", "--younger-than"]
        if hasattr(args, "orphans"):
            filters.append("--orphans")
        raise ValueError(
            f"name the instances by their ids, or give a filter: {', '.join(filters[:-1])} or {filters[-1]}"
        )
    return Selection(matching(hook, wanted, otherwise), [])


def find_all(hook: AstroZeroHook, ids: Iterable[str]) -> Selection:
    """Return the instances with the given ids, with one search for all of them."""
    sought = dict.fromkeys(validation.identifier(one, "ID") for one in ids)
    search_result = hook.client.run(
        search.find(
            sought,
            lookup=hook.settings.instance_lookup,
            endpoint=search.traits_of_endpoint(hook.settings.base_url),
        )
    )
    selection = Selection([], [])
    for instance_id in sought:
        try:
            selection.instances.append(search_result.instance(instance_id))
        except InstanceNotFoundError as error:
            error.add_context("", hook.settings.connection)
            selection.missing.append(error)
    return selection


def matching(hook: AstroZeroHook, wanted: ListingFilter, otherwise: Sequence[str]) -> list[BpmInstance]:
    """Return the instances that match a filter, and warn if the result may be incomplete.

    :param wanted: the filter.
    :param otherwise: the states to list if the filter names none. Each takes one request.
    :raises KeysNotShownError: if none matches a business key, and no row of any state shows one.
    """
    to_list = otherwise if wanted.states is None else states.states_to_list(wanted.states)
    search_result = hook.client.run(search.find({}, lists=to_list))
    lists = {state: search_result.rows_in(state) for state in to_list}
    # An instance that changed its state between two lists shows twice; the later list counts.
    seen = {one: row for one, row in search_result.rows.items() if one not in search_result.contradictions}
    verdicts = {one.id: wanted.matches(one) for one in seen.values()}
    for state, rows in lists.items():
        for odd in unreadable_in(rows):
            if wanted.may_be(odd):
                which = f"instance {odd.id!r}" if odd.id else "an instance"
                say(
                    f"Warning: skipped the row of {which} in state {state!r}, which cannot be read: {odd.reason}."
                )
        warn_if_truncated(state, rows)
    found = [one for one in seen.values() if verdicts[one.id]]
    if not found and wanted.business_key is not None:
        endpoint = search.traits_of_endpoint(hook.settings.base_url)
        hook.client.run(listing.check_keys_are_shown(lists, wanted, endpoint))
    if doubtful := len(search_result.contradictions):
        say(f"Warning: skipped {counted(doubtful)} because the lists contradict each other.")
    if unknown := sum(verdict is None for verdict in verdicts.values()):
        say(f"Warning: skipped {counted(unknown)} because the start time does not prove the age.")
    return found


def warn_if_truncated(state: str, rows: Sequence[BpmInstance]) -> None:
    """Warn if a list is as long as the lists that servers truncate."""
    if search.may_be_truncated(count := row_count(rows)):
        say(
            f"Warning: Astro Zero listed exactly {count} instances in state {state!r}. The list may be truncated, "
            "and instances may be missing."
        )


def counted(number: int) -> str:
    """Return a number of instances in words."""
    return f"{number} instance{'' if number == 1 else 's'}"
