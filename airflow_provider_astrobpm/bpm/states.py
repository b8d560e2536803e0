"""The states of a BPM instance, and what each of them means for someone who waits.

This table is the only place that knows them. The twelve names are documented (API page 0070,
"Querying BPM Instances"); what they mean is not, so the classes below follow from the names and from
the documented examples, and only ``Completed OK`` counts as success.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.bpm import checks

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


class StateClass(Enum):
    """What a state means for someone who waits for the instance."""

    ACTIVE = "active"
    WAITING_FOR_PEOPLE = "waiting for people"
    HELD = "held"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"
    BROKEN = "broken"
    UNCLEAR = "unclear"


# The order is the one in which a search asks: where an instance spends its time comes first.
STATES: Mapping[str, StateClass] = MappingProxyType(
    {
        "Waiting for user interaction": StateClass.WAITING_FOR_PEOPLE,
        "Running": StateClass.ACTIVE,
        "Completed OK": StateClass.SUCCEEDED,
        "Terminated": StateClass.CANCELLED,
        "User Terminated": StateClass.CANCELLED,
        "Broken": StateClass.BROKEN,
        "Suspended": StateClass.HELD,
        "Waiting for page event": StateClass.WAITING_FOR_PEOPLE,
        "Dispatched": StateClass.ACTIVE,
        "New": StateClass.ACTIVE,
        "Paused": StateClass.ACTIVE,
        "CompletedOkWait": StateClass.UNCLEAR,
    }
)

TERMINAL_CLASSES = frozenset({StateClass.SUCCEEDED, StateClass.CANCELLED, StateClass.BROKEN})
_TERMINAL_STATES = frozenset(state for state, kind in STATES.items() if kind in TERMINAL_CLASSES)
OPEN_STATES = tuple(state for state, kind in STATES.items() if kind not in TERMINAL_CLASSES)
"""The states of an instance that has not ended."""
NO_BAD_END = tuple(
    state for state, kind in STATES.items() if kind not in {StateClass.CANCELLED, StateClass.BROKEN}
)
"""The states of an instance that has not ended, or has ended well."""

COMPLETED = "Completed OK"
SUSPENDED = "Suspended"
SHORT_LIVED = "Dispatched"
"""A state that instances leave soon, so that its list is short."""


def class_of(state: str) -> StateClass:
    """Return the class of a state; a name that nobody knows is ``UNCLEAR``, never a success."""
    return STATES.get(state, StateClass.UNCLEAR)


def is_terminal(state: str) -> bool:
    """Tell whether an instance in this state has ended."""
    return state in _TERMINAL_STATES


def lists_that_show(wanted: Collection[str]) -> tuple[str, ...]:
    """Return the states to list for all instances in some states.

    Whether a suspended instance is listed as ``Suspended`` or in the state that it was in is undocumented.
    """
    also = OPEN_STATES if SUSPENDED in wanted else ()
    return tuple(state for state in STATES if state in wanted or state in also)


def require_known(states: Iterable[str], argument: str) -> frozenset[str]:
    """Return the states as a set.

    :param states: state names, spelled exactly as Astro Zero spells them.
    :param argument: the argument's name, for the error.
    :raises ValueError: if a name is not one of the twelve, or one string was given instead of several.
    """
    chosen = checks.identifiers(states, argument)
    for state in chosen:
        checks.choice(state, argument, STATES)
    return chosen
