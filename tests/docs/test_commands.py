"""Every benchmark and every target of make that a page or the code names exists."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT

FOLDERS = ("docs", "airflow_provider_astrobpm", "benchmarks", "example_dags", "scripts", "tests")
FILES = sorted(
    [
        *ROOT.glob("*.md"),
        ROOT / "Makefile",
        *(
            path
            for folder in FOLDERS
            for kind in ("md", "rst", "py")
            for path in (ROOT / folder).rglob(f"*.{kind}")
        ),
    ]
)
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in FILES}
TARGETS = set(re.findall(r"^([a-z-]+):", TEXTS["Makefile"], re.MULTILINE))


def named(pattern: str) -> dict[str, str]:
    """Return each name that a pattern finds, with a file that has it."""
    found = re.compile(pattern, re.MULTILINE)
    return {
        match[match.lastindex or 0]: path for path, text in TEXTS.items() for match in found.finditer(text)
    }


BENCHMARKS = named(r"python3? -m benchmarks\.([\w.]*\w)")
# A target is in a code span, or is a line of a code block.
USED_TARGETS = named(r"`make ([a-z-]+)(?: [^`\n]*)?`|^make ([a-z-]+)(?: [A-Z]+=\S+)*$")


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_the_benchmark_exists(name: str) -> None:
    path = ROOT / "benchmarks" / name.replace(".", "/")
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), BENCHMARKS[name]


@pytest.mark.parametrize("name", sorted(USED_TARGETS))
def test_the_target_exists(name: str) -> None:
    assert name in TARGETS, USED_TARGETS[name]


def test_the_names_are_found() -> None:
    assert "tokens" in BENCHMARKS
    assert {"test", "up", "bench-waiting"} <= set(USED_TARGETS)
