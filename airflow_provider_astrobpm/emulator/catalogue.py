"""The BPM definitions that an emulator offers: their versions, and the version that a start runs."""

from __future__ import annotations

import secrets
import string
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.emulator.refusals import Refusal, ResultCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_provider_astrobpm.emulator.process_scripts import Process

_ALPHABET = string.ascii_letters + string.digits


def new_id(prefix: str) -> str:
    """Return a new id as Astro Zero has them: 20 characters, of which the first four name the kind of object."""
    return f"{prefix}000000" + "".join(secrets.choice(_ALPHABET) for _ in range(10))


@dataclass(frozen=True)
class Definition:
    """One version of a process, with its definition id."""

    id: str
    process: Process


class Catalogue:
    """All versions of all processes. Iterates in the order in which they were added."""

    def __init__(self, processes: Iterable[Process]) -> None:
        self._definitions: dict[tuple[str, str], Definition] = {}
        self.add(processes)

    def __iter__(self) -> Iterator[Definition]:
        return iter(self._definitions.values())

    def add(self, processes: Iterable[Process]) -> None:
        """Add processes for instances that are started from now on.

        A process replaces one of the same name and version. Only one version of a process can be active, so adding
        an active version deactivates the others.
        """
        for process in processes:
            for key, other in self._definitions.items():
                if process.active and other.process.name == process.name:
                    self._definitions[key] = replace(other, process=replace(other.process, active=False))
            known = self._definitions.get((process.name, process.version))
            definition = Definition(known.id if known else new_id("001L"), process)
            self._definitions[process.name, process.version] = definition

    def find(self, definition_id: str) -> Definition:
        """Return one definition; refuse an unknown id."""
        for definition in self:
            if definition.id == definition_id:
                return definition
        raise Refusal(ResultCode.UNKNOWN_DEFINITION, f"BPM definition {definition_id} does not exist")

    def to_start(self, name: str, version: str | None) -> Definition:
        """Return the definition that a start runs; refuse the start if there is none.

        :param version: the version, which may be inactive; by default the active version.
        """
        versions = {each.process.version: each for each in self if each.process.name == name}
        if not versions:
            raise Refusal(ResultCode.UNKNOWN_PROCESS, f"BPM {name} does not exist")
        if version is not None:
            if version not in versions:
                raise Refusal(ResultCode.UNKNOWN_VERSION, f"BPM {name} has no version {version}")
            return versions[version]
        for definition in versions.values():
            if definition.process.active:
                return definition
        raise Refusal(ResultCode.NO_ACTIVE_VERSION, f"BPM {name} has no active version")
