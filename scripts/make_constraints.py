"""Regenerate the files in ``constraints/``: one pinned set for each Airflow line, and one with the oldest versions.

Each set is resolved from ``pyproject.toml`` (dependencies and dependency groups) for all Pythons of its line together, which
``airflow_lines`` names; markers express the differences between Pythons. A file contains only names and versions.

The Makefile installs the sets.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from airflow_lines import LINES, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable

GROUPS = ("dev", "ha", "browser", "release", "docs", "quality", "fuzz")


def oldest_versions() -> list[str]:
    """Return each dependency that ``pyproject.toml`` declares, pinned to its lower bound."""
    declared = [Requirement(line) for line in metadata.requires("airflow-provider-astrobpm") or []]
    return [
        f"{req.name}=={bound.version}"
        for req in declared
        for bound in req.specifier
        if bound.operator == ">="
    ]


def resolve(name: str, pins: Iterable[str], oldest_python: str) -> None:
    """Write ``constraints/<name>.txt`` with the newest versions that ``pins`` allows.

    :param oldest_python: the oldest Python that the set is for.
    """
    target = ROOT / "constraints" / f"{name}.txt"
    with tempfile.TemporaryDirectory() as folder:
        pins_file = Path(folder, "pins.txt")
        pins_file.write_text("\n".join(pins) + "\n")
        options = ["--universal", "--upgrade", "--python-version", oldest_python]
        options += [part for group in GROUPS for part in ("--group", group)]
        plain = ["--quiet", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
        files = ["--constraints", str(pins_file), "--output-file", str(target), "pyproject.toml"]
        subprocess.run(
            [sys.executable, "-m", "uv", "pip", "compile", *options, *plain, *files], cwd=ROOT, check=True
        )
    print(f"{target.relative_to(ROOT)}: {len(target.read_text().splitlines())} pins")


def main() -> None:
    """Resolve every set."""
    for line in LINES.values():
        resolve(line.constraints.stem, line.pins, line.floor)
    oldest = LINES["3.0"]
    resolve("lowest", [*oldest_versions(), *oldest.pins], oldest.floor)


if __name__ == "__main__":
    main()
