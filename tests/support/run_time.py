"""Reports how long a run of all tests took, and its limit; ``make test`` sets that.

A run above its limit does not fail: the limit is that of two idle cores, and a machine may have slower ones or other work.
"""

from __future__ import annotations

import os
import time

import psutil
import pytest

LIMIT = "TEST_RUN_LIMIT_SECONDS"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if limit := os.environ.get(LIMIT):
        tests = sum(len(terminalreporter.getreports(outcome)) for outcome in ("passed", "failed", "skipped"))
        seconds = time.time() - psutil.Process().create_time()
        terminalreporter.write_line(run_time_line(tests, seconds, float(limit)))


def run_time_line(tests: int, seconds: float, limit: float) -> str:
    """Return the line about a run of some tests.

    :param seconds: how long it took.
    :param limit: how long it should take, in seconds.
    """
    verdict = "" if seconds <= limit else ", which is too long"
    return f"test: {tests:,} tests in {_clock(seconds)} (limit {_clock(limit)} on 2 idle cores){verdict}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
