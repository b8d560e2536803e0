"""Writes ``docs/versions.md`` from what ``make test-matrix`` has observed."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil

from airflow_lines import ROOT, Line
from tests.matrix.rows import ROWS

PAGE = ROOT / "docs" / "versions.md"
NOT_RUN = "not run"

INTRODUCTION = """\
# Airflow versions

<!-- written by: make test-matrix -->

The provider works with Airflow 3.0.6 and newer, and with Python 3.10 to {pythons} If you can choose, take
Airflow 3.3: it keeps the record of a start that makes retries and clears exact.

`make test-matrix` wrote this page. It installs the built wheel beside each version, and runs tasks on a real Airflow: a scheduler, a
triggerer, a DAG processor, an API server, and the emulator over HTTP. {when}

{versions}

## What differs

A test has observed every cell on the version of its column. If a test had not run there, the cell would say "{not_run}".
An empty cell means that the cell to its left holds there too, and that the test has observed the same.
"""

PYTHON_NOTE = """
## Python 3.14

Airflow declares Python 3.14 from 3.2 on. The pins of 3.2, 3.3 and 3.4 resolve for it, and every pin has a wheel. {ran_on_it}
`make test-matrix` tries Airflow 3.4 on Python 3.14 if `python3.14` is on the PATH.
"""


@dataclass(frozen=True)
class Result:
    """What a run of the tests on one line has shown.

    :param installed: the seconds until the line and the wheel were installed.
    :param seconds: the seconds until the tests had ended.
    :param found: the versions, and by row whether the expected value was observed, and by which test.
    """

    line: Line
    depth: str
    passed: bool
    installed: float
    seconds: float
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """One line for the terminal."""
        rows = self.found.get("rows", {})
        words = (
            "passed" if self.passed else "FAILED, as a pre-release may" if self.line.may_fail else "FAILED"
        )
        seen = sum(row["as expected"] for row in rows.values())
        return (
            f"Airflow {self.found.get('airflow', self.line.name)} on Python {self.found.get('python', '?')} ({self.depth}): {words},"
            f" {seen} rows observed, {self.seconds:.0f} s ({self.installed:.0f} s to install)"
        )

    def observed(self, row: str) -> bool:
        """Return whether a test has observed a row as expected."""
        return bool(self.found.get("rows", {}).get(row, {}).get("as expected"))


def machine() -> str:
    """Describe this machine."""
    cpu = Path("/proc/cpuinfo")
    models = (
        [
            line.partition(":")[2].strip()
            for line in cpu.read_text().splitlines()
            if line.startswith("model name")
        ]
        if cpu.exists()
        else []
    )
    model = models[0] if models else platform.machine()
    return f"{os.cpu_count()} cores ({model}), {psutil.virtual_memory().total / 2**30:.0f} GB of memory, {platform.system()}"


def cells(results: list[Result], name: str) -> list[str]:
    """Return the cells of a row; an empty one is observed to be as the one on its left."""
    shown: list[str] = []
    last = None
    for result in results:
        cell = ROWS[name].cell(result.line.name)
        if not result.observed(name):
            shown.append(NOT_RUN)
            last = None
        else:
            shown.append("" if cell is last else cell.text)
            last = cell
    return shown


def test_of(results: list[Result], name: str) -> str:
    """Return the test that observes a row, without its folder."""
    tests = [each.found["rows"][name]["test"] for each in results if each.observed(name)]
    return f"`{tests[0].removeprefix('tests/matrix/')}`" if tests else ""


def row_of(words: list[str]) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(words)} |"


def page(results: list[Result]) -> str:
    """Return the page."""
    today = datetime.now(timezone.utc).date()
    when = f"It ran on {today}, on a machine with {machine()}."
    versions = ["| Airflow | Python | tests | took |", "|---|---|---|--:|"]
    for each in results:
        kind = " (pre-release)" if each.line.may_fail else ""
        outcome = "passed" if each.passed else "failed"
        versions.append(
            row_of(
                [
                    f"{each.found.get('airflow', each.line.name)}{kind}",
                    each.found.get("python", "none"),
                    outcome if each.depth == "half" else f"{outcome} ({each.depth})",
                    f"{each.seconds:.0f} s",
                ]
            )
        )
    head = [
        "",
        *(each.line.name + (" (pre-release)" if each.line.may_fail else "") for each in results),
        "test in `tests/matrix`",
    ]
    table = [row_of(head), "|" + "---|" * len(head)]
    table += [row_of([ROWS[name].title, *cells(results, name), test_of(results, name)]) for name in ROWS]
    on_it = [each.line.name for each in results if each.found.get("python", "").startswith("3.14.")]
    pythons = "3.14." if on_it else "3.13; 3.14 is allowed, but [was not tried](#python-314)."
    ran = (
        f"Tasks ran on it with Airflow {' and '.join(on_it)}."
        if on_it
        else "No task ran on it: this machine has no Python 3.14."
    )
    parts = [
        INTRODUCTION.format(pythons=pythons, when=when, versions="\n".join(versions), not_run=NOT_RUN),
        "\n".join(table),
        PYTHON_NOTE.format(ran_on_it=ran),
    ]
    return "\n".join(parts)
