"""How the page formats ages, time zones, foreign text and values."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from airflow_provider_astrobpm.emulator.page.formatting import age, value_text, visible, zone


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "under a minute"),
        (0, "under a minute"),
        (59.9, "under a minute"),
        (60, "1 min"),
        (3_599, "59 min"),
        (3_600, "1 h"),
        (7_500, "2 h 5 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 d"),
        (86_400 + 59, "1 d"),
        (86_400 + 300, "1 d"),
        (3 * 86_400 + 4 * 3_600 + 300, "3 d 4 h"),
        (1_000 * 86_400, "1000 d"),
    ],
)
def test_age_has_at_most_two_units(seconds: float, words: str) -> None:
    assert age(seconds) == words


@pytest.mark.parametrize(
    ("hours", "name"),
    [(0.0, "UTC"), (8.0, "UTC+8"), (-3.5, "UTC-3:30"), (5.75, "UTC+5:45"), (-14, "UTC-14")],
)
def test_zone_is_named_by_its_offset(hours: float, name: str) -> None:
    assert zone(hours) == name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, 中文, é\tand\nso on", "plain, 中文, é\tand\nso on"),
        ("<script>", "<script>"),
        ("a\u202ecod.exe", "a\\u202ecod.exe"),
        ("\u2066in\u2069", "\\u2066in\\u2069"),
        ("\x00\x1b[31m\x7f\x9f\r", "\\u0000\\u001b[31m\\u007f\\u009f\\u000d"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("half \ud800", "half \\ud800"),
        ("12345678901", "1234567890… (1 more characters)"),
    ],
)
def test_invisible_characters_are_escaped(text: str, shown: str) -> None:
    assert visible(text, 10 if text.isdigit() else 100) == shown


def test_omitted_characters_are_counted() -> None:
    assert visible("x" * 5_000, 2) == "xx… (4,998 more characters)"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        ("", ""),
        (7, "7"),
        (True, "true"),
        (None, "null"),
        ([], "[]"),
        ({}, "{}"),
        ([1, "a"], '[\n  1,\n  "a"\n]'),
        ({"é": {"b": 1.5}}, '{\n  "é": {\n    "b": 1.5\n  }\n}'),
        (date(2026, 1, 2), '"2026-01-02"'),  # as a YAML script may have it
    ],
)
def test_values_are_shown_as_text_or_json(value: Any, text: str) -> None:
    assert value_text(value) == text
