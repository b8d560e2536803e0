"""``python -m benchmarks.waiting``: measure, print the results, and check the limits."""

from __future__ import annotations

import argparse
import resource
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import benchmarks.waiting
from benchmarks.waiting.measuring import CONTENDERS, measure
from benchmarks.waiting.report import PAGE, Costs, LongAnswer, judge, tables, write

if TYPE_CHECKING:
    from benchmarks.waiting.workload import Cost

COUNTS = (1, 10, 100, 1000, 5000)
SECONDS = 60.0
ROWS = 50_000


def main() -> int:
    """Measure, print the results, and check the limits."""
    options = _options()
    # At times each waiting task of the http provider has its own socket. The processes inherit this limit.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(
        signal.SIGTERM, lambda number, _: sys.exit(128 + number)
    )  # so that the emulator ends as well
    with tempfile.TemporaryDirectory(prefix="astrobpm-") as folder:
        costs, answer = _measure(options, Path(folder))
    text = tables(costs, answer, options.seconds)
    print(f"\n{text}")
    if options.write:
        write(text)
    verdicts = judge(costs, answer)
    for verdict in verdicts:
        print(f"{'kept  ' if verdict.kept else 'MISSED'}  {verdict.text}")
    return int(not all(verdict.kept for verdict in verdicts))


def _measure(options: argparse.Namespace, folder: Path) -> tuple[Costs, LongAnswer | None]:
    for name in options.contenders:  # compiles modules that have no bytecode yet
        measure(CONTENDERS[name], 1, 1, folder=folder)
    costs: Costs = {}
    for count in options.counts:
        for name in options.contenders:
            if name == "idle" and count < min(options.counts[-2:]):
                continue  # only needed for the memory of an additional task
            cost = costs[name, count] = measure(CONTENDERS[name], count, options.seconds, folder=folder)
            _print_cost(f"{count} tasks, {CONTENDERS[name].title}", cost)
    if not options.rows or "ours" not in options.contenders:
        return costs, None
    cost = measure(CONTENDERS["ours"], 1, options.seconds, folder=folder, others=options.rows - 1)
    _print_cost(f"1 task, a response of {options.rows} rows", cost)
    return costs, LongAnswer(options.rows, cost)


def _print_cost(what: str, cost: Cost) -> None:
    print(
        f"{what}: {cost.requests} requests, {cost.cpu:.2f} s CPU, {cost.memory / 1e6:.1f} MB,"
        f" blocks {cost.block:.3f} s and {cost.start_block:.3f} s at start, {cost.start:.0f} s to start",
        flush=True,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(benchmarks.waiting.__doc__ or "").splitlines()[0])
    parser.add_argument("--counts", type=_counts, default=COUNTS, metavar="N,...", help="waiting tasks")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="the duration of each measurement")
    parser.add_argument(
        "--contenders",
        type=_contenders,
        default=tuple(CONTENDERS),
        metavar="NAME,...",
        help="ours, http, idle",
    )
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of the long response; 0 for none")
    parser.add_argument("--write", action="store_true", help=f"write the tables into {PAGE.name}")
    return parser.parse_args()


def _counts(text: str) -> tuple[int, ...]:
    return tuple(sorted({int(part) for part in text.split(",")}))


def _contenders(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := set(names) - CONTENDERS.keys():
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
    return names


if __name__ == "__main__":
    sys.exit(main())
