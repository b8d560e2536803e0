"""What commands print: tables, JSON, YAML and plain columns, as Airflow's own commands do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from airflow.cli.simple_table import AirflowConsole
from rich.markup import escape
from tabulate import tabulate  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.bpm.wire import BpmDefinition
    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook

INSTANCE_COLUMNS = ("id", "name", "version", "state", "suspended", "bp_status", "business_key", "start_time")
DEFINITION_COLUMNS = ("name", "version", "label", "active", "status", "id")
NARROW = ("table", "plain")  # formats for people, which show the columns above; the others show everything


class Console(AirflowConsole):
    """Airflow's console, for texts that somebody else has written, and for values that keep their types."""

    def print_as(self, data: Sequence[dict[str, Any]], output: str, mapper: Any = None) -> None:
        """Print rows; JSON and YAML have numbers, booleans and null, of which Airflow makes texts."""
        if output == "json":
            self.print_as_json(msgspec.to_builtins(data))
        elif output == "yaml":
            self.print_as_yaml(msgspec.to_builtins(data))
        else:
            super().print_as(data, output, mapper)

    def print_as_table(self, data: list[dict[str, Any]]) -> None:
        """Print a table; what looks like markup in it is none."""
        super().print_as_table([{key: escape(str(value)) for key, value in row.items()} for row in data])

    def print_as_plain_table(self, data: list[dict[str, Any]]) -> None:
        """Print columns; a business key such as ``007`` is no number."""
        if not data:
            super().print_as_plain_table(data)
            return
        rows = [list(row.values()) for row in data]
        self.print(
            tabulate(rows, tablefmt="plain", headers=list(data[0]), disable_numparse=True),
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def print_instances(hook: AstroZeroHook, instances: Sequence[BpmInstance], output: str) -> None:
    """Print a list of instances.

    :param hook: the hook of the connection, whose time zone and addresses count.
    :param instances: the instances.
    :param output: the format.
    """
    _print([instance_row(hook, instance) for instance in instances], output, INSTANCE_COLUMNS)


def print_instance(hook: AstroZeroHook, instance: BpmInstance, output: str) -> None:
    """Print one instance with all that is known of it; the parameters are those of ``print_instances``."""
    row = instance_row(hook, instance)
    if output in NARROW:
        _print_properties(row, output)
    else:
        Console().print_as([row], output)


def print_definitions(definitions: Sequence[BpmDefinition], output: str) -> None:
    """Print a list of BPM definitions."""
    _print([msgspec.structs.asdict(each) for each in definitions], output, DEFINITION_COLUMNS)


def print_definition(
    definition: BpmDefinition, variables: Sequence[dict[str, Any]] | None, output: str
) -> None:
    """Print one BPM definition with its variables.

    :param definition: the definition, as it is listed.
    :param variables: its variables as they are sent, each with its name; ``None`` where it lists none.
    :param output: the format.
    """
    row = msgspec.structs.asdict(definition)
    if output not in NARROW:
        Console().print_as([{**row, "variables": variables}], output)
        return
    _print_properties(row, output)
    if variables:
        columns = dict.fromkeys(["name", *(key for one in variables for key in one)])
        Console().print_as([{key: one.get(key) for key in columns} for one in variables], output)


def instance_row(hook: AstroZeroHook, instance: BpmInstance) -> dict[str, Any]:
    """Return what is printed of an instance: what tasks pass on, and what helps people to recognise it."""
    return {
        **hook.as_dict(instance),
        "title": instance.title,
        "label": instance.label,
        "current_element": instance.current_element,
    }


def _print_properties(row: dict[str, Any], output: str) -> None:
    """Print one thing, a row for each of its properties, as ``airflow dags details`` does."""
    rows = [{"property_name": key, "property_value": value} for key, value in row.items()]
    Console().print_as(rows, output)


def _print(rows: list[dict[str, Any]], output: str, columns: tuple[str, ...]) -> None:
    shown = [{column: row[column] for column in columns} for row in rows] if output in NARROW else rows
    Console().print_as(shown, output)
