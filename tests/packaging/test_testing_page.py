"""The floors of coverage, and the tables of docs/testing.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import testing_page
from coverage_floors import by_part, failures_of
from testing_page import (
    Result,
    decisions_of,
    is_wording,
    outdated_reasons,
    score_rows,
    table,
    without_reason,
    write_mutation,
)

ROOT = Path(__file__).parents[2]
DECIDES, OTHER = "airflow_provider_astrobpm/waiting/wait.py", "airflow_provider_astrobpm/cli/output.py"
PAGE = "Words.\n<!-- mutation: begin -->\n<!-- mutation: end -->\nMore words.\n"


def measured(
    branches: int, missing: list[list[int]] | None = None, lines: list[int] | None = None
) -> dict[str, Any]:
    """Return a file as ``coverage json`` reports it."""
    summary = {
        "num_statements": 10,
        "missing_lines": len(lines or []),
        "num_branches": branches,
        "missing_branches": len(missing or []),
    }
    return {"summary": summary, "missing_branches": missing or [], "missing_lines": lines or []}


def test_a_branch_of_a_decision_that_no_test_takes_fails() -> None:
    files = {DECIDES: measured(100, [[7, 9]]), OTHER: measured(100)}
    assert failures_of(files, [DECIDES]) == [f"{DECIDES}:7: no test continues at line 9"]
    assert failures_of(files, [OTHER]) == []


def test_a_line_of_a_decision_that_no_test_runs_fails() -> None:
    files = {DECIDES: measured(100, lines=[7])}
    assert failures_of(files, [DECIDES]) == [f"{DECIDES}:7: no test runs it"]


def test_a_decision_that_was_not_measured_fails() -> None:
    assert failures_of({OTHER: measured(2)}, [DECIDES]) == [f"{DECIDES} was not measured"]


@pytest.mark.parametrize(("missing", "fails"), [(5, False), (6, True)])
def test_the_package_has_a_floor_of_its_own(missing: int, fails: bool) -> None:
    files = {OTHER: measured(100, [[line, 1] for line in range(missing)])}
    assert bool(failures_of(files, [])) is fails


def test_every_file_is_in_its_room_and_decisions_are_also_apart() -> None:
    files = {DECIDES: measured(2), OTHER: measured(2)}
    parts = {part: sorted(some) for part, some in by_part(files, [DECIDES]).items()}
    assert parts == {
        "`cli`": [OTHER],
        "the modules that decide": [DECIDES],
        "`waiting`": [DECIDES],
        "the package": [OTHER, DECIDES],
    }


def test_the_listed_decisions_exist() -> None:
    decisions = decisions_of()
    assert decisions
    assert [path for path in decisions if not (ROOT / path).is_file()] == []
    assert len(set(decisions)) == len(decisions)


KILLED = Result("waiting.wait", "end", "", "killed")
SURVIVED = Result("waiting.wait", "end", "a | b → a", "survived")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page without results, and no reasons."""
    path = tmp_path / "testing.md"
    path.write_text(PAGE, encoding="utf-8")
    (tmp_path / "survivors.yaml").write_text("# none\n", encoding="utf-8")
    monkeypatch.setattr(testing_page, "PAGE", path)
    monkeypatch.setattr(testing_page, "REASONS", tmp_path / "survivors.yaml")
    monkeypatch.setattr(testing_page, "setting", lambda *_packages: "somewhere")
    return path


@pytest.fixture(autouse=True)
def _today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing_page, "today", lambda: "2026-11-29")


def test_only_a_mutant_that_a_test_notices_counts_for_the_score() -> None:
    outcomes = ["killed", "timeout", "survived", "no tests", "suspicious", "segfault", "killed", "wording"]
    rows = score_rows([Result("waiting.wait", "end", "", outcome) for outcome in outcomes])
    assert rows == [("`waiting.wait`", "8", "2", "1", "1", "1", "1", "2", "37.5 %", "2026-11-29")]


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("'it broke', → 'XXit brokeXX',", True),
        ("problem = 'Check it.' → problem = 'check it.'", True),
        ('f(x, "It\'s over") → f(x, "IT\'S OVER")', True),
        ("f(\"state\", 'it broke') → f(\"state\", 'IT BROKE')", True),
        ("f('state', 'it broke') → f('XXstateXX', 'it broke')", False),
        ("'states', → 'XXstatesXX',", False),
        ("'it broke', → None,", False),
        ("'it broke', → ", False),
        ("f('it broke') → g('IT BROKE')", False),
        ("f('it broke') → f('it broke', )", False),
        ("x < 'a b' → x <= 'a b'", False),
        ("", False),
    ],
)
def test_only_the_way_a_sentence_is_written_is_wording(text: str, is_one: bool) -> None:
    assert is_wording(text) is is_one


def test_a_mutant_that_no_test_reaches_needs_a_reason_too(page: Path) -> None:
    assert without_reason([KILLED, Result("waiting.wait", "end", "a → b", "no tests")])
    assert without_reason([KILLED, Result("waiting.wait", "end", "'a b' → 'A B'", "wording")]) == []


def test_a_reason_is_for_one_mutant_that_survives(page: Path) -> None:
    assert without_reason([KILLED, SURVIVED]) == [SURVIVED]
    reasons = page.with_name("survivors.yaml")
    reasons.write_text(
        'waiting.wait:\n  "end: a | b → a": the same\n  "end: gone": no more\nclient.backoff:\n  "x: y": z\n',
        encoding="utf-8",
    )
    assert without_reason([KILLED, SURVIVED]) == []
    assert outdated_reasons([KILLED, SURVIVED]) == ["waiting.wait: end: gone"]
    assert outdated_reasons([KILLED]) == ["waiting.wait: end: a | b → a", "waiting.wait: end: gone"]


def test_a_run_of_some_modules_leaves_the_rows_of_the_others(page: Path) -> None:
    write_mutation([KILLED, SURVIVED])
    write_mutation([Result("client.backoff", "pause", "", "killed")])
    text = page.read_text(encoding="utf-8")
    assert text.startswith("Words.\n")
    assert text.endswith("More words.\n")
    assert "| `client.backoff` | 1 | 1 | 0 | 0 | 0 | 0 | 0 | 100.0 % | 2026-11-29 |" in text
    assert "| `waiting.wait` | 2 | 1 | 0 | 1 | 0 | 0 | 0 | 50.0 % | 2026-11-29 |" in text
    assert "| all | 3 | 2 | 0 | 1 | 0 | 0 | 0 | 66.7 % |  |" in text
    assert f"| `waiting.wait` | `end` | `a ¦ b → a` | {testing_page.NO_REASON} |" in text


def test_the_page_names_the_modules_that_were_not_measured(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testing_page, "decisions_of", lambda: [DECIDES, OTHER])
    write_mutation([KILLED])
    text = page.read_text(encoding="utf-8")
    assert "The last run had 1 of 2 modules: somewhere.\n\nNot measured yet: `cli.output`.\n" in text
    write_mutation([Result("cli.output", "show", "", "killed")])
    assert "Not measured yet" not in page.read_text(encoding="utf-8")


def test_columns_of_numbers_are_set_to_the_right() -> None:
    assert table(("a", "b"), [("x", "1,000")]) == "| a | b |\n|:--|--:|\n| x | 1,000 |\n"
