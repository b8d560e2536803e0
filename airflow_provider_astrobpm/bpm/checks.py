"""Checks of arguments, made before anything is sent. Each returns the value, or raises ``ValueError`` naming it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any, Literal, TypeVar

T = TypeVar("T")

MOST_SECONDS = 1e9  # some thirty years; operating systems cannot count much further
SHORTEST_INTERVAL = 1.0  # seconds between two looks
SUCCEED_OR_FAIL: tuple[Literal["succeed", "fail"], ...] = ("succeed", "fail")


def text(value: object, argument: str) -> str:
    """Return a text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{argument} must be a text that is not blank, not {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{argument} must be a text that can be sent, not {value!r}") from None
    return value


def given(task: object, arguments: Iterable[str]) -> frozenset[str]:
    """Return the optional arguments that the author of a task gave; to be asked before templates are rendered."""
    return frozenset(argument for argument in arguments if getattr(task, argument) is not None)


def still_given(task: object, arguments: Iterable[str]) -> None:
    """Check that no template came out as ``None``: that would count as not given."""
    for argument in arguments:
        if getattr(task, argument) is None:
            raise ValueError(f"{argument} was given, and came out as None")


def texts(values: object, argument: str) -> frozenset[str]:
    """Return several texts, none of them blank.

    One text alone is a likely slip, not a list of letters; an iterator would be empty when it is read again; an empty
    list is what a template may leave of a condition, and must not count as none asked for.
    """
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Collection):
        raise ValueError(f"{argument} must be a list of texts, not {values!r}")
    if not values:
        raise ValueError(f"{argument} must not be empty; leave it out to ask for nothing")
    return frozenset(text(value, f"each of {argument}") for value in values)


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
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"variable {name!r} cannot be sent as JSON: {error}") from None
    return known


def is_token(value: str) -> bool:
    """Tell whether a text can be a token in a header. It is not raised about: no message may show it."""
    return value.isascii() and value.isprintable() and bool(value) and " " not in value
