"""Regenerate the files in ``constraints/``: one pinned set for each Airflow line, and one with the oldest versions.

Each set is resolved from ``pyproject.toml`` (dependencies and dependency groups) for all supported Pythons together;
markers express the differences between Pythons. A file contains only names and versions.

The Makefile installs the sets.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
GROUPS = ("dev", "ha", "browser", "release", "docs", "quality", "fuzz")

# Airflow's own bounds allow newer releases that break its tasks or its API. Each extra pin excludes one.
AIRFLOW_LINES: dict[str, list[str]] = {
    "airflow-3.0": ["apache-airflow==3.0.6", "fastapi<0.132", "pyjwt<2.11"],
    "airflow-3.1": ["apache-airflow==3.1.8"],
    "airflow-3.2": ["apache-airflow==3.2.2", "fastapi<0.137", "svcs<26"],
    "airflow-3.3": ["apache-airflow==3.3.2"],
    # A pre-release, for make test-next. Each of its packages is named, because otherwise pre-releases are ignored.
    "airflow-3.4": [
        "apache-airflow==3.4.0b2",
        "apache-airflow-core==3.4.0b2",
        "apache-airflow-task-sdk==1.4.0b2",
    ],
}

OLDEST_PYTHON = {"airflow-3.4": "3.11"}
"""The oldest Python of a line, if it is newer than the project's."""


def oldest_versions() -> list[str]:
    """Return each dependency that ``pyproject.toml`` declares, pinned to its lower bound."""
    declared = [Requirement(line) for line in metadata.requires("airflow-provider-astrobpm") or []]
    return [
        f"{req.name}=={bound.version}"
        for req in declared
        for bound in req.specifier
        if bound.operator == ">="
    ]


def resolve(name: str, pins: list[str]) -> None:
    """Write ``constraints/<name>.txt`` with the newest versions that ``pins`` allows."""
    target = ROOT / "constraints" / f"{name}.txt"
    with tempfile.TemporaryDirectory() as folder:
        pins_file = Path(folder, "pins.txt")
        pins_file.write_text("\n".join(pins) + "\n")
        options = ["--universal", "--upgrade", "--python-version", OLDEST_PYTHON.get(name, "3.10")]
        options += [part for group in GROUPS for part in ("--group", group)]
        plain = ["--quiet", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
        files = ["--constraints", str(pins_file), "--output-file", str(target), "pyproject.toml"]
        subprocess.run(
            [sys.executable, "-m", "uv", "pip", "compile", *options, *plain, *files], cwd=ROOT, check=True
        )
    print(f"{target.relative_to(ROOT)}: {len(target.read_text().splitlines())} pins")


def main() -> None:
    """Resolve every set."""
    for name, pins in AIRFLOW_LINES.items():
        resolve(name, pins)
    resolve("lowest", [*oldest_versions(), *AIRFLOW_LINES["airflow-3.0"]])


if __name__ == "__main__":
    main()
