"""Checks of arguments, made before anything is sent. Each returns the value, or raises ``ValueError`` naming it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")


def text(value: object, argument: str) -> str:
    """Return a text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{argument} must be a text that is not blank, not {value!r}")
    return value


def texts(values: Iterable[object], argument: str) -> frozenset[str]:
    """Return several texts, none of them blank; one text alone is a likely slip, not a list of letters."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ValueError(f"{argument} must be a list of texts, not {values!r}")
    return frozenset(text(value, f"each of {argument}") for value in values)


def seconds(value: object, argument: str, *, least: float = 0) -> float:
    """Return a number of seconds; a ``timedelta`` is one too."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < float("inf"):
        raise ValueError(f"{argument} must be a number of seconds, at least {least:g}, not {value!r}")
    return value


def choice(value: T, argument: str, choices: Iterable[T]) -> T:
    """Return one of the choices."""
    known = tuple(choices)
    if value not in known:
        raise ValueError(f"{argument} must be one of {', '.join(map(repr, known))}, not {value!r}")
    return value


def variables(value: object) -> Mapping[str, Any]:
    """Return a mapping of variable names to values that JSON can hold; the error names the variable."""
    if not isinstance(value, Mapping):
        raise ValueError(f"variables must be a mapping of names to JSON values, not {type(value).__name__}")
    for name, content in value.items():
        text(name, "each name in variables")
        try:
            json.dumps(content, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"variable {name!r} cannot be sent as JSON: {error}") from None
    return value
