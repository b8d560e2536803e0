"""``make bench-compare`` reads what the benchmarks print, and judges it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.compare import Row, check_imports, compare, parse, table
from local_stack import StackError

ROOT = Path(__file__).resolve().parents[2]

# What the benchmarks print now, and what they printed in older versions.
WAITING = """\
1 tasks, this provider: 13 requests, 0.22 s CPU, 150.1 MB, blocks 0.002 s and 0.003 s at start, 10 s to start
1 task, a response of 50 rows: 12 requests, 1.95 s CPU, 236.0 MB, blocks 0.018 s and 0.020 s at start, 10 s to start

| tasks | trigger | requests | CPU | memory | longest block | while starting |
kept    1 tasks: 13 requests, at most 14
"""
OLD_WAITING = WAITING.replace("a response of", "an answer of").replace(
    "13 requests, 0.22", "26 requests, 0.24"
)
BATCH = """\
1. this operator, from a list: 4000/s, 1.03 s, 0.65 s CPU, 25.4 MB in addition to 119.7 MB
2. this operator, from a list: 4200/s, 1.03 s, 0.67 s CPU, 25.0 MB in addition to 119.7 MB
1. bare loop: 5139/s, 0.59 s, 0.28 s CPU, 4.7 MB in addition to 35.6 MB
waiting: Waiting(cost=Cost(seconds=10.0, requests=4, cpu=0.08, memory=161000000, peak=162000000, block=0.02, \
start_block=0.02, start=10.2, poll=0.07), polls=2, requests=2)
MISSED  this operator, from a list: 79.9% of the bare loop's rate, at least 90%
"""
OLD_BATCH = BATCH.replace("in addition to", "beyond").replace("polls=", "looks=")
GATE = "1. http provider: 0.810 s CPU (token 0.188, start 0.188), 1.64 s; 1 token; the trigger: 2 get\n"


def test_all_figures_are_read() -> None:
    row, rows = "waiting: 1 tasks, this provider", "waiting: 1 task, a response of 50 rows"
    assert parse("waiting", WAITING) == {
        (row, "requests"): [13],
        (row, "CPU"): [0.22],
        (row, "memory"): [150.1],
        (rows, "requests"): [12],
        (rows, "CPU"): [1.95],
        (rows, "memory"): [236],
    }
    listed, bare, wait = "batch: this operator, from a list", "batch: bare loop", "batch: waiting"
    assert parse("batch", BATCH) == {
        (listed, "rate"): [4000, 4200],
        (listed, "CPU"): [0.65, 0.67],
        (listed, "memory"): [25.4, 25],
        (bare, "rate"): [5139],
        (bare, "CPU"): [0.28],
        (bare, "memory"): [4.7],
        (wait, "CPU"): [0.04],
        (wait, "memory"): [161],
        (wait, "requests"): [2],
    }
    assert parse("gate", GATE) == {("gate: http provider", "CPU"): [0.81]}


def test_older_versions_are_read() -> None:
    assert parse("waiting", OLD_WAITING).keys() == parse("waiting", WAITING).keys()
    assert parse("batch", OLD_BATCH) == parse("batch", BATCH)


def test_medians_are_compared() -> None:
    base, now = {("x", "CPU"): [1.0, 2.0, 9.0]}, {("x", "CPU"): [3.0, 0.5, 3.0]}
    (row,) = compare(base, now)
    assert row.ratio() == 1.5
    assert "WORSE" in table([Row("x", "CPU", [1], [2])])
    assert table([row]).splitlines()[2] == "| x | CPU | 2 (1 to 9) | 3 (0.5 to 3) | 1.50 | 25% |  |"
    with pytest.raises(StackError, match="only one version has measured x, CPU"):
        compare(base, {})


@pytest.mark.parametrize(
    ("what", "kind", "base", "now", "verdict"),
    [
        ("this provider", "CPU", [1], [1.1], ""),
        ("this provider", "CPU", [1], [1.5], "WORSE"),
        ("this provider", "CPU", [1.5], [1], ""),
        ("this operator", "rate", [1500], [1000], "WORSE"),
        ("this operator", "rate", [1000], [1500], ""),
        ("this operator", "memory", [100], [104], ""),
        ("this operator", "memory", [100], [110], "WORSE"),
        ("this provider", "requests", [8], [10], ""),
        ("this provider", "requests", [2], [3], "WORSE"),
        ("this provider", "requests", [0], [0], ""),
        ("this provider", "requests", [0], [1], "WORSE"),
        ("batch: bare loop", "rate", [1500], [1000], "varies"),
        ("batch: bare loop", "CPU", [1.5], [1], "varies"),
        ("batch: bare loop", "CPU", [1], [1.1], ""),
        ("this provider", "CPU", [1, 1, 1], [1, 2, 2], ""),  # the best run is as good
        ("this provider", "CPU", [1, 2, 2], [2, 2, 2], ""),  # the median is as good
        ("this operator", "rate", [500, 1000, 1000], [500, 500, 700], "WORSE"),
    ],
)
def test_a_figure_is_worse_if_its_median_and_best_are(
    what: str, kind: str, base: list[float], now: list[float], verdict: str
) -> None:
    assert Row(what, kind, base, now).verdict == verdict


def test_a_version_runs_only_its_own_code(tmp_path: Path) -> None:
    check_imports(ROOT, ["waiting", "batch", "gate"])
    with pytest.raises(StackError):  # the folder has no package, so the installed one is found
        check_imports(tmp_path, ["waiting"])
