"""Compare the coverage of a run with its floors, and write ``docs/testing.md``; ``python scripts/coverage_floors.py FILE``.

FILE is what ``coverage json`` wrote. The exit code is 1 if a module that decides has a branch that no test takes, or if the
tests take too few of the package's branches.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from testing_page import PACKAGE, decisions_of, module_of, setting, table, write

PACKAGE_FLOOR = 95.0  # per cent of the branches
COLUMNS = ("part", "lines", "not run", "branches", "not taken", "branch coverage")


def sums_of(files: dict[str, Any]) -> tuple[int, int, int, int]:
    """Return the lines, those that were not run, the branches, and those that were not taken, of some files."""
    each = [one["summary"] for one in files.values()]
    names = ("num_statements", "missing_lines", "num_branches", "missing_branches")
    lines, not_run, branches, not_taken = (sum(one[name] for one in each) for name in names)
    return lines, not_run, branches, not_taken


def share_of(sums: tuple[int, int, int, int]) -> float:
    """Return the per cent of the branches that were taken."""
    _, _, branches, not_taken = sums
    return 100.0 if not branches else 100 * (branches - not_taken) / branches


def row_of(part: str, files: dict[str, Any]) -> tuple[str, ...]:
    """Return the row of a part of the package."""
    sums = sums_of(files)
    return (part, *(f"{number:,}" for number in sums), f"{int(10 * share_of(sums)) / 10:.1f} %")


def by_part(files: dict[str, Any], decisions: list[str]) -> dict[str, dict[str, Any]]:
    """Return the files of the modules that decide, of each room, and of the package."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for path, one in sorted(files.items()):
        if path in decisions:
            found["the modules that decide"][path] = one
        found[f"`{module_of(path).split('.')[0]}`"][path] = one
    return {**found, "the package": files}


def failures_of(files: dict[str, Any], decisions: list[str]) -> list[str]:
    """Return what is below its floor."""
    found = [f"{path} was not measured" for path in decisions if path not in files]
    for path in sorted(set(decisions) & set(files)):
        one = files[path]
        found += [f"{path}:{line}: no test runs it" for line in one["missing_lines"]]
        found += [f"{path}:{line}: no test continues at line {to}" for line, to in one["missing_branches"]]
    share = share_of(sums_of(files))
    if share < PACKAGE_FLOOR:
        found.append(f"{PACKAGE}: {share:.1f} % of the branches, and the floor is {PACKAGE_FLOOR:.0f} %")
    return found


def main() -> int:
    """Print what is below its floor, and write the page."""
    parser = argparse.ArgumentParser(description="Compare the coverage of a run with its floors.")
    parser.add_argument("report", type=Path, help="what coverage json wrote")
    parser.add_argument("--write", action="store_true", help="write docs/testing.md")
    chosen = parser.parse_args()
    files = json.loads(chosen.report.read_text(encoding="utf-8"))["files"]
    decisions = decisions_of()
    found = failures_of(files, decisions)
    rows = table(COLUMNS, [row_of(part, some) for part, some in by_part(files, decisions).items()])
    print(rows, *found, sep="\n")
    if chosen.write:
        write("coverage", f"The last run: {setting('coverage', 'pytest')}.\n\n{rows}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
