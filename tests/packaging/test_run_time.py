"""The last line of ``make test``: how long the run took, and its limit."""

from __future__ import annotations

import pytest

from tests.support.run_time import run_time_line


@pytest.mark.parametrize(
    ("seconds", "line"),
    [
        (310.4, "test: 11,235 tests in 5:10 (limit 6:00 on 2 idle cores)"),
        (360, "test: 11,235 tests in 6:00 (limit 6:00 on 2 idle cores)"),
        (725, "test: 11,235 tests in 12:05 (limit 6:00 on 2 idle cores), which is too long"),
    ],
)
def test_says_how_long_it_took(seconds: float, line: str) -> None:
    assert run_time_line(11_235, seconds, 360) == line
