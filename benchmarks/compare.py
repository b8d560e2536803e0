"""Measure whether a change has made the benchmarks worse: ``python -m benchmarks.compare BASE``.

The benchmarks of this checkout, with what is not committed yet, alternate with those of the commit or branch BASE. Both run
in the same environment, each version with its own package. The exit code is 1 if a figure of this provider is worse than at
BASE by more than its tolerance, and 2 if the versions cannot be compared.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.batch import ROOT
from local_stack import Stack, StackError, environment

if TYPE_CHECKING:
    from collections.abc import Callable

OPTIONS = {
    "waiting": "--contenders ours --counts 1000 --seconds 20 --rows 0",
    "batch": "--launches 3000 --pairs 2 --seconds 10 --mapped 0",
    "gate": "--rounds 3",
}
SHORT = ["waiting", "batch"]
ROUNDS = 3
TIMEOUT_SECONDS = 7200.0  # for one run of a benchmark

# More than the medians of two equal versions differed while other work ran: in requests a quarter (one poll in 20 s), in CPU
# a fifth, in memory a hundredth. Rates differ more then, and the bare loop's rate shows it.
TOLERANCES = {"requests": 0.3, "CPU": 0.25, "memory": 0.05, "rate": 0.25}
REFERENCES = ("http provider", "Airflow alone", "bare loop")  # they show how much the machine varies

# The lines in which the benchmarks print their measurements, also those of older versions.
LINES = (
    r"(?P<what>\d+ tasks?, .+): (?P<requests>\d+) requests, (?P<CPU>[\d.]+) s CPU, (?P<memory>[\d.]+) MB,",
    r"\d+\. (?P<what>.+): (?P<rate>\d+)/s, [\d.]+ s, (?P<CPU>[\d.]+) s CPU, (?P<memory>[\d.]+) MB",
    r"\d+\. (?P<what>.+): (?P<CPU>[\d.]+) s CPU \(",
    r"(?P<what>waiting): .+ cpu=(?P<CPU>[\d.]+), memory=(?P<bytes>\d+), .+=(?P<polls>\d+), requests=(?P<requests>\d+)\)",
)
VERDICT = re.compile(r"^(kept  |MISSED)  ", re.MULTILINE)  # begins the last lines of a benchmark

Figures = dict[tuple[str, str], list[float]]
"""By what was measured, and its kind, which is a key of ``TOLERANCES``."""


class Row(NamedTuple):
    """A figure, with its values in all runs of both versions."""

    what: str
    kind: str
    base: list[float]
    now: list[float]

    def ratio(self, of: Callable[[list[float]], float] = median) -> float:
        """Return the median now, divided by the median at BASE, or the same of another value."""
        base, now = of(self.base), of(self.now)
        return now / base if base else 1 + now

    @property
    def verdict(self) -> str:
        """``WORSE`` if the median and the best value are both worse by more than the tolerance.

        Other work on the machine can only make a value worse, so it changes the best one the least. A reference ``varies``
        if its median is worse or better by more than the tolerance.
        """
        best, sign = (max, -1) if self.kind == "rate" else (min, 1)
        middle, least = self.ratio() ** sign, self.ratio(best) ** sign
        most = 1 + TOLERANCES[self.kind]
        if self.what.endswith(REFERENCES):
            return "" if 1 / most <= middle <= most else "varies"
        return "WORSE" if min(middle, least) > most else ""


def parse(benchmark: str, output: str) -> Figures:
    """Return the figures that a benchmark has printed."""
    figures: Figures = {}
    for line in output.splitlines():
        for found in filter(None, (re.match(pattern, line) for pattern in LINES)):
            texts = found.groupdict()
            what = f"{benchmark}: {texts.pop('what').replace('an answer of', 'a response of')}"
            values = {kind: float(text) for kind, text in texts.items()}
            if "polls" in values:
                values["CPU"] /= max(1, values.pop("polls"))
                values["memory"] = values.pop("bytes") / 1e6
            for kind, value in values.items():
                figures.setdefault((what, kind), []).append(value)
    return figures


def compare(base: Figures, now: Figures) -> list[Row]:
    """Return a row for each figure.

    :raises StackError: if only one version has measured a figure.
    """
    if different := base.keys() ^ now.keys():
        raise StackError(f"only one version has measured {', '.join(sorted(map(', '.join, different)))}")
    return [Row(*name, base[name], now[name]) for name in now]


def table(rows: list[Row]) -> str:
    """Return the medians as a Markdown table, with the minimum and the maximum in brackets."""

    def listed(values: list[float]) -> str:
        return f"{median(values):.4g} ({min(values):.4g} to {max(values):.4g})"

    return "| | | BASE | now | now/BASE | tolerance | |\n|:--|:--|--:|--:|--:|--:|:--|\n" + "".join(
        f"| {row.what} | {row.kind} | {listed(row.base)} | {listed(row.now)} | {row.ratio():.2f} |"
        f" {TOLERANCES[row.kind]:.0%} | {row.verdict} |\n"
        for row in rows
    )


def main() -> int:
    """Measure both versions, print the table, and return the exit code."""
    options = _options()
    try:
        with Stack() as stack:
            rows = _measure(stack, {"BASE": _checkout(stack, options.base), "now": ROOT}, options)
    except StackError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"\n{table(rows)}")
    return int(any(row.verdict == "WORSE" for row in rows))


def _measure(stack: Stack, folders: dict[str, Path], options: argparse.Namespace) -> list[Row]:
    figures: dict[str, Figures] = {version: {} for version in folders}
    for folder in folders.values():
        check_imports(folder, options.benchmarks)
    for number in range(options.rounds):
        for benchmark in options.benchmarks:
            # The order changes each round, because the speed of the machine may drift.
            for version in [*folders] if number % 2 else [*reversed(folders)]:
                found = _run(stack, benchmark, vars(options)[benchmark], folders[version])
                for (what, kind), values in found.items():
                    figures[version].setdefault((what, kind), []).extend(values)
                    listed = ", ".join(f"{value:.4g}" for value in values)
                    print(f"{number + 1}. {version}, {what}, {kind}: {listed}", flush=True)
    return compare(figures["BASE"], figures["now"])


def _run(stack: Stack, benchmark: str, options: str, folder: Path) -> Figures:
    """Run a benchmark, and return its figures."""
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", *shlex.split(options)]
    child = stack.start(benchmark, command, _environment(folder), folder)
    code = child.wait_for_end(TIMEOUT_SECONDS)
    figures, is_complete = parse(benchmark, child.output()), VERDICT.search(child.output())
    if not figures or not is_complete:  # the exit code alone is also 1 if the benchmark has missed a limit
        raise child.failure(f"ended with exit code {code} and no verdict, or printed no figures")
    return figures


def _checkout(stack: Stack, base: str) -> Path:
    """Write the files of a commit into the scratch folder, which changes nothing in the repository."""
    archive, folder = stack.home / "base.zip", stack.home / "base"
    _output(["git", "archive", "--output", str(archive), base], ROOT)
    shutil.unpack_archive(archive, folder)
    return folder


def check_imports(folder: Path, benchmarks: list[str]) -> None:
    """Check that the processes of a version import the package and its benchmarks from its folder.

    :raises StackError: if they do not, for example because they import the installed package.
    """
    modules = ["airflow_provider_astrobpm", *(f"benchmarks.{benchmark}" for benchmark in benchmarks)]
    code = f"from importlib.util import find_spec; print(*(find_spec(name).origin for name in {modules}), sep='\\n')"
    for path in _output([sys.executable, "-c", code], Path("/"), _environment(folder)).splitlines():
        if not Path(path).is_relative_to(folder):
            raise StackError(f"the version in {folder} would run {path}")


def _environment(folder: Path) -> dict[str, str]:
    # Without bytecode this would measure the compiler.
    kept = {name: value for name, value in environment().items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(folder)}


def _output(command: list[str], folder: Path, env: dict[str, str] | None = None) -> str:
    process = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if process.returncode:
        raise StackError(f"{command[0]}: {process.stderr.strip()}")
    return process.stdout


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("base", metavar="BASE", help="a commit or a branch")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each version runs")
    parser.add_argument("--benchmarks", nargs="+", choices=OPTIONS, default=SHORT, help="which to run")
    for benchmark, options in OPTIONS.items():
        parser.add_argument(f"--{benchmark}", default=options, help=f"its options ({options})")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
