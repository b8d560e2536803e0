"""Variables as a command line gives them: one by one, as JSON, and in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.bpm.variables import plain

if TYPE_CHECKING:
    from collections.abc import Iterable

EXAMPLE = """; write it such as --variables '{"country": "CN"}', or one variable as --variable country=CN"""


def variables_from(given: Iterable[str] | None, text: str | None, file: str | None) -> dict[str, Any]:
    """Return the variables of a command.

    :param given: texts ``name=value``; they come before those of the object.
    :param text: a JSON object; its variables come before those of the file.
    :param file: the path of a JSON file.
    :raises ValueError: if something is no variable, or one is given twice. Values are not repeated: they may be secrets.
    """
    return {
        **(_read(file) if file is not None else {}),
        **(_object(text, "--variables", EXAMPLE) if text is not None else {}),
        **_parse(given or ()),
    }


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
        text = Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"--variables-file cannot be read: {error}") from None
    except UnicodeError:
        raise ValueError(f"--variables-file {file!r} is not JSON") from None
    return _object(text, f"--variables-file {file!r}")


def _object(text: str, where: str, example: str = "") -> dict[str, Any]:
    """Read a JSON object of variables.

    :param where: where it was given, for the error.
    :param example: what to write instead, for the error.
    """
    try:
        content = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise ValueError(f"{where} is not JSON{example}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{where} must be a JSON object of variables and their values{example}")
    return plain(content)
