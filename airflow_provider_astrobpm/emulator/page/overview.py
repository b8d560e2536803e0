"""The table of instances: the instances that a filter admits, and the processes that can be started. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from airflow_provider_astrobpm.client.states import STATES
from airflow_provider_astrobpm.emulator.page.formatting import badges

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_astrobpm.emulator.catalogue import Definition
    from airflow_provider_astrobpm.emulator.engine import Engine
    from airflow_provider_astrobpm.emulator.instances import Instance

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
        show = "" if self.show == ROWS_PER_STEP else str(self.show)
        query = {"process": self.process, "state": self.state, "show": show}
        given = urlencode({name: value for name, value in query.items() if value})
        return f"/?{given}" if given else "/"

    def more(self, found: int) -> str:
        """Return the address that shows more of the instances found; empty if all or the maximum are shown."""
        if self.show >= min(found, MAX_ROWS):
            return ""
        return replace(self, show=min(self.show + ROWS_PER_STEP, MAX_ROWS)).address

    def admits(self, instance: Instance, engine: Engine) -> bool:
        """Return whether the filter admits an instance. The state filter compares its badges."""
        return self.process in ("", instance.process.name) and (
            not self.state or self.state in badges(instance, engine)
        )


def overview(engine: Engine, asked: OverviewFilter) -> dict[str, object]:
    """Return the values of the template: among them the instances that a filter admits, newest first."""
    instances = engine.instances()
    names = {each.process.name for each in (*instances, *engine.catalogue)}
    return {
        "engine": engine,
        "asked": asked,
        "total": len(instances),
        "found": [instance for instance in reversed(instances) if asked.admits(instance, engine)],
        "processes": _options(sorted(names), asked.process),
        "states": _options(STATES, asked.state),
        "startable": startable(engine),
        "most": _MAX_CHARACTERS,
    }


def startable(engine: Engine) -> list[tuple[str, Definition]]:
    """Return the definitions that can be started, each with the name that tells it from the others."""
    versions = Counter(each.process.name for each in engine.catalogue)
    named = []
    for each in engine.catalogue:
        process = each.process
        version = f" {process.version}" if versions[process.name] > 1 else ""
        named.append((f"{process.name}{version}{'' if process.active else ' (not active)'}", each))
    return named


def _options(values: Iterable[str], chosen: str) -> list[str]:
    """Return the options of a filter. The chosen value is included even if it does not exist."""
    return list(dict.fromkeys([*values, chosen] if chosen else values))
