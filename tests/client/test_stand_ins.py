"""Stand-ins have the form of their values, and show nothing else of them."""

from __future__ import annotations

import math
import re
import string
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_astrobpm.client.stand_ins import MARK, MAX_SHAPED_CHARS, StandIns

SALT = b"\1" * 32
ANY_TEXT = st.text(max_size=60)


@given(st.lists(st.text(string.printable, max_size=60), min_size=2, unique=True, max_size=20))
def test_different_texts_have_different_stand_ins(texts: list[str]) -> None:
    stand_ins = StandIns(SALT)
    found = [stand_ins.text(text) for text in texts]
    assert len(set(found)) == len(texts)
    assert found == [stand_ins.text(text) for text in texts]


@given(ANY_TEXT, st.integers(0, 60))
def test_a_cut_text_has_a_cut_stand_in(text: str, length: int) -> None:
    stand_ins = StandIns(SALT)
    if text[:length].strip():
        assert stand_ins.text(text).startswith(stand_ins.text(text[:length]))


@given(st.text(alphabet="abcXYZ09-_ #", min_size=1).filter(str.strip))
def test_the_case_of_a_text_shows_in_its_stand_in(text: str) -> None:
    stand_ins = StandIns(SALT)
    assert stand_ins.text(text.upper()) == stand_ins.text(text).upper()


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("002N000000Sy2NphoRbU", r"\d{3}[A-Z]\d{6}[A-Z][a-z]\d[A-Z][a-z]{3}[A-Z][a-z][A-Z]"),
        ("Anna Miller", r"[A-Z][a-z]{3} [A-Z][a-z]{5}"),
        (" 12\t", r" \d\d\t"),
        ("a.miller@example.com", r"[a-z]\.[a-z]{6}[^\w\s][a-z]{7}\.[a-z]{3}"),
        ("王伟", r"[一-\u9fff]{2}"),
        ("a\0b\ud83dc\u200b", "[a-z]\0[a-z]\ud83d[a-z]\u200b"),
        ("orders.approve-1_2:3", r"[a-z]{6}\.[a-z]{7}-\d_\d:\d"),
    ],
)
def test_form_stays(text: str, form: str) -> None:
    stand_in = StandIns(SALT).text(text)
    assert re.fullmatch(re.escape(MARK) + form, stand_in)
    assert text not in stand_in


@pytest.mark.parametrize("text", ["", " ", "\t\n", "\u3000"])
def test_blank_texts_stay(text: str) -> None:
    assert StandIns(SALT).text(text) == text


def test_long_text_keeps_its_beginning_and_its_length() -> None:
    stand_ins = StandIns(SALT)
    one, another = "x" * 1000, "x" * 999 + "y"
    assert stand_ins.text(one).startswith(stand_ins.text("x" * MAX_SHAPED_CHARS))
    assert "800 more" in stand_ins.text(one)
    assert stand_ins.text(one) != stand_ins.text(another)


@given(st.text(string.ascii_letters + string.digits, min_size=20))
def test_another_salt_gives_other_stand_ins(text: str) -> None:
    assert StandIns(SALT).text(text) != StandIns(b"\2" * 32).text(text)


@given(st.integers() | st.floats(1e-300, 1e300) | st.floats(-1e300, -1e-300) | st.just(0.0))
@example(10**250)
@example(-7)
@example(1e22)
@example(1e-07)
@example(-2.5e300)
def test_numbers_keep_their_type_sign_and_length(number: float) -> None:
    shown = StandIns(SALT).number(number)
    assert shown.keys() == {MARK}
    stand_in = shown[MARK]
    assert type(stand_in) is type(number)
    if isinstance(number, int):
        assert len(str(stand_in)) == len(str(number))
        assert (stand_in < 0) == (number < 0)
    else:
        assert math.copysign(1, stand_in) == math.copysign(1, number)
        assert repr(stand_in).partition("e")[2] == repr(number).partition("e")[2]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_stays(number: float) -> None:
    assert repr(StandIns(SALT).number(number)) == repr({MARK: number})


def test_booleans_of_one_name_differ() -> None:
    stand_ins = StandIns(SALT)
    for name in ("is_vip", "urgent"):
        assert stand_ins.boolean(True, name)[MARK] is not stand_ins.boolean(False, name)[MARK]
    flipped: set[Any] = {stand_ins.boolean(True, str(number))[MARK] for number in range(50)}
    assert flipped == {True, False}


def test_a_secret_shows_neither_its_length_nor_its_form() -> None:
    stand_ins = StandIns(SALT)
    assert len(stand_ins.secret("a")) == len(stand_ins.secret("A long secret, with blanks"))
    assert stand_ins.secret("a") == stand_ins.secret("a") != stand_ins.secret("b")
