"""Variables as a command line gives them: one by one, and in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.bpm.variables import plain

if TYPE_CHECKING:
    from collections.abc import Iterable


def variables_from(given: Iterable[str] | None, file: str | None) -> dict[str, Any]:
    """Return the variables of a command.

    :param given: texts ``name=value``; they come before those of the file.
    :param file: the path of a JSON file.
    :raises ValueError: if something is no variable, or one is given twice. Values are not repeated: they may be secrets.
    """
    return {**(_read(file) if file is not None else {}), **_parse(given or ())}


def _parse(given: Iterable[str]) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ValueError("--variable must be NAME=VALUE; there is one without a name or without its '='")
        if name in variables:
            raise ValueError(f"variable {name!r} is given twice")
        variables[name] = _value(value)
    return variables


def _value(text: str) -> Any:
    """Return what a text is as JSON, or the text itself."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(constant: str) -> None:
    """Refuse what Python reads and JSON does not have: ``NaN`` and the infinities."""
    raise ValueError(constant)


def _read(file: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise ValueError(f"--variables-file cannot be read: {error}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"--variables-file {file!r} is not JSON") from None
    if not isinstance(content, dict):
        raise ValueError(f"--variables-file {file!r} must be a JSON object of variables and their values")
    return plain(content)
