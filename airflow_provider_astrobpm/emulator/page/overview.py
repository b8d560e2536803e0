"""The view of the instance table: filter the instances and format their rows. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from airflow_provider_astrobpm.client.states import STATES
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
"""The instances shown at first, and added by "Show more". A page of thousands is slow in any browser."""
MAX_ROWS = 1_000
"""The most instances on a page, because the API waits while a page is rendered. Filters give access to the others."""
_MAX_CHARACTERS = 120  # of a text in the table


class FilterError(ValueError):
    """The query of the page's address is invalid; the message says why."""


@dataclass(frozen=True)
class OverviewFilter:
    """The filter in the address of the page.

    :param process: the name of a process; empty for all.
    :param state: a state; empty for all.
    :param show: how many of the newest instances to show.
    """

    process: str = ""
    state: str = ""
    show: int = ROWS_PER_STEP

    @classmethod
    def read(cls, query: Mapping[str, str]) -> OverviewFilter:
        """Read the query of an address.

        :raises FilterError: if ``show`` is not a number from 1 to ``MAX_ROWS``.
        """
        show = query.get("show", str(ROWS_PER_STEP))
        if not (show.isascii() and show.isdigit() and len(show) < 10 and 1 <= int(show) <= MAX_ROWS):
            raise FilterError(
                f"show in the address must be a whole number from 1 to {MAX_ROWS}, not {show!r}"
            )
        return cls(query.get("process", ""), query.get("state", ""), int(show))

    @property
    def address(self) -> str:
        """The address of the page with this filter."""
        given = {"process": self.process, "state": self.state}
        query = {name: value for name, value in given.items() if value}
        if self.show != ROWS_PER_STEP:
            query["show"] = str(self.show)
        return f"/?{urlencode(query)}" if query else "/"

    def admits(self, instance: Instance, engine: Engine) -> bool:
        """Return whether the filter admits an instance. The state filter compares its badges."""
        return self.process in ("", instance.process.name) and (
            not self.state or self.state in {badge.state for badge in badges(instance, engine)}
        )


@dataclass(frozen=True)
class InstanceRow:
    """An instance in the table.

    :param title: the title; empty if it is just the label of the process.
    :param started: the start time, in the API's format.
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
    """An option of a filter."""

    value: str
    text: str
    chosen: bool


@dataclass(frozen=True)
class Startable:
    """A version of a process that can be started.

    :param id: the definition id.
    :param variables: the names of the variables that a start may set.
    """

    id: str
    text: str
    variables: tuple[str, ...]


@dataclass(frozen=True)
class Overview:
    """The view of the instance table.

    :param total: the number of all instances.
    :param found: the number of instances that the filter admits; the rows are the newest of them.
    :param more: the address that shows more of them; empty if all or the maximum are shown.
    :param ahead: by how much the clock was advanced; empty if it was not.
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
    """Return the view of the instance table.

    :param now: seconds since the epoch, by the emulator's clock.
    :param ahead: the seconds by which that clock was advanced.
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
    """Return the processes that can be started, in the order in which their definitions were added."""
    definitions = list(engine.catalogue)
    versions = [definition.process.name for definition in definitions]
    return tuple(
        Startable(
            definition.id,
            _naming(definition, versions),
            tuple(formatting.visible(name, _MAX_CHARACTERS) for name in definition.process.settable),
        )
        for definition in definitions
    )


def _naming(definition: Definition, names: list[str]) -> str:
    process = definition.process
    version = f" {process.version}" if names.count(process.name) > 1 else ""
    return formatting.visible(
        f"{process.name}{version}{'' if process.active else ' (not active)'}", _MAX_CHARACTERS
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
    """Return the options of a filter. The chosen value is included even if it does not exist."""
    also = [chosen] if chosen and chosen not in values else []
    return tuple(
        SelectOption(value, formatting.visible(value, _MAX_CHARACTERS), value == chosen)
        for value in (*values, *also)
    )
