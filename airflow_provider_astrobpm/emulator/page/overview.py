"""What the table of instances shows: which of them, in which words. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from airflow_provider_astrobpm.bpm.states import STATES
from airflow_provider_astrobpm.emulator.clock import timestamp
from airflow_provider_astrobpm.emulator.page import formatting
from airflow_provider_astrobpm.emulator.page.badges import badges

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_astrobpm.emulator.catalogue import Definition
    from airflow_provider_astrobpm.emulator.engine import Engine
    from airflow_provider_astrobpm.emulator.instances import Instance
    from airflow_provider_astrobpm.emulator.page.badges import Badge

ROWS_PER_STEP = 100
"""How many instances are shown at first, and how many more at a time: a page of thousands is slow in any browser."""
MAX_ROWS = 1_000
"""How many are shown at most: while a page is made the API waits. Filters lead to the others."""
_MAX_CHARACTERS = 120  # characters of a text in the table


class FilterError(ValueError):
    """An address that asks for something that cannot be shown; the message says what."""


@dataclass(frozen=True)
class OverviewFilter:
    """Which instances are wanted, as the address of the page says.

    :param process: the name of a process; empty for all.
    :param state: a state; empty for all.
    :param show: how many of the newest.
    """

    process: str = ""
    state: str = ""
    show: int = ROWS_PER_STEP

    @classmethod
    def read(cls, query: Mapping[str, str]) -> OverviewFilter:
        """Read the query of an address.

        :raises FilterError: if ``show`` is no number from 1 to ``MAX_ROWS``.
        """
        show = query.get("show", str(ROWS_PER_STEP))
        if not (show.isascii() and show.isdigit() and len(show) < 10 and 1 <= int(show) <= MAX_ROWS):
            raise FilterError(f"show in the address must be a whole number from 1 to {MAX_ROWS}, not {show!r}")
        return cls(query.get("process", ""), query.get("state", ""), int(show))

    @property
    def address(self) -> str:
        """The address that asks for this."""
        given = {"process": self.process, "state": self.state}
        query = {name: value for name, value in given.items() if value}
        if self.show != ROWS_PER_STEP:
            query["show"] = str(self.show)
        return f"/?{urlencode(query)}" if query else "/"

    def admits(self, instance: Instance, engine: Engine) -> bool:
        """Tell whether an instance is wanted: whether one of its badges is the state."""
        return self.process in ("", instance.process.name) and (
            not self.state or self.state in {badge.state for badge in badges(instance, engine)}
        )


@dataclass(frozen=True)
class InstanceRow:
    """An instance in the table.

    :param title: empty where it says no more than the process does.
    :param started: the moment, as the API writes it.
    """

    id: str
    process: str
    title: str
    badges: tuple[Badge, ...]
    bp_status: str
    business_key: str
    age: str
    started: str


@dataclass(frozen=True)
class SelectOption:
    """An option of a list to choose from."""

    value: str
    text: str
    chosen: bool


@dataclass(frozen=True)
class Startable:
    """A version of a process that can be started.

    :param id: its definition's.
    :param variables: the names of those that a start may set.
    """

    id: str
    text: str
    variables: tuple[str, ...]


@dataclass(frozen=True)
class Overview:
    """The whole table.

    :param total: how many instances there are, whatever is asked for.
    :param found: how many are as asked for; the newest of them are the rows.
    :param more: the address that shows more of them; empty if all are shown, or as many as can be.
    :param ahead: by how much the clock was put forward; empty if it was not.
    """

    asked: OverviewFilter
    total: int
    found: int
    rows: tuple[InstanceRow, ...]
    more: str
    processes: tuple[SelectOption, ...]
    states: tuple[SelectOption, ...]
    startable: tuple[Startable, ...]
    ahead: str


def overview(engine: Engine, asked: OverviewFilter, now: float, ahead: float = 0.0) -> Overview:
    """Return what the table shows.

    :param now: seconds since the epoch, by the emulator's clock.
    :param ahead: by how many seconds that was put forward.
    """
    instances = engine.instances()
    found = [instance for instance in reversed(instances) if asked.admits(instance, engine)]
    names = {instance.process.name for instance in instances}
    names |= {definition.process.name for definition in engine.catalogue}
    return Overview(
        asked=asked,
        total=len(instances),
        found=len(found),
        rows=tuple(_row(instance, engine, now) for instance in found[: asked.show]),
        more=replace(asked, show=min(asked.show + ROWS_PER_STEP, MAX_ROWS)).address
        if asked.show < min(len(found), MAX_ROWS)
        else "",
        processes=_choices(sorted(names), asked.process),
        states=_choices(list(STATES), asked.state),
        startable=startable(engine),
        ahead=formatting.age(ahead) if ahead else "",
    )


def startable(engine: Engine) -> tuple[Startable, ...]:
    """Return what can be started, in the order in which the definitions were added."""
    definitions = list(engine.catalogue)
    versions = [definition.process.name for definition in definitions]
    return tuple(
        Startable(definition.id, _naming(definition, versions), _settable_names(definition))
        for definition in definitions
    )


def _naming(definition: Definition, names: list[str]) -> str:
    process = definition.process
    version = f" {process.version}" if names.count(process.name) > 1 else ""
    return formatting.visible(
        f"{process.name}{version}{'' if process.active else ' (not active)'}", _MAX_CHARACTERS
    )


def _settable_names(definition: Definition) -> tuple[str, ...]:
    process = definition.process
    return tuple(
        formatting.visible(name, _MAX_CHARACTERS)
        for name in process.variables
        if name not in process.read_only
    )


def _row(instance: Instance, engine: Engine, now: float) -> InstanceRow:
    title = "" if instance.title == instance.process.label else instance.title
    return InstanceRow(
        id=instance.id,
        process=formatting.visible(instance.process.name, _MAX_CHARACTERS),
        title=formatting.visible(title, _MAX_CHARACTERS),
        badges=badges(instance, engine),
        bp_status=formatting.visible(instance.bp_status, _MAX_CHARACTERS),
        business_key=formatting.visible(instance.business_key, _MAX_CHARACTERS),
        age=formatting.age(now - instance.started),
        started=timestamp(instance.started, engine.switches.utc_offset),
    )


def _choices(values: list[str], chosen: str) -> tuple[SelectOption, ...]:
    """Return the values to choose from; what is asked for is among them even if there is no such thing."""
    also = [chosen] if chosen and chosen not in values else []
    return tuple(
        SelectOption(value, formatting.visible(value, _MAX_CHARACTERS), value == chosen)
        for value in (*values, *also)
    )
