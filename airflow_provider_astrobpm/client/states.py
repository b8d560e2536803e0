"""The states of a BPM instance, and what each means for a wait.

Only this module knows the states. The twelve names are documented (API page 0070, "Querying BPM Instances"), but their
meanings are not. The classes below are inferred from the names and from the documented examples. Only ``Completed OK``
counts as success.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.client import validation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


class StateClass(Enum):
    """What a state means for a wait."""

    ACTIVE = "active"
    WAITING_FOR_PEOPLE = "waiting for people"
    HELD = "held"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"
    BROKEN = "broken"
    UNCLEAR = "unclear"


# A search lists the states in this order. The states in which instances spend most time come first.
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
NOT_FAILED_STATES = tuple(
    state for state, kind in STATES.items() if kind not in {StateClass.CANCELLED, StateClass.BROKEN}
)
"""The states of an instance that is open or has succeeded."""

COMPLETED = "Completed OK"
SUSPENDED = "Suspended"
SHORT_LIVED = "Dispatched"
"""A state that instances leave quickly, so its list is short."""


def class_of(state: str) -> StateClass:
    """Return the class of a state. An unknown name is ``UNCLEAR``, never a success."""
    return STATES.get(state, StateClass.UNCLEAR)


def is_terminal(state: str) -> bool:
    """Return whether an instance in this state has ended."""
    return state in _TERMINAL_STATES


def states_to_list(wanted: Collection[str]) -> tuple[str, ...]:
    """Return the states to list in order to see all instances in the wanted states.

    It is undocumented whether a suspended instance is listed as ``Suspended`` or in the state that it had before.
    """
    also = OPEN_STATES if SUSPENDED in wanted else ()
    return tuple(state for state in STATES if state in wanted or state in also)


def require_known(states: Iterable[str], argument: str) -> frozenset[str]:
    """Check state names, spelled exactly as Astro Zero spells them, and return them as a set.

    :raises ValueError: if a name is not one of the twelve, or if a single string was given.
    """
    chosen = validation.identifiers(states, argument)
    for state in chosen:
        validation.choice(state, argument, STATES)
    return chosen
