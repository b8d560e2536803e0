"""The page of one instance: its variables, its history, and the allowed actions. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.emulator.page import formatting

if TYPE_CHECKING:
    from airflow_provider_astrobpm.emulator.engine import Engine
    from airflow_provider_astrobpm.emulator.instances import Instance

MAX_HISTORY_ROWS = 200
_MAX_CHARACTERS = 2_000  # of a text that is shown, and of a value that can be edited
_LINE_CHARACTERS = 60  # of a value that is edited in a one-line field
_WIDE_LINE_CHARACTERS = 100  # of a line in a larger field


class Variable(NamedTuple):
    """A variable of an instance, and how the page shows it.

    :param text: the value: text unchanged, everything else as JSON.
    :param why_not: why it cannot be set; empty if that is obvious.
    :param settable: whether a person can set it on the page.
    :param lines: the number of lines of its field.
    """

    name: str
    text: str
    why_not: str
    settable: bool
    lines: int


def details(instance: Instance, engine: Engine) -> dict[str, object]:
    """Return the values of the template."""
    return {
        "engine": engine,
        "instance": instance,
        "allowed_actions": allowed_actions(instance, engine),
        "variables": variables_of(instance, engine),
        "history": instance.history[-MAX_HISTORY_ROWS:],
        "most": _MAX_CHARACTERS,
    }


def allowed_actions(instance: Instance, engine: Engine) -> tuple[str, ...]:
    """Return the allowed actions, except decisions. The API does not act on instances that it hides."""
    if instance.closed:
        return ()
    if not engine.shows(instance):
        return ("break",)
    return ("resume" if instance.suspended else "suspend", "terminate", "break")


def variables_of(instance: Instance, engine: Engine) -> list[Variable]:
    """Return the variables of an instance."""
    can_change = engine.shows(instance) and not instance.closed
    variables = []
    for name, value in instance.variables.items():
        text = formatting.value_text(value)
        why_not = _why_not(name, text, instance)
        lines = min(12, text.count("\n") + 2 + len(text) // _WIDE_LINE_CHARACTERS)
        fits_a_line = "\n" not in text and len(text) <= _LINE_CHARACTERS
        variables.append(
            Variable(name, text, why_not, can_change and not why_not, 1 if fits_a_line else lines)
        )
    return variables


def _why_not(name: str, text: str, instance: Instance) -> str:
    if name not in instance.process.settable:
        return "read-only" if name in instance.process.variables else "not declared by the process"
    if len(text) <= _MAX_CHARACTERS:
        return ""
    return f"longer than {_MAX_CHARACTERS:,} characters, too long to edit here"
