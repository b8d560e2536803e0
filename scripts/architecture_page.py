"""Writes the parts of ``docs/architecture.md`` that follow from the code: the picture of the rooms and the tables of modules.

The rows of the picture are the layers of ``.importlinter``. An arrow is an import; one that follows from two others is left
out. A table lists the modules of a room with the first sentence of their docstrings. The boxes have a background of their
own, so the picture is readable on a light page and on a dark one.
"""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "airflow_provider_astrobpm"
PAGE = ROOT / "docs" / "architecture.md"
PICTURE = ROOT / "docs" / "pictures" / "rooms.svg"

BOX_WIDTH_PX, BOX_HEIGHT_PX = 176, 62
COLUMN_PITCH_PX, ROW_PITCH_PX = 196, 92
MARGIN_PX = 8
ARROW_INSET_PX = 24  # from a box's corner to the nearest arrow

AUTHOR, PEOPLE, AIRFLOW, ASTRO_ZERO, TESTS = "#dbeafe", "#fde9c8", "#e5e7eb", "#d1f0dd", "#f3dcf3"
"""What DAG authors use, what people run, what the Airflow side is made of, what knows only Astro Zero, what tests use."""

HEAD = (
    "<title id='title'>The rooms of the package. Arrows point down: a room imports only rooms below it.</title>",
    "<style>",
    "text { font: 12px system-ui, sans-serif; fill: #1f2328; text-anchor: middle }",
    ".room { font: bold 14px ui-monospace, monospace }",
    "path, rect { stroke: #808890; stroke-width: 1.5 }",
    "#tip path { fill: #808890; stroke: none }",
    "</style>",
    "<marker id='tip' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='8' markerHeight='8' orient='auto'>",
    "<path d='M0 0 L8 4 L0 8 z'/></marker>",
)


class Box(NamedTuple):
    """How a room is drawn.

    :param column: its column, counted from the left. Its row is its layer.
    :param lines: what the box says below the name.
    :param columns: how many columns it spans.
    """

    column: float
    lines: tuple[str, ...]
    colour: str
    columns: int = 1


BOXES = {
    "__main__": Box(0, ("python -m", "airflow_provider_astrobpm"), PEOPLE),
    "pytest_plugin": Box(4, ("the fixture", "astro_zero_emulator"), TESTS),
    "cli": Box(0, ("the command line",), PEOPLE),
    "decorators": Box(1, ("@task.astro_bpm",), AUTHOR),
    "testing": Box(4, ("what the fixture", "gives to a test"), TESTS),
    "operators": Box(1, ("start, batch, change,", "query"), AUTHOR),
    "sensors": Box(2, ("wait for an instance",), AUTHOR),
    "notifications": Box(3, ("start an incident", "process on failure"), AUTHOR),
    "doctor": Box(0, ("how an environment", "really behaves"), PEOPLE),
    "task_base": Box(1.5, ("what operators and", "the sensor share"), AIRFLOW),
    "policies": Box(3, ("whether a failed task", "is retried"), AUTHOR),
    "triggers": Box(1.5, ("what waits in", "the triggerer"), AIRFLOW),
    "links": Box(2.5, ("from a task to", "its instance"), AUTHOR),
    "hooks": Box(1.5, ("an Airflow connection", "becomes a client"), AIRFLOW),
    "_airflow": Box(1.5, ("Airflow's versions,", "XComs, metrics"), AIRFLOW),
    "batches": Box(1, ("many instances", "at a time"), ASTRO_ZERO),
    "watching": Box(2, ("asset events",), ASTRO_ZERO),
    "emulator": Box(4, ("a local Astro Zero",), TESTS),
    "starting": Box(1, ("one task,", "one instance"), ASTRO_ZERO),
    "waiting": Box(2, ("polls, and what", "they mean"), ASTRO_ZERO),
    "client": Box(
        0, ("the REST API of Astro Zero; knows no task and nothing of Airflow",), ASTRO_ZERO, columns=4
    ),
    "provider_info": Box(4, ("what Airflow reads", "when it starts"), AIRFLOW),
}

LISTED_ROOMS = ("client", "starting", "waiting", "batches", "watching", "_airflow", "task_base")
"""The rooms whose modules the page lists."""


def layers() -> list[list[str]]:
    """Return the rooms of each layer, the highest layer first."""
    config = configparser.ConfigParser()
    config.read(ROOT / ".importlinter", encoding="utf-8")
    lines = config["importlinter:contract:rooms"]["layers"].split("\n")
    return [[room.strip() for room in line.split("|")] for line in lines if line.strip()]


def imports_by_room() -> dict[str, set[str]]:
    """Return the other rooms that each room imports, read from the source."""
    found: dict[str, set[str]] = {room: set() for layer in layers() for room in layer}
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PACKAGE.name):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                found.get(room, set()).update(name.split(".")[1] for name in names)
    return {room: {other for other in others if other in found} - {room} for room, others in found.items()}


def arrows(imports: Mapping[str, AbstractSet[str]]) -> dict[str, set[str]]:
    """Return the arrows of each room, without those that follow from others."""

    def reached(room: str) -> set[str]:
        return set(imports[room]).union(*(reached(other) for other in imports[room]))

    return {
        room: {each for each in others if not any(each in reached(other) for other in others)}
        for room, others in imports.items()
    }


class Place(NamedTuple):
    """Where a box is drawn: its left upper corner and its width, in px."""

    left: float
    top: float
    width: float


def places(rows: Sequence[Sequence[str]]) -> dict[str, Place]:
    """Return where each room is drawn.

    :raises KeyError: for a room without a box.
    """
    return {
        room: Place(
            left=MARGIN_PX + BOXES[room].column * COLUMN_PITCH_PX,
            top=MARGIN_PX + row * ROW_PITCH_PX,
            width=(BOXES[room].columns - 1) * COLUMN_PITCH_PX + BOX_WIDTH_PX,
        )
        for row, rooms in enumerate(rows)
        for room in rooms
    }


def draw(rows: Sequence[Sequence[str]], imports: Mapping[str, AbstractSet[str]]) -> str:
    """Return the picture as SVG.

    :raises KeyError: for a room without a box.
    """
    at = places(rows)
    width = max(place.left + place.width for place in at.values()) + MARGIN_PX
    height = max(place.top for place in at.values()) + BOX_HEIGHT_PX + MARGIN_PX
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    below = arrows(imports)
    lines = [_arrow(at[room], at[other]) for room, others in below.items() for other in sorted(others)]
    boxes = [line for room, place in at.items() for line in _box(room, place)]
    first = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title">'
    return "\n".join([first, *HEAD, *lines, *boxes, "</svg>", ""])


def _arrow(room: Place, other: Place) -> str:
    start = room.left + room.width / 2
    end = min(max(start, other.left + ARROW_INSET_PX), other.left + other.width - ARROW_INSET_PX)
    return f'<path d="M{start:g} {room.top + BOX_HEIGHT_PX:g} L{end:g} {other.top - 3:g}" marker-end="url(#tip)"/>'


def _box(room: str, place: Place) -> Iterator[str]:
    lines = BOXES[room].lines
    middle, first = place.left + place.width / 2, place.top + 34 - 7 * len(lines)
    corner = f'x="{place.left:g}" y="{place.top:g}"'
    yield f'<rect {corner} width="{place.width:g}" height="{BOX_HEIGHT_PX}" rx="6" fill="{BOXES[room].colour}"/>'
    yield f'<text x="{middle:g}" y="{first:g}" class="room">{escape(room)}</text>'
    for number, line in enumerate(lines):
        yield f'<text x="{middle:g}" y="{first + 17 + 14 * number:g}">{escape(line)}</text>'


def table_of(room: str) -> str:
    """Return the modules of a room as a Markdown table: each with the first sentence of its docstring."""
    rows = ["| module | what it does |", "|---|---|"]
    for path in sorted((PACKAGE / room).glob("*.py")):
        if path.stem != "__init__":
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            paragraph = " ".join(docstring.split("\n\n")[0].split()).replace("``", "`").replace("|", "\\|")
            rows.append(f"| `{path.stem}` | {re.split(r'(?<=[.]) (?=[A-Z`])', paragraph)[0]} |")
    return "\n".join(rows)


def with_tables(page: str) -> str:
    """Return the page with its tables of modules as the code has them.

    :raises ValueError: if the page has no place for a room's table.
    """
    for room in LISTED_ROOMS:
        begin, end = f"<!-- modules of {room} -->", "<!-- end -->"
        head, found, rest = page.partition(begin)
        if not found:
            raise ValueError(f"{PAGE.name} lacks {begin}")
        page = f"{head}{begin}\n\n{table_of(room)}\n\n{end}{rest.partition(end)[2]}"
    return page


def main() -> None:
    """Write the picture and the tables."""
    PICTURE.write_text(draw(layers(), imports_by_room()), encoding="utf-8")
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"Wrote {PICTURE.relative_to(ROOT)} and the tables of {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
