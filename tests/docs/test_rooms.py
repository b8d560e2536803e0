"""What docs/architecture.md shows of the code is what the code is: the picture of the rooms, and the tables of modules."""

from __future__ import annotations

from itertools import pairwise

import pytest

import architecture_page

IMPORTS = {
    "top": {"left", "right", "base"},
    "left": {"base"},
    "right": set(),
    "base": set(),
    "alone": set(),
}


def test_the_picture_is_up_to_date() -> None:
    drawn = architecture_page.draw(architecture_page.layers(), architecture_page.imports_by_room())
    committed = architecture_page.PICTURE.read_text(encoding="utf-8")
    assert committed == drawn, "run python scripts/architecture_page.py"


def test_the_tables_of_modules_are_up_to_date() -> None:
    page = architecture_page.PAGE.read_text(encoding="utf-8")
    assert page == architecture_page.with_tables(page), "run python scripts/architecture_page.py"


def test_an_arrow_that_follows_from_others_is_left_out() -> None:
    assert architecture_page.arrows(IMPORTS) == {
        "top": {"left", "right"},
        "left": {"base"},
        "right": set(),
        "base": set(),
        "alone": set(),
    }


def test_arrows_point_down() -> None:
    row_of = {room: row for row, rooms in enumerate(architecture_page.layers()) for room in rooms}
    imports = architecture_page.imports_by_room()
    assert all(row_of[other] > row_of[room] for room, others in imports.items() for other in others)


def test_boxes_do_not_overlap() -> None:
    for rooms in architecture_page.layers():
        spans = sorted(
            (architecture_page.BOXES[room].column, architecture_page.BOXES[room].columns) for room in rooms
        )
        assert all(left + columns <= right for (left, columns), (right, _) in pairwise(spans))


def test_a_new_room_needs_a_box() -> None:
    with pytest.raises(KeyError, match="attic"):
        architecture_page.draw([["attic"], *architecture_page.layers()], {"attic": set()})
