"""Write the measured parts of ``docs/testing.md``: what the tests cover, and which mutants they kill."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections import Counter
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import yaml

from performance_tables import tables_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = "airflow_provider_astrobpm"
ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "testing.md"
REASONS = ROOT / "scripts" / "survivors.yaml"
SCORE_COLUMNS = (
    "module", "mutants", "killed", "timed out", "survived", "wording", "not reached", "unclear", "score", "measured",
)  # fmt: skip
SURVIVOR_COLUMNS = ("module", "in", "change", "why no test can notice it")
NO_REASON = "no reason is known: a test is missing"
KILLED, SURVIVED, TIMED_OUT, NOT_REACHED = "killed", "survived", "timeout", "no tests"
"""Outcomes, as mutmut names them."""
UNNOTICED = (SURVIVED, NOT_REACHED)
WORDING = "wording"
"""The outcome of a survivor that only writes a sentence in another way."""
_LITERAL = re.compile(r'"[^"]*"|\'[^\']*\'')


class Result(NamedTuple):
    """What became of one mutant.

    :param module: the module, within the package.
    :param scope: the class and the function that it changes.
    :param text: the change in words.
    :param outcome: as mutmut names it.
    """

    module: str
    scope: str
    text: str
    outcome: str

    @property
    def key(self) -> str:
        """How ``scripts/survivors.yaml`` names it."""
        return f"{self.scope}: {self.text}"


def decisions_of(pyproject: Path = ROOT / "pyproject.toml") -> list[str]:
    """Return the paths of the modules that decide."""
    listed: list[str] = tomllib.loads(pyproject.read_text(encoding="utf-8"))["tool"]["mutmut"]["only_mutate"]
    return listed


def module_of(path: str) -> str:
    """Return the name of a module within the package."""
    return path.removeprefix(f"{PACKAGE}/").removesuffix(".py").replace("/", ".")


def today() -> str:
    """Return the date."""
    return f"{datetime.now(timezone.utc):%Y-%m-%d}"


def is_wording(text: str) -> bool:
    """Return whether a change only writes a sentence in capitals, in small letters, or between marks.

    Only a literal with a blank is a sentence. The name of an argument, a field or a state is none.

    :param text: the change, as the old and the new code.
    """
    old, _, new = text.partition(" → ")
    changed = [
        (before, after)
        for before, after in zip(_LITERAL.findall(old), _LITERAL.findall(new), strict=False)
        if before != after
    ]
    if len(changed) != 1:
        return False
    before, after = changed[0]
    words = before[1:-1]
    is_rewritten = after[1:-1] in (f"XX{words}XX", words.lower(), words.upper())
    return " " in words and is_rewritten and old.replace(before, after) == new


def setting(*packages: str) -> str:
    """Return the date, the machine, and the versions of Python and of some packages."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("apache-airflow", *packages))
    return (
        f"{today()}, on a machine with {os.cpu_count()} cores"
        f" ({cpu.group(1) if cpu else platform.machine()}) and {memory:.0f} GB of memory,"
        f" with Python {platform.python_version()}, {versions}"
    )


def reasons() -> dict[str, dict[str, str]]:
    """Return why mutants survive, by module and by ``Result.key``."""
    found: dict[str, dict[str, str]] | None = yaml.safe_load(REASONS.read_text(encoding="utf-8"))
    return found or {}


def without_reason(results: list[Result]) -> list[Result]:
    """Return the mutants that no test notices although one could."""
    known = reasons()
    return [one for one in results if one.outcome in UNNOTICED and one.key not in known.get(one.module, {})]


def outdated_reasons(results: list[Result]) -> list[str]:
    """Return the reasons whose mutant did not survive, or does not exist any more, in the modules of a whole run."""
    survivors = {(one.module, one.key) for one in results if one.outcome in UNNOTICED}
    measured = {one.module for one in results}
    return [
        f"{module}: {key}"
        for module, keys in reasons().items()
        for key in keys
        if module in measured and (module, key) not in survivors
    ]


def score_rows(results: list[Result]) -> list[tuple[str, ...]]:
    """Return the row of each module: how many of its mutants the tests notice."""
    rows = []
    for module in dict.fromkeys(one.module for one in results):
        counts = Counter(one.outcome for one in results if one.module == module)
        total = sum(counts.values())
        noticed = counts[KILLED] + counts[TIMED_OUT]
        columns = (KILLED, TIMED_OUT, SURVIVED, WORDING, NOT_REACHED)
        numbers = [counts[outcome] for outcome in columns]
        rows.append(
            (
                f"`{module}`",
                *map(str, (total, *numbers, total - sum(numbers))),
                f"{100 * noticed / total:.1f} %",
                today(),
            )
        )
    return rows


def survivor_rows(results: list[Result]) -> list[tuple[str, ...]]:
    """Return the row of each mutant that no test notices."""
    known = reasons()
    return [
        (
            f"`{one.module}`",
            f"`{one.scope or 'the module'}`",
            f"`{_cell(one.text)}`",
            _cell(known.get(one.module, {}).get(one.key, NO_REASON)),
        )
        for one in results
        if one.outcome in UNNOTICED
    ]


def write_mutation(results: list[Result]) -> None:
    """Write the tables of a run. The rows of modules that it left out stay."""
    scores = _merged(SCORE_COLUMNS, score_rows(results), results)
    survivors = _merged(SURVIVOR_COLUMNS, survivor_rows(results), results)
    total = [sum(int(row[column]) for row in scores) for column in range(1, len(SCORE_COLUMNS) - 2)]
    scores.append(("all", *map(str, total), f"{100 * (total[1] + total[2]) / max(1, total[0]):.1f} %", ""))
    modules = len({one.module for one in results})
    listed = [f"`{module_of(path)}`" for path in decisions_of()]
    missing = [name for name in listed if name not in {row[0] for row in scores}]
    left = f"Not measured yet: {', '.join(missing)}.\n\n" if missing else ""
    write(
        "mutation",
        f"The last run had {modules} of {len(listed)} modules: {setting('mutmut', 'pytest', 'hypothesis')}.\n\n{left}"
        f"{table(SCORE_COLUMNS, scores)}\nThe survivors:\n\n{table(SURVIVOR_COLUMNS, survivors)}",
    )


def _merged(
    columns: tuple[str, ...], rows: list[tuple[str, ...]], results: list[Result]
) -> list[tuple[str, ...]]:
    """Return rows together with those on the page that are of other modules, in the order of the modules."""
    measured = {f"`{one.module}`" for one in results}
    kept = [
        tuple(row.values())
        for table in tables_of(PAGE.read_text(encoding="utf-8"), "mutation")
        if table.columns == columns
        for row in table.rows
        if row["module"] not in measured and row["module"] != "all"
    ]
    return sorted([*rows, *kept], key=lambda row: row[0])


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table in Markdown. Columns of numbers are set to the right."""
    numeric = [
        bool(rows) and all(re.match(r"[\d.,]+", row[place]) for row in rows) for place in range(len(columns))
    ]
    rule = "|".join("--:" if each else ":--" for each in numeric)
    lines = [f"| {' | '.join(columns)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


def write(name: str, text: str) -> None:
    """Write a text between the markers of a section of the page."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, rest = PAGE.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    PAGE.write_text(f"{before}{begin}\n{text}{end}{after}", encoding="utf-8")


def _cell(text: str) -> str:
    return text.replace("|", "¦").replace("`", "'")
