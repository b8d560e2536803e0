"""Read the tables that the benchmarks wrote into ``docs/performance.md``."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


class TableError(Exception):
    """The page does not have the expected table; the message says why."""


@dataclass(frozen=True)
class Table:
    """One table.

    :param columns: the headings.
    :param rows: heading to cell for each row.
    """

    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]


def tables_of(text: str, name: str) -> list[Table]:
    """Return the tables of one benchmark.

    :param text: the page, in Markdown.
    :param name: the name of the benchmark in its markers.
    :raises TableError: if the markers are missing.
    """
    found = re.search(rf"<!-- {name}: begin -->\n(.*)<!-- {name}: end -->", text, re.DOTALL)
    if found is None:
        raise TableError(f"the markers of {name!r} are missing")
    blocks = re.findall(r"(?:^\|.*\n)+", found.group(1), re.MULTILINE)
    return [_table(block.splitlines()) for block in blocks]


def table_with(text: str, name: str, *columns: str) -> Table:
    """Return the only table of a benchmark with these columns.

    :raises TableError: if there is no such table, or more than one.
    """
    found = [table for table in tables_of(text, name) if set(columns) <= set(table.columns)]
    if len(found) != 1:
        raise TableError(f"{len(found)} tables of {name!r} have the columns {', '.join(columns)}")
    return found[0]


def number(cell: str) -> float:
    """Return the number in a cell, without its unit.

    :raises TableError: if the cell has no number.
    """
    found = _NUMBER.match(cell)
    if found is None:
        raise TableError(f"not a number: {cell!r}")
    return float(found.group().replace(",", ""))


def _table(lines: list[str]) -> Table:
    columns, _, *rows = (tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines)
    if any(len(row) != len(columns) for row in rows):
        raise TableError(f"a row of the table {', '.join(columns)} has more or fewer cells than that")
    return Table(columns, tuple(dict(zip(columns, row, strict=True)) for row in rows))
