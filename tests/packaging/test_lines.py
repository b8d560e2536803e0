"""The table of Airflow lines, and the page that is written from what was observed on them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import airflow_lines
from airflow_lines import LINES, ROOT, Line, find_python
from tests.matrix.page import NOT_RUN, Result, page
from tests.matrix.rows import ROWS


@pytest.mark.parametrize("line", LINES.values(), ids=lambda line: line.name)
def test_constraints_of_a_line_hold_its_version(line: Line) -> None:
    pins = line.constraints.read_text().splitlines()
    for pin in line.pins:
        if "==" in pin:
            assert pin in pins
        else:
            bound = Requirement(pin)
            (found,) = [Requirement(each) for each in pins if Requirement(each).name == bound.name]
            assert bound.specifier.contains(str(found.specifier).removeprefix("=="))


@pytest.mark.parametrize("line", LINES.values(), ids=lambda line: line.name)
def test_no_pin_is_for_a_python_before_the_floor(line: Line) -> None:
    """Its markers exclude nothing but Pythons that the line runs on."""
    text = line.constraints.read_text()
    for minor in range(9, line.oldest + 1):
        assert f"python_full_version < '3.{minor}'" not in text


def test_every_file_of_constraints_belongs_to_a_line() -> None:
    found = {path.stem for path in (ROOT / "constraints").glob("*.txt")}
    assert found == {line.constraints.stem for line in LINES.values()} | {"lowest"}


def test_package_allows_the_pythons_of_all_lines() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    oldest, newest = min(each.oldest for each in LINES.values()), max(each.newest for each in LINES.values())
    assert f'requires-python = ">=3.{oldest},<3.{newest + 1}"' in text
    for minor in range(oldest, newest + 1):
        assert f"Python :: 3.{minor}" in text


def test_finds_this_python_and_none_that_does_not_exist(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert find_python(sys.version_info[1]) == sys.executable
    broken = tmp_path / "python3.99"  # as pyenv has them for versions that are not selected
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_python(99) is None
    broken.write_text("#!/bin/sh\necho /opt/python\n")
    assert find_python(99) == "/opt/python"


def test_line_runs_on_its_python_or_else_on_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    line = LINES["3.1"]
    here: list[int] = [line.tried_on, line.newest, line.oldest]
    monkeypatch.setattr(airflow_lines, "find_python", lambda minor: str(minor) if minor in here else None)
    assert line.python() == str(line.tried_on)
    here.remove(line.tried_on)
    assert line.python() == str(line.newest)
    here.clear()
    with pytest.raises(LookupError, match="needs Python"):
        line.python()


def result(name: str, *, without: str = "") -> Result:
    rows = {
        row: {"test": f"tests/matrix/test_x.py::{row}", "as expected": True} for row in ROWS if row != without
    }
    found = {"airflow": f"{name}.1", "python": "3.12.1", "rows": rows}
    return Result(LINES[name], "half", passed=True, installed=1, seconds=2, found=found)


def cells_of(text: str, row: str) -> list[str]:
    (line,) = [each for each in text.splitlines() if each.startswith(f"| {ROWS[row].title} |")]
    return [cell.strip() for cell in line.strip("|").split(" | ")][1:-1]


def test_page_claims_only_what_was_observed() -> None:
    text = page([result("3.0"), result("3.1", without="record"), result("3.2"), result("3.3")])
    none, store = ROWS["record"].cell("3.0").text, ROWS["record"].cell("3.3").text
    assert cells_of(text, "record") == [none, NOT_RUN, none, store]
    assert "no Python 3.14" in text
