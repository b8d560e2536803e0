"""Which instances a command is about: a filter, and the states that have to be listed for it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.bpm import checks, states
from airflow_provider_astrobpm.bpm.ages import AgeLimits, limits, parse_age
from airflow_provider_astrobpm.bpm.listing import Wanted
from airflow_provider_astrobpm.cli.state_names import states_named

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable
    from datetime import tzinfo

    from airflow_provider_astrobpm.bpm.instance import BpmInstance


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
