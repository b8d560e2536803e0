"""``make test-matrix``: run the built wheel on a real Airflow of every line, and write down what differs.

For each line the script finds a Python, creates an environment in ``.venv-lines`` from the pins in ``constraints/``, installs the
wheel into it, and runs ``tests/matrix`` against an Airflow that is started from there. An environment is used again while its pins
and its Python are the same. A pre-release may fail: it is reported, and does not fail the run.

A run of all lines in full depth writes ``docs/versions.md``; any other run writes the same page to ``build/matrix``, with what it
has observed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from airflow_lines import LINES, ROOT, Line
from local_stack import environment
from tests.matrix.page import PAGE, Result, page

ENVIRONMENTS = ROOT / ".venv-lines"
REPORTS = ROOT / "build" / "matrix"
DEPTHS = {"smoke": "matrix and smoke", "half": "matrix"}


def run(*command: str | Path) -> None:
    """Run a command in the repository.

    :raises subprocess.CalledProcessError: if it fails.
    """
    subprocess.run([str(each) for each in command], cwd=ROOT, env=environment(), check=True)


def build_wheel() -> Path:
    """Build the wheel, and return its path."""
    folder = ENVIRONMENTS / "wheel"
    shutil.rmtree(folder, ignore_errors=True)
    print("Build the wheel", flush=True)
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def prepare(line: Line, wheel: Path) -> Path:
    """Install a line and the wheel, and return the folder of the environment's programs.

    :raises LookupError: if the machine has no Python for the line.
    :raises subprocess.CalledProcessError: if the installation fails.
    """
    folder, found = ENVIRONMENTS / line.name, line.python()
    programs, stamp = folder / "bin", folder / "pins"
    pins = hashlib.sha256(line.constraints.read_bytes()).hexdigest() + f" {found}"
    uv = [sys.executable, "-m", "uv"]
    install: list[str | Path] = [*uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", programs / "python"]
    if not stamp.is_file() or stamp.read_text() != pins:
        print(f"Create an environment with {found}", flush=True)
        run(*uv, "venv", "--quiet", "--clear", "--python", found, folder)
        run(*install, "--constraints", line.constraints, "apache-airflow", wheel)
        stamp.write_text(pins)
    run(*install, "--no-deps", "--reinstall-package", "airflow-provider-astrobpm", wheel)
    return programs


def observe(line: Line, programs: Path, depth: str) -> Result:
    """Run the tests on a line, and return what they have observed."""
    report = REPORTS / f"{line.name}.json"
    report.unlink(missing_ok=True)
    variables = {"MATRIX_LINE": line.name, "MATRIX_PROGRAMS": str(programs), "MATRIX_REPORT": str(report)}
    began = time.monotonic()
    tests = [sys.executable, "-m", "pytest", "-m", DEPTHS[depth], "-n", "0", "-q", "tests/matrix"]
    code = subprocess.run(tests, cwd=ROOT, env={**os.environ, **variables}, check=False).returncode
    found = json.loads(report.read_text()) if report.is_file() else {}
    return Result(line, depth, passed=code == 0, seconds=time.monotonic() - began, found=found)


def main() -> int:
    """Run the chosen lines. Return 0 if all passed that must pass."""
    parser = argparse.ArgumentParser(description="Run the built wheel on every line of Airflow.")
    parser.add_argument(
        "lines",
        nargs="*",
        metavar="LINE",
        help=f"a line, and its depth if it differs: 3.1=smoke; by default all of {' '.join(LINES)}",
    )
    parser.add_argument(
        "--depth",
        choices=DEPTHS,
        default="half",
        help="smoke: the promises; half: every row of the table too (default: %(default)s)",
    )
    chosen = parser.parse_args()
    depths = {}
    for each in chosen.lines or LINES:
        name, _, depth = each.partition("=")
        depths[name] = depth or chosen.depth
        if name not in LINES or depths[name] not in DEPTHS:
            parser.error(f"no such line or depth: {each}")
    REPORTS.mkdir(parents=True, exist_ok=True)
    wheel, results = build_wheel(), []
    for name, depth in depths.items():
        line = LINES[name]
        print(f"\nAirflow {name} ({depth})", flush=True)
        began = time.monotonic()
        try:
            programs = prepare(line, wheel)
        except (LookupError, subprocess.CalledProcessError) as error:
            print(f"cannot be installed: {error}", flush=True)
            results.append(Result(line, depth, passed=False, seconds=time.monotonic() - began))
            continue
        print(f"installed after {time.monotonic() - began:.0f} s", flush=True)
        results.append(observe(line, programs, depth))
    full = list(depths) == list(LINES) and set(depths.values()) == {"half"}
    target = PAGE if full and all(each.passed for each in results) else REPORTS / PAGE.name
    target.write_text(page(results), encoding="utf-8")
    print()
    for each in results:
        print(each.summary)
    print(f"What was observed is in {target.relative_to(ROOT)}")
    return 0 if all(each.passed or each.line.may_fail for each in results) else 1


if __name__ == "__main__":
    sys.exit(main())
