"""The forms of the page: parse, validate and perform them. No HTTP here.

Input that Astro Zero would silently ignore is an error here, because a person can read the message.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_astrobpm.emulator.engine import BUSINESS_KEY, TITLE
from airflow_provider_astrobpm.emulator.page import formatting
from airflow_provider_astrobpm.emulator.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_astrobpm.emulator.engine import Engine
    from airflow_provider_astrobpm.emulator.instances import Instance
    from airflow_provider_astrobpm.emulator.page.instance_details import Variable
    from airflow_provider_astrobpm.emulator.process_scripts import Process

PERSON = "someone"
NEW_VALUE, SHOWN_VALUE = "set:", "was:"
"""The prefixes of a variable's two fields: its new value, and its value when the page showed it."""

_MAX_QUOTED_CHARACTERS = 200  # of foreign text in an error


class FormError(Exception):
    """A form cannot be performed; the message says why.

    :param field: the name of the invalid field; empty if the error is about no field.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


FORMS: Mapping[str, str] = {
    "complete": "The step was completed.",
    "suspend": "Suspending was accepted.",
    "resume": "Resuming was accepted.",
    "terminate": "Terminating was accepted.",
    "break": "The instance was broken.",
    "variables": "The variables were set.",
}
"""The forms about an instance, each with the message after it was performed."""


def start(engine: Engine, fields: Mapping[str, str]) -> Instance:
    """Start an instance.

    :param fields: ``definition``, and ``business_key``, ``title`` and ``variables``, which may be empty.
    :raises FormError: if a field is invalid, or the start is refused.
    """
    variables = _read(fields.get("variables", "").strip() or "{}", "variables")
    if not isinstance(variables, dict):
        raise FormError('This must be a JSON object, such as {"dataset": "sales_daily"}.', "variables")
    try:
        process = engine.catalogue.find(fields.get("definition", "")).process
    except Refusal as refusal:
        raise FormError(f"{refusal.message}. Choose a process from the list.", "definition") from None
    _check_names(process, variables)
    for name, field in ((BUSINESS_KEY, "business_key"), (TITLE, "title")):
        if fields.get(field, "").strip():
            variables[name] = fields[field].strip()
    try:
        return engine.start(process.name, process.version, variables, PERSON)
    except Refusal as refusal:
        raise FormError(f"{refusal.message}.") from None


def perform(engine: Engine, form: str, instance_id: str, fields: Mapping[str, str]) -> None:
    """Perform a form about an instance.

    :param form: a key of :data:`FORMS`.
    :raises FormError: if it cannot be performed.
    """
    try:
        match form:
            case "complete":
                _complete(engine, instance_id, fields)
            case "break":
                _break(engine, instance_id)
            case "variables":
                _set_variables(engine, instance_id, fields)
            case _:
                engine.act(instance_id, form)
    except Refusal as refusal:
        raise FormError(f"{refusal.message}.") from None


def _complete(engine: Engine, instance_id: str, fields: Mapping[str, str]) -> None:
    """Complete the step that the page showed. The check is needed because the next step may offer the same outcome."""
    now = str(engine.instance(instance_id).entered)
    if fields.get("entered", now) != now:
        raise FormError(
            "The instance has moved on to another step since this page was loaded. Check its current step, and decide again."
        )
    engine.decide(instance_id, fields.get("outcome", ""), PERSON)


def _break(engine: Engine, instance_id: str) -> None:
    if engine.instance(instance_id).closed:
        raise FormError("The instance has ended already.")
    engine.break_(instance_id)


def _set_variables(engine: Engine, instance_id: str, fields: Mapping[str, str]) -> None:
    """Set the variables that the person changed. If one is invalid, set none."""
    instance = engine.instance(instance_id)
    changed: dict[str, Any] = {}
    for field, text in fields.items():
        name = field.removeprefix(NEW_VALUE)
        if field.startswith(NEW_VALUE) and _lines(text) != _lines(fields.get(SHOWN_VALUE + name, "")):
            if name not in instance.process.settable:
                raise FormError(
                    f"The variable {formatting.visible(repr(name), _MAX_QUOTED_CHARACTERS)} cannot be set.",
                    field,
                )
            # Text stays text: it needs no quotes, and 007 stays 007.
            plain = isinstance(instance.variables.get(name), str)
            changed[name] = _lines(text) if plain else _read(text, field)
    if not changed:
        raise FormError("No variable was changed, so there is nothing to set.")
    engine.set_variables(instance_id, changed)


def text_of(variable: Variable, typed: Mapping[str, str]) -> str:
    """Return the text for the field of a variable.

    :param typed: the fields of a form that failed; the person's changes in it are kept.
    """
    new, old = typed.get(NEW_VALUE + variable.name), typed.get(SHOWN_VALUE + variable.name, "")
    return variable.text if new is None or _lines(new) == _lines(old) else new


def _check_names(process: Process, variables: dict[str, Any]) -> None:
    if wrong := [name for name in variables if name not in process.settable]:
        names = formatting.visible(", ".join(map(repr, wrong)), _MAX_QUOTED_CHARACTERS)
        offered = formatting.visible(", ".join(process.settable), _MAX_QUOTED_CHARACTERS) or "no variables"
        raise FormError(f"A start of {process.name} cannot set {names}; it can set {offered}.", "variables")


def _read(text: str, field: str) -> Any:
    try:
        return msgspec.json.decode(text.encode())
    except (msgspec.MsgspecError, RecursionError) as error:
        shown = "it is nested too deeply" if isinstance(error, RecursionError) else _located(str(error), text)
    raise FormError(f"This is not JSON: {shown}.", field)


def _located(error: str, text: str) -> str:
    """Replace the byte position in an error by a line and a column."""
    error = error.removeprefix("JSON is malformed: ")
    found = re.search(r" \(byte (\d+)\)$", error)
    if not found:
        return error
    lines = text.encode()[: int(found[1])].decode(errors="replace").split("\n")
    return f"{error[: found.start()]} (line {len(lines)}, column {len(lines[-1]) + 1})"


def _lines(text: str) -> str:
    """Undo the line ending conversion of browsers."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
