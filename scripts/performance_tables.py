"""The tables that the measurements have written into ``docs/performance.md``, read back as values."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


class TableError(Exception):
    """The page has not what is looked for; the message says what."""


@dataclass(frozen=True)
class Table:
    """One table.

    :param columns: the headings.
    :param rows: heading to cell, of each row.
    """

    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]


def tables_of(text: str, name: str) -> list[Table]:
    """Return the tables that one measurement has written.

    :param text: the page, in Markdown.
    :param name: the name of the measurement, as its markers have it.
    :raises TableError: if the markers are not there.
    """
    found = re.search(rf"<!-- {name}: begin -->\n(.*)<!-- {name}: end -->", text, re.DOTALL)
    if found is None:
        raise TableError(f"the markers of {name!r} are missing")
    blocks = re.findall(r"(?:^\|.*\n)+", found.group(1), re.MULTILINE)
    return [_table(block.splitlines()) for block in blocks]


def table_with(text: str, name: str, *columns: str) -> Table:
    """Return the one table of a measurement that has some columns.

    :raises TableError: if there is none, or more than one.
    """
    found = [table for table in tables_of(text, name) if set(columns) <= set(table.columns)]
    if len(found) != 1:
        raise TableError(f"{len(found)} tables of {name!r} have the columns {', '.join(columns)}")
    return found[0]


def number(cell: str) -> float:
    """Return the number of a cell, without its unit.

    :raises TableError: if there is none.
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
