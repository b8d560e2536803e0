"""Read what ``mutmut run`` found, and write ``docs/testing.md``; ``python scripts/mutation_scores.py``.

The exit code is 1 if no test notices a mutant for which ``scripts/survivors.yaml`` gives no reason, or if a reason there is
outdated. A mutant that only writes a sentence in another way needs no reason.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code

from testing_page import (
    PACKAGE,
    SCORE_COLUMNS,
    SURVIVED,
    UNNOTICED,
    WORDING,
    Result,
    is_wording,
    outdated_reasons,
    score_rows,
    table,
    without_reason,
    write_mutation,
)

FOLDER = Path("mutants")
INTERNAL_ERROR = 3  # of pytest: mutmut counts it as killed, although no test has failed


def results_of(folder: Path = FOLDER) -> list[Result]:
    """Return what became of the mutants of each module that was run to its end.

    :param folder: where mutmut keeps its mutants.
    """
    found = []
    for file in sorted(folder.glob(f"{PACKAGE}/**/*.py.meta")):
        codes = json.loads(file.read_text(encoding="utf-8"))["exit_code_by_key"]
        if None not in codes.values():
            path = file.relative_to(folder).with_suffix("")
            found += [result_of(name, code, path) for name, code in codes.items()]
    return found


def result_of(name: str, code: int, path: Path) -> Result:
    """Return what became of one mutant.

    :param name: mutmut's name for it.
    :param code: the exit code of its process.
    :param path: its module.
    """
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    outcome = "suspicious" if code == INTERNAL_ERROR else status_by_exit_code[code]
    function = name.rpartition(".")[2].rpartition("__mutmut_")[0].removeprefix("x_").removeprefix("xǁ")
    text = change_of(get_diff_for_mutant(name, path=path)) if outcome in UNNOTICED else ""
    if outcome == SURVIVED and is_wording(text):
        outcome = WORDING
    return Result(module, function.replace("ǁ", "."), text, outcome)


def change_of(diff: str) -> str:
    """Return the changed lines of a unified diff in one line."""
    lines = re.findall(r"^([-+])(?![-+]{2} )(.*)$", diff, re.MULTILINE)
    old, new = (" ".join(line.strip() for sign, line in lines if sign == which) for which in "-+")
    return f"{old} → {new}"


def main() -> int:
    """Print the scores and the survivors without a reason, and write the page."""
    parser = argparse.ArgumentParser(description="Read what mutmut found.")
    parser.add_argument("--write", action="store_true", help="write docs/testing.md")
    chosen = parser.parse_args()
    results = results_of()
    print(table(SCORE_COLUMNS, score_rows(results)))
    missing, outdated = without_reason(results), outdated_reasons(results)
    for one in missing:
        print(f"no reason: {one.module}: {one.key}")
    for key in outdated:
        print(f"outdated reason: {key}")
    if chosen.write:
        write_mutation(results)
    return 1 if missing or outdated or not results else 0


if __name__ == "__main__":
    sys.exit(main())
