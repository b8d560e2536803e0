"""The states as people type them: in any case, and by their first words. Pure."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.bpm.states import STATES

if TYPE_CHECKING:
    from collections.abc import Iterable


def states_named(given: Iterable[str], argument: str) -> frozenset[str]:
    """Return the states that several texts mean; see ``state_named``."""
    return frozenset(state_named(text, argument) for text in given)


def state_named(given: str, argument: str) -> str:
    """Return the state that a text means.

    :param given: the whole name of a state, or its first words where no other state begins with them; in any case.
    :param argument: where it was given, for the error.
    :raises ValueError: if it is none, or could be several; the error names the nearest one.
    """
    words = given.casefold().split()
    meant = [state for state in STATES if state.casefold().split()[: len(words)] == words] if words else []
    whole = [state for state in meant if len(state.split()) == len(words)]
    found = whole or meant
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"{argument} {given!r} may be {' or '.join(map(repr, found))}; give more of its name"
        )
    nearest = _nearest(" ".join(words))
    guess = f"Did you mean {nearest!r}? " if nearest else ""
    raise ValueError(
        f"{argument} must be a state, not {given!r}. {guess}The states are {', '.join(map(repr, STATES))}"
    )


def _nearest(words: str) -> str | None:
    """Return the state whose name, or whose first word, resembles a text most."""
    names: dict[str, str] = {}
    for state in STATES:
        names.setdefault(state.casefold(), state)
        names.setdefault(state.casefold().split()[0], state)
    found = get_close_matches(words, names, n=1)
    return names[found[0]] if found else None
