"""Prints results as tables, JSON, YAML or plain columns, as Airflow's own commands do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from airflow.cli.simple_table import AirflowConsole
from rich.cells import cell_len, set_cell_size
from rich.markup import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.wire import BpmDefinition
    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook

INSTANCE_COLUMNS = ("id", "name", "version", "state", "suspended", "bp_status", "business_key", "start_time")
DEFINITION_COLUMNS = ("name", "version", "label", "active", "status", "id")
NARROW = ("table", "plain")  # formats with only the columns above; the others show every field


class Console(AirflowConsole):
    """Airflow's console, but without markup in data, and with types preserved in JSON and YAML."""

    def print_as(self, data: Sequence[dict[str, Any]], output: str, mapper: Any = None) -> None:
        """Print rows. JSON and YAML keep numbers, booleans and null, which Airflow converts to text."""
        if output == "json":
            self.print_as_json(msgspec.to_builtins(data))
        elif output == "yaml":
            self.print_as_yaml(msgspec.to_builtins(data))
        else:
            super().print_as(data, output, mapper)

    def print_as_table(self, data: list[dict[str, Any]]) -> None:
        """Print a table, with markup in the data escaped."""
        super().print_as_table([{key: escape(_cell(value)) for key, value in row.items()} for row in data])

    def print_as_plain_table(self, data: list[dict[str, Any]]) -> None:
        """Print columns, without treating a business key such as ``007`` as a number."""
        if not data:
            super().print_as_plain_table(data)
            return
        rows = [
            list(data[0]),
            *([_cell(value) for value in row.values()] for row in data),
        ]
        widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(map(set_cell_size, row, widths)).rstrip() for row in rows)
        self.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def print_instances(hook: AstroZeroHook, instances: Sequence[BpmInstance], output: str) -> None:
    """Print a list of instances.

    :param hook: the hook of the connection, for its time zone and URLs.
    :param instances: the instances.
    :param output: the format.
    """
    _print([instance_row(hook, instance) for instance in instances], output, INSTANCE_COLUMNS)


def print_instance(hook: AstroZeroHook, instance: BpmInstance, output: str) -> None:
    """Print all fields of one instance. The parameters are those of ``print_instances``."""
    _print_one(instance_row(hook, instance), output)


def print_definitions(definitions: Sequence[BpmDefinition], output: str) -> None:
    """Print a list of BPM definitions."""
    _print([msgspec.structs.asdict(each) for each in definitions], output, DEFINITION_COLUMNS)


def print_definition(
    definition: BpmDefinition, variables: Sequence[dict[str, Any]] | None, output: str
) -> None:
    """Print one BPM definition with its variables.

    :param definition: the definition, from the list.
    :param variables: its variables as the API returns them, each with its name; ``None`` if the definition lists none.
    :param output: the format.
    """
    row = msgspec.structs.asdict(definition)
    if output not in NARROW:
        row["variables"] = variables
    _print_one(row, output)
    if output in NARROW and variables:
        columns = dict.fromkeys(["name", *(key for one in variables for key in one)])
        Console().print_as([{key: one.get(key) for key in columns} for one in variables], output)


def instance_row(hook: AstroZeroHook, instance: BpmInstance) -> dict[str, Any]:
    """Return the printed fields of an instance: the task's result, and fields that help to recognise it."""
    return {
        **hook.as_dict(instance),
        "title": instance.title,
        "label": instance.label,
        "current_element": instance.current_element,
    }


def print_rows(
    rows: Sequence[dict[str, Any]], output: str, columns: tuple[str, ...], *, hidden: tuple[str, ...]
) -> None:
    """Print rows.

    :param rows: the rows, all with the same fields.
    :param output: the format.
    :param columns: the fields that a table shows.
    :param hidden: fields that only a table shows, because others have the same for programs.
    """
    if output not in NARROW:
        rows = [{name: value for name, value in row.items() if name not in hidden} for row in rows]
    _print([*rows], output, columns)


def _print_one(row: dict[str, Any], output: str) -> None:
    """Print one object. The narrow formats get one row per property, as in ``airflow dags details``."""
    properties = [{"property_name": key, "property_value": value} for key, value in row.items()]
    Console().print_as(properties if output in NARROW else [row], output)


def _print(rows: list[dict[str, Any]], output: str, columns: tuple[str, ...]) -> None:
    shown = [{column: row[column] for column in columns} for row in rows] if output in NARROW else rows
    Console().print_as(shown, output)
