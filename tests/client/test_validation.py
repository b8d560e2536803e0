"""Checks of arguments: odd texts are refused, in no time."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from airflow_provider_astrobpm.client import validation


@pytest.mark.parametrize(
    "check", [validation.seconds, validation.number_or_share, validation.rate, validation.boolean]
)
@pytest.mark.parametrize("odd", ["1" + " " * 60_000 + "!", " " * 60_000, "1" * 60_000 + "w", "." * 60_000])
def test_a_long_text_takes_no_time(check: Callable[[object, str], object], odd: str) -> None:
    begun = time.process_time()
    with pytest.raises(ValueError, match="limit must be"):
        check(odd, "limit")
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (" 5 m ", "; write timedelta(minutes=5)"),
        ("90", "; write 90"),
        ("9" * 12 + "w", "w'"),
        ("1ms", "'1ms'"),
    ],
)
def test_suggests_a_duration_if_there_is_one(given: str, hint: str) -> None:
    with pytest.raises(ValueError, match="limit must be a number of seconds") as caught:
        validation.seconds(given, "limit")
    assert str(caught.value).endswith(hint)
