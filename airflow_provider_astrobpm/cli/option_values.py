"""Reads states and variables from the options of a command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.client.states import STATES
from airflow_provider_astrobpm.client.validation import nearest, shown
from airflow_provider_astrobpm.client.variables import json_ready

if TYPE_CHECKING:
    from collections.abc import Iterable


def states_named(given: Iterable[str], argument: str) -> frozenset[str]:
    """Return the states with the given names; see ``state_named``."""
    return frozenset(state_named(text, argument) for text in given)


def state_named(given: str, argument: str) -> str:
    """Return the state with a given name, which may be abbreviated.

    :param given: the name of a state, or its first words if no other state begins with them; in upper or lower case.
    :param argument: the name of the option, for the error.
    :raises ValueError: if no state or several states match; the error suggests the nearest one.
    """
    words = given.casefold().split()
    candidates = (
        [state for state in STATES if state.casefold().split()[: len(words)] == words] if words else []
    )
    exact = [state for state in candidates if len(state.split()) == len(words)]
    found = exact or candidates
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"{argument} {given!r} is ambiguous: it may be {' or '.join(map(repr, found))}. Give more of the name"
        )
    near = nearest(given, STATES)
    guess = f"Did you mean {near!r}? " if near else ""
    raise ValueError(
        f"{argument} must be a state, not {shown(given)}. {guess}The states are {', '.join(map(repr, STATES))}"
    )


_EXAMPLE = """; write it such as --variables '{"country": "CN"}', or one variable as --variable country=CN"""


def variables_from(given: Iterable[str] | None, text: str | None, file: str | None) -> dict[str, Any]:
    """Return the variables that a command was given.

    :param given: texts ``name=value``; they take precedence over the JSON object.
    :param text: a JSON object; it takes precedence over the file.
    :param file: the path of a file with a JSON object.
    :raises ValueError: if an option is malformed, or names a variable twice. The error quotes no values, because they may be
        secrets.
    """
    return {
        **(_read(file) if file is not None else {}),
        **(_object(text, "--variables", _EXAMPLE) if text is not None else {}),
        **_parse(given or ()),
    }


def _parse(given: Iterable[str]) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ValueError("--variable must be NAME=VALUE; one of them has no name or no '='")
        if name in variables:
            raise ValueError(f"variable {name!r} is given twice")
        try:
            variables[name] = json.loads(value, parse_constant=_refuse)
        except (ValueError, RecursionError):
            variables[name] = value
    return variables


def _refuse(constant: str) -> None:
    """Reject ``NaN`` and infinities, which Python's decoder accepts but JSON does not have."""
    raise ValueError(constant)


def _read(file: str) -> dict[str, Any]:
    try:
        text = Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"--variables-file cannot be read: {error}") from None
    except UnicodeError:
        raise ValueError(f"--variables-file {file!r} is not JSON") from None
    return _object(text, f"--variables-file {file!r}")


def _object(text: str, where: str, example: str = "") -> dict[str, Any]:
    """Read a JSON object of variables.

    :param where: the option, for the error.
    :param example: a correct example, for the error.
    """
    try:
        content = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise ValueError(f"{where} is not JSON{example}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{where} must be a JSON object of variables and their values{example}")
    return json_ready(content)
