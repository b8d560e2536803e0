"""Selects the instances of a command: by ids, or by a filter."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.bpm import checks, listing, search, states
from airflow_provider_astrobpm.bpm.ages import AgeLimits, limits, parse_age
from airflow_provider_astrobpm.bpm.errors import InstanceNotFoundError
from airflow_provider_astrobpm.bpm.listing import Wanted
from airflow_provider_astrobpm.bpm.shown_keys import ShownKeys
from airflow_provider_astrobpm.bpm.wire import length_of, unreadable_in
from airflow_provider_astrobpm.cli.arguments import states_named
from airflow_provider_astrobpm.cli.runner import say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import tzinfo

    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook


@dataclass(frozen=True)
class Filter:
    """What an instance has to be to be meant; what is ``None`` is not asked.

    :param states: states, of which it is in one. ``Suspended`` means any instance that is suspended.
    :param bpm_name: the name of its BPM.
    :param business_key: its business key.
    :param ages: how old it is.
    """

    states: frozenset[str] | None = None
    bpm_name: str | None = None
    business_key: str | None = None
    ages: AgeLimits | None = None

    @property
    def asks_nothing(self) -> bool:
        """Whether any instance would be meant."""
        return self == Filter()

    def states_to_list(self, otherwise: Iterable[str]) -> tuple[str, ...]:
        """Return the states to list, each of which costs a request.

        :param otherwise: those to list where the filter does not ask for a state.
        """
        if self.states is None:
            return tuple(otherwise)
        return states.lists_that_show(self.states)

    def matches(self, instance: BpmInstance, now: float) -> bool | None:
        """Tell whether an instance is meant; ``None`` if it would be, and its age cannot be known.

        :param instance: the instance.
        :param now: the time, in seconds since the epoch.
        """
        if self.states is not None and not self.states & instance.shown_states():
            return False
        return self.in_any_state(now).matches(instance)

    def in_any_state(self, now: float = 0.0) -> Wanted:
        """Return what is asked for besides the state.

        :param now: the time, in seconds since the epoch; for ages.
        """
        return Wanted(bpm_name=self.bpm_name, business_key=self.business_key, ages=self.ages, now=now)


def filter_from(args: argparse.Namespace, timezone: tzinfo | None, conn_id: str) -> Filter:
    """Return the filter that a command was given.

    :param args: its arguments.
    :param timezone: the zone of the API's timestamps, if the connection says it.
    :param conn_id: the connection, for the error.
    :raises ValueError: for an argument that is no use, and for an age where the zone is not known.
    """
    for name in ("bpm_name", "business_key"):
        if getattr(args, name) is not None:
            checks.identifier(getattr(args, name), f"--{name.replace('_', '-')}")
    ages = {
        name: parse_age(text, f"--{name.replace('_', '-')}")
        for name in ("older_than", "younger_than")
        if (text := getattr(args, name)) is not None
    }
    return Filter(
        states=states_named(args.state, "--state") if args.state else None,
        bpm_name=args.bpm_name,
        business_key=args.business_key,
        ages=limits(ages.get("older_than"), ages.get("younger_than"), timezone=timezone, connection=conn_id),
    )


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
