"""The view of one instance: its state, its variables, its history, and the allowed actions. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from airflow_provider_astrobpm.emulator.clock import timestamp
from airflow_provider_astrobpm.emulator.page import formatting
from airflow_provider_astrobpm.emulator.page.badges import Badge, badge, badges

if TYPE_CHECKING:
    from airflow_provider_astrobpm.emulator.engine import Engine
    from airflow_provider_astrobpm.emulator.instances import Instance

PageAction = Literal["suspend", "resume", "terminate", "break"]

MAX_HISTORY_ROWS = 200
_MAX_CHARACTERS = 2_000  # of a text that is shown, and of a value that can be edited
_LINE_CHARACTERS = 60  # of a value that is edited in a one-line field
_WIDE_LINE_CHARACTERS = 100  # of a line in a larger field


@dataclass(frozen=True)
class Variable:
    """A variable of an instance.

    :param name: the exact name, for the form; ``shown`` is the displayed name.
    :param value: the displayed value.
    :param text: the value in the form.
    :param form: how the value is written: as text or as JSON.
    :param settable: whether a person can set it on the page.
    :param why_not: why it cannot be set; empty if that is obvious.
    :param lines: the number of lines of its field.
    """

    name: str
    shown: str
    value: str
    text: str
    form: Literal["text", "JSON"]
    settable: bool
    why_not: str
    lines: int


@dataclass(frozen=True)
class HistoryRow:
    """A row of the history table.

    :param at: the time, in the API's format.
    """

    at: str
    what: str
    state: Badge
    bp_status: str


@dataclass(frozen=True)
class Details:
    """One instance.

    :param outcomes: the outcomes that a person may choose now.
    :param entered: how many steps it has entered; it identifies the step that a decision is about.
    :param allowed_actions: the other actions that are allowed now.
    :param hidden: whether the API does not show the instance.
    :param lasted: how long it took until its end; empty while it is open.
    :param earlier: how many older history entries are not shown.
    :param zone: the time zone of all times.
    """

    id: str
    process: str
    version: str
    title: str
    badges: tuple[Badge, ...]
    bp_status: str
    bp_step: str
    task_outcome: str
    business_key: str
    created_by: str
    started: str
    age: str
    ended: str
    lasted: str
    hidden: bool
    outcomes: tuple[str, ...]
    entered: int
    allowed_actions: tuple[PageAction, ...]
    variables: tuple[Variable, ...]
    history: tuple[HistoryRow, ...]
    earlier: int
    zone: str

    @property
    def can_set(self) -> bool:
        """Whether a person can set any variable."""
        return any(variable.settable for variable in self.variables)


def details(instance: Instance, engine: Engine, now: float) -> Details:
    """Return the view of an instance.

    :param instance: the instance, settled to ``now``.
    :param now: seconds since the epoch, by the emulator's clock.
    """
    offset = engine.switches.utc_offset
    return Details(
        id=instance.id,
        process=_shown(instance.process.name),
        version=_shown(instance.process.version),
        title=_shown(instance.title),
        badges=badges(instance, engine),
        bp_status=_shown(instance.bp_status),
        bp_step=_shown(instance.bp_step),
        task_outcome=_shown(instance.task_outcome),
        business_key=_shown(instance.business_key),
        created_by=_shown(instance.created_by),
        started=timestamp(instance.started, offset),
        age=formatting.age(now - instance.started),
        ended=timestamp(instance.ended, offset),
        lasted="" if instance.ended is None else formatting.age(instance.ended - instance.started),
        hidden=not engine.shows(instance),
        outcomes=tuple(instance.outcomes),
        entered=instance.entered,
        allowed_actions=allowed_actions(instance, engine),
        variables=tuple(_variable(name, instance, engine) for name in instance.variables),
        history=_history(instance, engine),
        earlier=max(0, len(instance.history) - MAX_HISTORY_ROWS),
        zone=formatting.zone(offset),
    )


def allowed_actions(instance: Instance, engine: Engine) -> tuple[PageAction, ...]:
    """Return the allowed actions, except decisions. The API does not act on instances that it hides."""
    if instance.closed:
        return ()
    if not engine.shows(instance):
        return ("break",)
    return ("resume" if instance.suspended else "suspend", "terminate", "break")


def _variable(name: str, instance: Instance, engine: Engine) -> Variable:
    value = instance.variables[name]
    text = formatting.value_text(value)
    why_not = _why_not(name, text, instance)
    plain = isinstance(value, str)
    several = "\n" in text or len(text) > _LINE_CHARACTERS
    return Variable(
        name=name,
        shown=_shown(name),
        value=_shown(text),
        text=text,
        form="text" if plain else "JSON",
        settable=not (why_not or instance.closed) and engine.shows(instance),
        why_not=why_not,
        lines=min(12, text.count("\n") + 2 + len(text) // _WIDE_LINE_CHARACTERS) if several else 1,
    )


def _why_not(name: str, text: str, instance: Instance) -> str:
    if name not in instance.process.settable:
        declared = name in instance.process.variables
        return "read-only" if declared else "not declared by the process"
    return (
        f"longer than {_MAX_CHARACTERS:,} characters, too long to edit here"
        if len(text) > _MAX_CHARACTERS
        else ""
    )


def _history(instance: Instance, engine: Engine) -> tuple[HistoryRow, ...]:
    offset = engine.switches.utc_offset
    return tuple(
        HistoryRow(
            at=timestamp(event.at, offset),
            what=_shown(event.what),
            state=badge(event.state),
            bp_status=_shown(event.bp_status),
        )
        for event in instance.history[-MAX_HISTORY_ROWS:]
    )


def _shown(text: str) -> str:
    return formatting.visible(text, _MAX_CHARACTERS)
