"""Draws the rooms of the package and their arrows into ``docs/pictures/rooms.svg``, from the table that the tests enforce.

An arrow says what a room may import. One that follows from two others is left out. The boxes bring their own background, so
that the picture reads on a light page and on a dark one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.test_architecture import ROOMS  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from collections.abc import Set as AbstractSet

PICTURE = ROOT / "docs" / "pictures" / "rooms.svg"

WIDTH, HEIGHT = 176, 62  # of a box, in px
COLUMN, ROW = 196, 104  # from one box to the next
MARGIN = 8
INSET = 24  # from a box's corner to the nearest arrow

AUTHOR, PEOPLE, WAITING, CLIENT, TESTING = "#dbeafe", "#fde9c8", "#e5e7eb", "#d1f0dd", "#f3dcf3"
"""What a DAG author touches, what people run, what tasks are made of, what talks to Astro Zero, what tests use."""

HEAD = (
    "<title id='title'>The rooms of the package. Arrows point down: a room imports what lies below it.</title>",
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
    """How a room is shown.

    :param column: where it stands, from the left; its row follows from its arrows.
    :param columns: over how many columns it goes.
    """

    column: float
    says: tuple[str, ...]
    colour: str
    columns: int = 1


BOXES = {
    "__main__": Box(0, ("python -m", "airflow_provider_astrobpm"), PEOPLE),
    "cli": Box(0, ("the command line",), PEOPLE),
    "doctor": Box(0, ("what an environment", "really does"), PEOPLE),
    "decorators": Box(1, ("@task.astro_bpm",), AUTHOR),
    "operators": Box(1, ("start, batch, change,", "list"), AUTHOR),
    "sensors": Box(2, ("wait for an instance",), AUTHOR),
    "links": Box(2, ("from a task to", "its instance"), AUTHOR),
    "notifications": Box(3, ("a process over", "a failure"), AUTHOR),
    "policies": Box(3, ("whether a failed task", "is retried"), AUTHOR),
    "tasks": Box(1, ("what operators and", "the sensor share"), WAITING),
    "triggers": Box(1, ("what waits in", "the triggerer"), WAITING),
    "hooks": Box(1, ("an Airflow connection", "becomes a client"), CLIENT),
    "_airflow": Box(1, ("Airflow versions,", "XCom keys"), WAITING),
    "bpm": Box(0, ("the Astro Zero client; imports nothing of Airflow",), CLIENT, columns=5),
    "pytest_plugin": Box(4, ("the fixture", "astro_zero_emulator"), TESTING),
    "testing": Box(4, ("what the fixture", "hands to a test"), TESTING),
    "emulator": Box(4, ("a local Astro Zero",), TESTING),
    "provider_info": Box(4, ("what Airflow reads", "at every start"), WAITING),
}


def arrows(table: Mapping[str, AbstractSet[str]]) -> dict[str, set[str]]:
    """Return whom each room leads to, without the arrows that follow from others.

    :param table: for each room what it may import, rooms or modules of them.
    """
    direct = {room: {name.partition(".")[0] for name in below} for room, below in table.items()}

    def reached(room: str) -> set[str]:
        return direct[room].union(*(reached(each) for each in direct[room]))

    return {
        room: {each for each in below if not any(each in reached(other) for other in below)}
        for room, below in direct.items()
    }


def rows(below: Mapping[str, AbstractSet[str]]) -> dict[str, int]:
    """Return the row of each room, counted from the bottom.

    A room stands right below the lowest room that imports it. A room that no room imports stands as low as its arrows allow,
    or at the top if it has no arrows.
    """

    def depth(room: str) -> int:
        return max((depth(each) + 1 for each in below[room]), default=0)

    above = {room: [each for each in below if room in below[each]] for room in below}
    top = max(depth(room) for room in below)

    def row(room: str) -> int:
        return min((row(each) - 1 for each in above[room]), default=depth(room) if below[room] else top)

    return {room: row(room) for room in below}


class Place(NamedTuple):
    """Where a box is drawn; its left upper corner, in px."""

    left: float
    top: float
    width: float


def places(below: Mapping[str, AbstractSet[str]]) -> dict[str, Place]:
    """Return where each room is drawn.

    :raises KeyError: for a room that has no box.
    """
    row_of = rows(below)
    highest = max(row_of.values())
    return {
        room: Place(
            left=MARGIN + BOXES[room].column * COLUMN,
            top=MARGIN + (highest - row) * ROW,
            width=(BOXES[room].columns - 1) * COLUMN + WIDTH,
        )
        for room, row in row_of.items()
    }


def draw(table: Mapping[str, AbstractSet[str]]) -> str:
    """Return the picture as SVG.

    :raises KeyError: for a room that has no box.
    """
    below = {room: others for room, others in arrows(table).items() if room != "__init__"}
    at = places(below)
    width = max(place.left + place.width for place in at.values()) + MARGIN
    height = max(place.top for place in at.values()) + HEIGHT + MARGIN
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    lines = [_arrow(at[room], at[other]) for room, others in below.items() for other in sorted(others)]
    boxes = [line for room, place in at.items() for line in _box(room, place)]
    first = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title">'
    return "\n".join([first, *HEAD, *lines, *boxes, "</svg>", ""])


def _arrow(room: Place, other: Place) -> str:
    start = room.left + room.width / 2
    end = min(max(start, other.left + INSET), other.left + other.width - INSET)
    return f'<path d="M{start:g} {room.top + HEIGHT:g} L{end:g} {other.top - 3:g}" marker-end="url(#tip)"/>'


def _box(room: str, place: Place) -> Iterator[str]:
    words = BOXES[room].says
    middle, line = place.left + place.width / 2, place.top + 34 - 7 * len(words)
    corner = f'x="{place.left:g}" y="{place.top:g}"'
    yield f'<rect {corner} width="{place.width:g}" height="{HEIGHT}" rx="6" fill="{BOXES[room].colour}"/>'
    yield f'<text x="{middle:g}" y="{line:g}" class="room">{escape(room)}</text>'
    for number, each in enumerate(words):
        yield f'<text x="{middle:g}" y="{line + 17 + 14 * number:g}">{escape(each)}</text>'


def main() -> None:
    """Write the picture."""
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw(ROOMS), encoding="utf-8")
    print(f"{PICTURE.relative_to(ROOT)}: {len(ROOMS) - 1} rooms")


if __name__ == "__main__":
    main()
