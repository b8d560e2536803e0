"""``python -m benchmarks.batch``: measure, print the results, and check the limits."""

from __future__ import annotations

import argparse
import sys

import benchmarks.batch
from benchmarks.batch.measuring import Bench, Launching, start_emulator
from benchmarks.batch.report import BEGIN, CONTENDERS, END, Report
from benchmarks.waiting.report import PAGE, write
from local_stack import Stack

LAUNCHES = 10_000
PAIRS = 5
MAPPED = 1000  # Airflow's default limit for mapped tasks
SECONDS = 60.0
WARM_UP = 100


def main() -> int:
    """Measure, print the results, and check the limits."""
    options = _options()
    with Stack() as stack:
        report = _measure(options, stack)
    print(f"\n{report.tables()}")
    if options.write:
        write(report.tables(), BEGIN, END)
    verdicts = report.judge()
    for verdict in verdicts:
        print(f"{'kept  ' if verdict.kept else 'MISSED'}  {verdict.text}")
    return int(not all(verdict.kept for verdict in verdicts))


def _measure(options: argparse.Namespace, stack: Stack) -> Report:
    emulator = start_emulator(stack)
    warm_up = Bench(stack, emulator, WARM_UP)  # compiles modules that have no bytecode yet
    for name in CONTENDERS:
        warm_up.launch(name)
    bench = Bench(stack, emulator, options.launches)
    rounds = [_round(bench, number) for number in range(options.pairs)]
    waiting = bench.wait(options.seconds)
    print(f"waiting: {waiting}", flush=True)
    runs = bench.deploy(options.mapped) if options.mapped else {}
    for name, run in runs.items():
        print(f"{name}: {run}", flush=True)
    return Report(options.launches, rounds, waiting, options.mapped, runs)


def _round(bench: Bench, number: int) -> dict[str, Launching]:
    """Measure each contender once. The order changes each round, because the speed of the machine may drift."""
    names = [*CONTENDERS]
    names = names[number % len(names) :] + names[: number % len(names)]
    taken = {}
    for name in names:
        one = taken[name] = bench.launch(name)
        print(
            f"{number + 1}. {CONTENDERS[name]}: {one.rate:.0f}/s, {one.cost.seconds:.2f} s, {one.cost.cpu:.2f} s CPU,"
            f" {one.cost.memory / 1e6:.1f} MB in addition to {one.cost.idle / 1e6:.1f} MB",
            flush=True,
        )
    return taken


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(benchmarks.batch.__doc__ or "").splitlines()[0])
    parser.add_argument("--launches", type=int, default=LAUNCHES, help="launches in a batch")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="how many rounds to measure")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long to measure the wait")
    parser.add_argument("--mapped", type=int, default=MAPPED, help="launches in a deployment; 0 for none")
    parser.add_argument("--write", action="store_true", help=f"write the tables into {PAGE.name}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
