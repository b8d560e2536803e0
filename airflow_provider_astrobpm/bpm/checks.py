"""Checks of arguments, made before anything is sent. Each returns the value, or raises ``ValueError`` naming it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any, Literal, TypeVar

from airflow_provider_astrobpm.bpm.texts import REPLACEMENT, is_storable, storable

T = TypeVar("T")

RENDERED_NOTHING = frozenset({"None", "null", "undefined", "[]", "{}"})
"""The texts that a template renders for a value that is not there, beside a blank one."""
FOUND_NOTHING = "a template renders that where it finds nothing; check what it reads, such as dag_run.conf, params or an XCom"

MOST_SECONDS = 1e9  # some thirty years; operating systems cannot count much further
SHORTEST_INTERVAL = 1.0  # seconds between two looks
SUCCEED_OR_FAIL: tuple[Literal["succeed", "fail"], ...] = ("succeed", "fail")


def text(value: object, argument: str) -> str:
    """Return a text that is not blank and that Airflow's database takes."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{argument} must be a text that is not blank, not {value!r}")
    if not is_storable(value):
        raise ValueError(f"{argument} must be a text without NUL and half surrogate pairs, not {value!r}")
    return value


def identifier(value: object, argument: str) -> str:
    """Return a text by which something is found or told from others: an id, a key, a name, a status or a state.

    A template that finds nothing renders a text all the same, such as ``None``, and another run's template renders the same
    one. So these texts name nothing.
    """
    if isinstance(value, str) and not value.strip():
        raise ValueError(f"{argument} must be a text that is not blank, not {value!r}: {FOUND_NOTHING}")
    checked = text(value, argument)
    if checked.strip() in RENDERED_NOTHING:
        raise ValueError(f"{argument} must not be {value!r}: {FOUND_NOTHING}")
    if REPLACEMENT in checked:
        raise ValueError(
            f"{argument} must not hold U+FFFD, which stands for a character that was lost: {value!r}"
        )
    return checked


def is_id(value: str) -> bool:
    """Return whether a text can be an id: whether it names something, and stays one segment of a path.

    What the server sends as one and cannot be is not taken for one, or a call about it would fail before it is sent.
    """
    if value.isalnum():  # nearly every id is, and ten thousand of them may be asked about
        return value not in RENDERED_NOTHING
    bare = value.strip()
    return bool(bare.strip(".")) and bare not in RENDERED_NOTHING and REPLACEMENT not in value


def given(task: object, arguments: Iterable[str]) -> frozenset[str]:
    """Return the optional arguments that the author of a task gave; to be asked before templates are rendered."""
    return frozenset(argument for argument in arguments if getattr(task, argument) is not None)


def still_given(task: object, arguments: Iterable[str]) -> None:
    """Check that no template came out as ``None``: that would count as not given."""
    for argument in arguments:
        if getattr(task, argument) is None:
            raise ValueError(f"{argument} was given, and came out as None")


def identifiers(values: object, argument: str) -> frozenset[str]:
    """Return several texts, each of which names something.

    One text alone is a likely slip, not a list of letters; an iterator would be empty when it is read again; an empty
    list is what a template may leave of a condition, and must not count as none asked for.
    """
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Collection):
        raise ValueError(f"{argument} must be a list of texts, not {values!r}")
    if not values:
        raise ValueError(f"{argument} must not be empty; leave it out to ask for nothing")
    return frozenset(identifier(value, f"each of {argument}") for value in values)


def statuses(values: object, argument: str) -> frozenset[str]:
    """Return business statuses, without the blanks around them, which do not count."""
    return frozenset(status.strip() for status in identifiers(values, argument))


def seconds(value: object, argument: str, *, least: float = 0) -> float:
    """Return a number of seconds; a ``timedelta`` is one too."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= MOST_SECONDS:
        raise ValueError(
            f"{argument} must be a number of seconds, at least {least:g} and at most {MOST_SECONDS:g}, not {value!r}"
        )
    return value


def poll_interval(value: object) -> float:
    """Return the seconds between two looks."""
    return seconds(value, "poll_interval", least=SHORTEST_INTERVAL)


def count(value: object, argument: str, *, least: int) -> int:
    """Return a whole number."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{argument} must be a whole number, at least {least}, not {value!r}")
    return value


def rate(value: object, argument: str) -> float:
    """Return how often something may happen a second."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= MOST_SECONDS:
        raise ValueError(f"{argument} must be a number a second, more than 0, not {value!r}")
    return value


def number_or_share(value: object, argument: str) -> float:
    """Return a number of things, or a share of them below 1 as a ``float``."""
    if isinstance(value, float) and 0 <= value < 1:
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{argument} must be a whole number, or a share as a float below 1, not {value!r}")
    return value


def choice(value: T, argument: str, choices: Iterable[T]) -> T:
    """Return one of the choices."""
    known = tuple(choices)
    if value not in known:
        raise ValueError(f"{argument} must be one of {', '.join(map(repr, known))}, not {value!r}")
    return value


def names(value: object) -> Mapping[str, Any]:
    """Return a mapping of variable names to whatever values."""
    if not isinstance(value, Mapping):
        raise ValueError(f"variables must be a mapping of names to JSON values, not {type(value).__name__}")
    for name in value:
        text(name, "each name in variables")
    return value


def variables(value: object) -> Mapping[str, Any]:
    """Return a mapping of variable names to values that JSON can hold; the error names the variable."""
    known = names(value)
    for name, content in known.items():
        try:
            json.dumps(content, allow_nan=False)
            is_clean = storable(content) is content
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"variable {name!r} cannot be sent as JSON: {error}") from None
        if not is_clean:
            raise ValueError(f"variable {name!r} must hold no text with a NUL or half a surrogate pair")
    return known


def is_token(value: str) -> bool:
    """Tell whether a text can be a token in a header. It is not raised about: no message may show it."""
    return value.isascii() and value.isprintable() and bool(value) and " " not in value
