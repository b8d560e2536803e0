"""``make test-matrix``: run the built wheel on a real Airflow of every line, and write down what differs.

For each line the script finds a Python, creates an environment in ``.venv-lines`` from the pins in ``constraints/``, installs the
wheel into it, and runs ``tests/matrix`` against an Airflow that is started from there. An environment is used again while its pins
and its Python are the same. A pre-release may fail: it is reported, and does not fail the run.

A run that observes every row on every line writes ``docs/versions.md``. Any other run writes the same page to ``build/matrix``, with
what it has observed. The output of each line is in ``build/matrix``, too.
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from airflow_lines import LINES, ROOT, Line
from local_stack import environment
from tests.matrix.page import PAGE, Result, page
from tests.matrix.rows import ROWS

DRIVERS = ("psycopg2-binary", "asyncpg")  # of PostgreSQL
ENVIRONMENTS = ROOT / ".venv-lines"
REPORTS = ROOT / "build" / "matrix"
SHOWN_CHARACTERS = 20_000  # of the output of a line that fails
DEPTHS = {"smoke": "matrix and smoke", "half": "matrix"}


def run(*command: str | Path, log: IO[bytes] | None = None) -> None:
    """Run a command in the repository.

    :param log: the file for its output.
    :raises subprocess.CalledProcessError: if it fails.
    """
    words = [str(each) for each in command]
    subprocess.run(words, cwd=ROOT, env=environment(), stdout=log, stderr=subprocess.STDOUT, check=True)


def build_wheel() -> Path:
    """Build the wheel, and return its path."""
    folder = ENVIRONMENTS / "wheel"
    shutil.rmtree(folder, ignore_errors=True)
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def prepare(line: Line, wheel: Path, log: IO[bytes]) -> Path:
    """Install a line and the wheel, and return the folder of the environment's programs.

    :param log: the file for the output of all commands.
    :raises LookupError: if the machine has no Python for the line.
    :raises subprocess.CalledProcessError: if the installation fails.
    """
    folder, found = ENVIRONMENTS / line.name, line.python()
    programs, stamp = folder / "bin", folder / "pins"
    pins = hashlib.sha256(line.constraints.read_bytes()).hexdigest() + f" {found}"
    uv = [sys.executable, "-m", "uv"]
    install: list[str | Path] = [*uv, "pip", "install", "--quiet", "--compile-bytecode"]
    install += ["--python", programs / "python"]
    if not stamp.is_file() or stamp.read_text() != pins:
        run(*uv, "venv", "--quiet", "--clear", "--python", found, folder, log=log)
        run(*install, "--constraints", line.constraints, "apache-airflow", *DRIVERS, wheel, log=log)
        stamp.write_text(pins)
    run(*install, "--no-deps", "--reinstall-package", "airflow-provider-astrobpm", wheel, log=log)
    return programs


def try_line(line: Line, wheel: Path, depth: str) -> Result:
    """Run the tests on a line, and return what they have observed. Show their output if they fail."""
    report, log = REPORTS / f"{line.name}.json", REPORTS / f"{line.name}.log"
    report.unlink(missing_ok=True)
    began = time.monotonic()
    with log.open("wb") as output:
        try:
            programs = prepare(line, wheel, output)
            installed = time.monotonic() - began
            variables = {
                "MATRIX_LINE": line.name,
                "MATRIX_PROGRAMS": str(programs),
                "MATRIX_REPORT": str(report),
            }
            command = [sys.executable, "-m", "pytest", "-m", DEPTHS[depth], "-n", "0", "-q", "tests/matrix"]
            env = {**os.environ, **variables}
            done = subprocess.run(
                command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT, check=False
            )
            passed = done.returncode == 0
        except (LookupError, subprocess.CalledProcessError) as error:
            output.write(f"cannot be installed: {error}\n".encode())
            passed, installed = False, time.monotonic() - began
    found = json.loads(report.read_text()) if report.is_file() else {}
    result = Result(line, depth, passed, installed=installed, seconds=time.monotonic() - began, found=found)
    shown = "" if passed else log.read_text(errors="replace")[-SHOWN_CHARACTERS:]
    print(f"{shown}{result.summary}", flush=True)
    return result


def main() -> int:
    """Run the chosen lines. Return 0 if all passed that must pass."""
    parser = argparse.ArgumentParser(description="Run the built wheel on every line of Airflow.")
    every = " ".join(LINES)
    parser.add_argument(
        "lines",
        nargs="*",
        metavar="LINE",
        help=f"a line, with its depth if it has another: 3.1=smoke; by default {every}",
    )
    parser.add_argument(
        "--depth",
        choices=DEPTHS,
        default="half",
        help="smoke: the promises of gates and starts; half: every row of the table, too (default: %(default)s)",
    )
    parser.add_argument(
        "--jobs", type=int, default=2, help="how many lines run at the same time (default: %(default)s)"
    )
    chosen = parser.parse_args()
    depths = {}
    for each in chosen.lines or LINES:
        name, _, depth = each.partition("=")
        depths[name] = depth or chosen.depth
        if name not in LINES or depths[name] not in DEPTHS:
            parser.error(f"no such line or depth: {each}")
    REPORTS.mkdir(parents=True, exist_ok=True)
    wheel = build_wheel()
    with ThreadPoolExecutor(chosen.jobs) as pool:
        results = list(pool.map(lambda name: try_line(LINES[name], wheel, depths[name]), depths))
    target = PAGE if is_complete(results) else REPORTS / PAGE.name
    target.write_text(page(results), encoding="utf-8")
    print(f"What was observed is in {target.relative_to(ROOT)}")
    return 0 if all(each.passed or each.line.may_fail for each in results) else 1


def is_complete(results: list[Result]) -> bool:
    """Return whether every row was observed on every line, so that the page may replace the committed one."""
    lines = [each.line for each in results]
    return lines == list(LINES.values()) and all(each.observed(row) for each in results for row in ROWS)


if __name__ == "__main__":
    sys.exit(main())
