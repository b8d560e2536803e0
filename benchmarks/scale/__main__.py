"""``python -m benchmarks.scale``: measure, print the results, and check the limits."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import benchmarks.scale
from benchmarks.scale.measuring import measure_search, measure_triggerers, tenant
from benchmarks.scale.report import BEGIN, END, SEARCHES, judge, tables
from benchmarks.waiting.report import PAGE, write

if TYPE_CHECKING:
    from benchmarks.scale.measuring import Shared
    from benchmarks.scale.searches import Searched

TRIGGERERS, WAITS, SECONDS = (1, 2, 4), 1000, 60.0
ENDED = (100, 1000, 10_000, 100_000)


def main() -> int:
    """Measure, print the results, and check the limits."""
    options = _options()
    signal.signal(
        signal.SIGTERM, lambda number, _: sys.exit(128 + number)
    )  # so that the other processes end as well
    shared: dict[int, Shared] = {}
    searched: dict[tuple[str, int], Searched] = {}
    with tempfile.TemporaryDirectory(prefix="astrobpm-") as name:
        folder = Path(name)
        for number in options.triggerers:
            shared[number] = measure_triggerers(number, options.waits, options.seconds, folder=folder)
            print(f"{number} triggerers: {shared[number]}", flush=True)
        for ended in options.ended:
            with tenant(ended, folder) as (url, last):
                for search in SEARCHES:
                    found = searched[search, ended] = measure_search(search, url, ended, last, folder=folder)
                    print(f"{SEARCHES[search]}, {ended} ended: {found}", flush=True)
    text = tables(shared, searched, options.waits, options.label)
    print(f"\n{text}")
    if options.write:
        write(text, BEGIN, END)
        from plots import draw_scale  # noqa: PLC0415 - matplotlib, which only this needs

        (PAGE.parent / "pictures" / "scale.svg").write_text(draw_scale(PAGE.read_text()))
    verdicts = judge(shared, searched)
    for verdict in verdicts:
        print(f"{'kept  ' if verdict.kept else 'MISSED'}  {verdict.text}")
    return int(not all(verdict.kept for verdict in verdicts))


def _options() -> argparse.Namespace:
    description = (benchmarks.scale.__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=description)
    parser.add_argument("--triggerers", type=_counts, default=TRIGGERERS, metavar="N,...", help="how many")
    parser.add_argument("--waits", type=int, default=WAITS, help=f"waiting tasks ({WAITS})")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="the duration of each measurement")
    parser.add_argument("--ended", type=_counts, default=ENDED, metavar="N,...", help="ended instances")
    parser.add_argument("--label", default="", help="words to write above the tables")
    parser.add_argument(
        "--write", action="store_true", help=f"write the tables into {PAGE.name}, and their plot"
    )
    return parser.parse_args()


def _counts(text: str) -> tuple[int, ...]:
    return tuple(sorted({int(part) for part in text.split(",") if part}))


if __name__ == "__main__":
    sys.exit(main())
