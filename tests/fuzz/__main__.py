"""Fuzz all targets, some at a time: ``python -m tests.fuzz [--seconds N] [--seed N] [--jobs N] [--keep] [TARGET ...]``.

Each target begins with its kept corpus. A target ends at its time, or at the first fault, whose input is written to
``build/fuzz``. The run fails if any target does. It prints a table, for docs/testing.md.

With a seed the inputs are the same in each run of the same code, and begin with the kept corpus alone. How many of them a target
gets through depends on the machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
OUTPUT = HERE.parent.parent / "build" / "fuzz"
MAX_BYTES = 4096  # of an input before its repetitions are written out
MAX_HANG_SECONDS = 60  # before libFuzzer ends an input
MAX_MEGABYTES = 1024
MAX_CORPUS_BYTES = 30_000  # of a target, in the repository


class Result(NamedTuple):
    """How the run of one target ended."""

    name: str
    code: int
    runs: int
    seconds: float
    edges: int
    kept: int
    output: str

    @property
    def row(self) -> str:
        """A row of the table."""
        rate = self.runs / self.seconds if self.seconds else 0
        ending = "nothing found" if self.code == 0 else "**a fault**"
        return f"| `{self.name}` | {self.runs:,} | {rate:,.0f} | {self.edges:,} | {self.kept:,} | {ending} |"


def fuzz(name: str, seconds: int, seed: int) -> Result:
    """Fuzz one target in a process of its own.

    :param name: the target.
    :param seconds: how long.
    :param seed: of libFuzzer's random numbers; 0 for another one in each run.
    """
    found = OUTPUT / name
    if seed:
        shutil.rmtree(found, ignore_errors=True)
    found.mkdir(parents=True, exist_ok=True)
    (CORPUS / name).mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-max_len={MAX_BYTES}",
        f"-timeout={MAX_HANG_SECONDS}",
        f"-rss_limit_mb={MAX_MEGABYTES}",
        f"-artifact_prefix={OUTPUT}/{name}-",
    ]
    begun = datetime.now(timezone.utc)
    ended = _run(name, *options, str(found), str(CORPUS / name), seed=seed)
    taken = (datetime.now(timezone.utc) - begun).total_seconds()
    lines = re.findall(r"#(\d+)\s+\w+\s+cov: (\d+) ft: \d+ corp: (\d+)/", ended.stdout)
    runs, edges, kept = map(int, lines[-1]) if lines else (0, 0, 0)
    return Result(name, ended.returncode, runs, min(taken, seconds), edges, kept, ended.stdout)


def minimise(name: str) -> None:
    """Write the smallest inputs that reach everything that the corpus and the last run reach into the corpus."""
    merged = OUTPUT / f"{name}-merged"
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    _run(name, "-merge=1", f"-max_len={MAX_BYTES}", str(merged), str(CORPUS / name), str(OUTPUT / name))
    inputs = sorted((path.read_bytes() for path in merged.iterdir()), key=lambda data: (len(data), data))
    shutil.rmtree(CORPUS / name)
    (CORPUS / name).mkdir(parents=True)
    room = MAX_CORPUS_BYTES
    for number, data in enumerate(inputs):
        room -= len(data)
        if room >= 0:
            (CORPUS / name / f"{number:03}").write_bytes(data)


def _run(name: str, *options: str, seed: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz.fuzz_one", name, *options]
    own = {"PYTHONPATH": str(HERE.parent.parent), "PYTHONHASHSEED": str(seed or "random")}
    # A process that libFuzzer ends does not clean up.
    with tempfile.TemporaryDirectory(prefix="astrobpm-fuzz-") as scratch:
        return subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=HERE.parent.parent,
            env=os.environ | own | {"TMPDIR": scratch, "AIRFLOW_HOME": scratch},
            check=False,
        )


def machine() -> str:
    """Return the date, the versions and the machine of this run."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{datetime.now(timezone.utc):%Y-%m-%d}, Python {platform.python_version()}, atheris {metadata.version('atheris')}, "
        f"{os.cpu_count()} cores, {memory:.0f} GB, {cpu[1] if cpu else platform.machine()}"
    )


def main() -> int:
    """Fuzz, and print a table. Return 1 if there was a fault."""
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415 - the constants of this module need no Airflow

    parser = argparse.ArgumentParser(description="Fuzz everything that decodes.")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument(
        "--seed", type=int, default=0, help="the same inputs in each run; 0 for others each time"
    )
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time")
    parser.add_argument("--keep", action="store_true", help="write what was found into the corpus, minimised")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    given = parser.parse_args()
    if unknown := set(given.targets) - set(TARGETS):
        parser.error(f"unknown target {', '.join(sorted(unknown))}; known are {', '.join(TARGETS)}")
    names = given.targets or list(TARGETS)
    with ThreadPoolExecutor(given.jobs) as workers:
        results = list(workers.map(partial(fuzz, seconds=given.seconds, seed=given.seed), names))
        if given.keep:
            list(workers.map(minimise, names))
    print(f"{given.seconds} s a target, seed {given.seed or 'random'}. {machine()}\n")  # noqa: T201
    print("| target | inputs | inputs/s | edges | kept | result |")  # noqa: T201
    print("|---|---:|---:|---:|---:|---|")  # noqa: T201
    print("\n".join(result.row for result in results))  # noqa: T201
    faults = [result for result in results if result.code]
    for result in faults:
        print(f"\n{result.name}:\n{result.output[-4000:]}")  # noqa: T201
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
