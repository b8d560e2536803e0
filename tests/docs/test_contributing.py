"""docs/contributing.md and docs/architecture.md list exactly the targets of make, the rooms and the modules."""

from __future__ import annotations

import re
import subprocess

import architecture_page
from tests.docs.blocks import NOTES
from tests.docs.pages import ROOT

CONTRIBUTING = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def rows_of(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the table that begins with a heading."""
    table = page.split(f"| {heading} |", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_page_lists_the_targets_of_make_help() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    listed = [name for row in rows_of(CONTRIBUTING, "target") for name in names_in(row[0])]
    assert sorted(listed) == sorted(re.findall(r"^  make (\S+)", shown, re.MULTILINE))


def test_the_page_marks_the_targets_that_ci_runs() -> None:
    run = set(
        re.findall(r"^make ([a-z-]+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    )
    said: set[str] = set()
    for target, _, ci in rows_of(CONTRIBUTING, "target"):
        if ci:
            said.update(names_in(target) if ci == "yes" else names_in(ci))
    assert said == run


def test_every_note_is_described() -> None:
    described = [names_in(row[0])[0] for row in rows_of(CONTRIBUTING, "comment")]
    for name in NOTES:
        assert any(text.startswith(f"<!-- {name}") for text in described), name


def test_the_architecture_lists_every_room() -> None:
    listed = [name for row in rows_of(ARCHITECTURE, "room") for name in names_in(row[0])]
    rooms = [room for layer in architecture_page.layers() for room in layer]
    assert sorted(listed) == sorted(rooms)
