"""Finds the variables of a BPM by its definition. No I/O.

Astro Zero silently ignores variables that a BPM does not have (page 0073). The definition can be read: the list of definitions
(page 0047) shows which version runs, and reading one definition by its id (page 0048) should return what page 0046 creates,
with ``variables``, an array of objects. It is not certain that a definition includes them: the example of page 0048 is long
and we did not see its end. So a definition that lists no variables, or lists them in another form, proves nothing about any
name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_astrobpm.client import operations, validation
from airflow_provider_astrobpm.client.errors import UnknownVariablesError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_astrobpm.client.operations import Flow
    from airflow_provider_astrobpm.client.wire import BpmDefinition

SYSTEM_PREFIX = "$"
"""Prefix of system variables, such as ``$Flow.Title``, which belong to no BPM."""


class Variables(NamedTuple):
    """The variables of a BPM according to its definition."""

    bpm: str
    """The BPM and its version, in words."""
    names: tuple[str, ...] | None = None
    """All their names, or ``None`` if they are unknown."""
    why_unknown: str = ""
    """Why they are unknown, as half a sentence."""

    def check(self, given: Iterable[str]) -> None:
        """Check that the BPM has variables with the given names. If its variables are unknown, the check passes.

        :raises UnknownVariablesError: if it does not have one of them.
        """
        if (names := self.names) is None:
            return
        if unknown := {name: validation.nearest(name, names) for name in own(given) if name not in names}:
            raise UnknownVariablesError(self.bpm, unknown, names)


def own(names: Iterable[str]) -> list[str]:
    """Return the names without those of system variables.

    :raises ValueError: for an invalid name.
    """
    if isinstance(names, (str, bytes)):
        raise ValueError(
            f"variables must be names, or a mapping of names to JSON values, not {validation.shown(names)}"
        )
    checked = (validation.non_blank(name, "each name in variables") for name in names)
    return [name for name in checked if not name.startswith(SYSTEM_PREFIX)]


def variables_of(graph: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the variables that a definition lists, each as Astro Zero sends it.

    :param graph: the definition, read by its id.
    :returns: ``None`` if it lists none, or not in the documented form with a name for each.
    """
    listed = graph.get("variables")
    if not isinstance(listed, list) or not listed:
        return None
    names = [one.get("name") if isinstance(one, dict) else None for one in listed]
    return listed if all(isinstance(name, str) and name.strip() for name in names) else None


def why_unknown(graph: Mapping[str, Any]) -> str:
    """Return why the definition does not show its variables, or an empty text if it does."""
    if variables_of(graph) is not None:
        return ""
    how = "variables in an undocumented form" if graph.get("variables") else "no variables"
    return f"its definition lists {how}"


def chosen(definitions: Sequence[BpmDefinition], bpm_name: str, version: str | None) -> BpmDefinition | str:
    """Return the definition that a start runs, or why it is unknown.

    :param version: the version of the BPM; without it, the enabled one.
    """
    named = [one for one in definitions if one.name == bpm_name]
    if not named:
        return "no definition with this name is listed"
    meant = [one for one in named if (one.active is True if version is None else one.version == version)]
    if len(meant) == 1:
        return meant[0]
    which = "as enabled" if version is None else "under this number"
    versions = ", ".join(one.version or "one without a number" for one in named)
    return f"{'several versions are' if meant else 'no version is'} listed {which} (its versions: {versions})"


def variables(bpm_name: str, version: str | None = None) -> Flow[Variables]:
    """Find the variables of a BPM, with two calls.

    :param version: its version; without it, the enabled one.
    :raises ValueError: for an unusable name or version.
    :raises CallError: if definitions cannot be listed or read.
    """
    bpm = f"BPM {bpm_name!r}"
    if version is not None:
        bpm += f" version {validation.identifier(version, 'version')!r}"
    rows = yield operations.definitions(name=validation.identifier(bpm_name, "bpm_name"))
    found = chosen(rows, bpm_name, version)
    if isinstance(found, str):
        return Variables(bpm, why_unknown=found)
    bpm = f"BPM {bpm_name!r} version {found.version!r}" if found.version else bpm
    graph = yield operations.definition(found.id)
    listed = variables_of(graph)
    if listed is None:
        return Variables(bpm, why_unknown=why_unknown(graph))
    return Variables(bpm, tuple(dict.fromkeys(one["name"] for one in listed)))
