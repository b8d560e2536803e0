"""The picture of the rooms shows the existing rooms, with exactly the necessary arrows."""

from __future__ import annotations

import draw_rooms
import pytest

from tests.test_architecture import ROOMS

TABLE = {
    "top": {"left", "right", "base"},
    "left": {"base.part"},
    "right": set(),
    "base": set(),
    "alone": set(),
}


def test_the_committed_picture_is_up_to_date() -> None:
    assert draw_rooms.PICTURE.read_text(encoding="utf-8") == draw_rooms.draw(ROOMS), (
        "run python scripts/draw_rooms.py"
    )


def test_an_arrow_that_follows_from_others_is_left_out() -> None:
    assert draw_rooms.arrows(TABLE) == {
        "top": {"left", "right"},
        "left": {"base"},
        "right": set(),
        "base": set(),
        "alone": set(),
    }


def test_arrows_point_down() -> None:
    assert draw_rooms.rows(draw_rooms.arrows(TABLE)) == {
        "top": 2,
        "left": 1,
        "right": 1,
        "base": 0,
        "alone": 2,
    }
    below = draw_rooms.arrows(ROOMS)
    rows = draw_rooms.rows(below)
    assert all(rows[other] < rows[room] for room in below for other in below[room])


def test_no_two_boxes_overlap() -> None:
    rows = draw_rooms.rows(draw_rooms.arrows(ROOMS))
    places = [(rows[room], box.column) for room, box in draw_rooms.BOXES.items()]
    assert len(set(places)) == len(places)


def test_a_new_room_needs_a_box() -> None:
    with pytest.raises(KeyError, match="attic"):
        draw_rooms.draw({**ROOMS, "attic": {"bpm"}})
