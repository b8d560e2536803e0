"""Report the measurements as tables, and check that every cost is within its limit."""

from __future__ import annotations

import math
import os
import platform
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.waiting.measuring import CONTENDERS, POLL_INTERVAL_SECONDS, ROOT, STATES
from benchmarks.waiting.workload import Cost

PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- waiting: begin -->", "<!-- waiting: end -->"

# The limits for the provider's trigger.
JUDGED_TASKS = 1000
MIN_REQUEST_RATIO = 100
MIN_CPU_RATIO = 10
MAX_BLOCK_SECONDS = 0.2  # from here on a triggerer warns that its loop was blocked
MAX_BYTES_PER_TASK = 4096
MIN_POLL_INTERVAL_SECONDS = (
    0.9 * POLL_INTERVAL_SECONDS
)  # the poller shortens the interval randomly by up to a tenth


Costs = dict[tuple[str, int], Cost]


class LongAnswer(NamedTuple):
    """One waiting task of the provider, with a response of ``rows`` rows to each poll."""

    rows: int
    cost: Cost


class Verdict(NamedTuple):
    """Whether one cost is within its limit, with a description."""

    kept: bool
    text: str


def bytes_per_task(costs: Costs, name: str) -> float | None:
    """Return the resident bytes of an additional waiting task, from the two highest counts; None if they are too close."""
    counts = sorted(count for contender, count in costs if contender == name)[-2:]
    if len(counts) < 2 or counts[1] - counts[0] < 1000:
        return None
    fewer, more = counts
    return (costs[name, more].memory - costs[name, fewer].memory) / (more - fewer)


def judge(costs: Costs, answer: LongAnswer | None) -> list[Verdict]:
    """Check every measurement against its limit."""
    verdicts = []
    for count in sorted(count for name, count in costs if name == "ours"):
        cost = costs["ours", count]
        most = min(count, len(STATES)) * (math.floor(cost.seconds / MIN_POLL_INTERVAL_SECONDS) + 1)
        verdicts += [
            Verdict(cost.requests <= most, f"{count} tasks: {cost.requests} requests, at most {most}"),
            _block_verdict(f"{count} tasks", cost),
        ]
    if answer:
        verdicts.append(_block_verdict(f"a response of {answer.rows} rows", answer.cost))
    if ("ours", JUDGED_TASKS) in costs and ("http", JUDGED_TASKS) in costs:
        ours, http = costs["ours", JUDGED_TASKS], costs["http", JUDGED_TASKS]
        verdicts += [
            _ratio_verdict("requests", http.requests / max(1, ours.requests), MIN_REQUEST_RATIO),
            _ratio_verdict("CPU", http.cpu / ours.cpu, MIN_CPU_RATIO),
        ]
    ours_each, idle_each = bytes_per_task(costs, "ours"), bytes_per_task(costs, "idle")
    if ours_each is not None and idle_each is not None:
        own = ours_each - idle_each
        text = (
            f"{own:.0f} bytes per additional task in addition to Airflow's own, at most {MAX_BYTES_PER_TASK}"
        )
        verdicts.append(Verdict(own <= MAX_BYTES_PER_TASK, text))
    return verdicts


def _block_verdict(what: str, cost: Cost) -> Verdict:
    text = f"{what}: the loop was blocked for {cost.block:.3f} s, at most {MAX_BLOCK_SECONDS:g} s"
    return Verdict(cost.block <= MAX_BLOCK_SECONDS, text)


def _ratio_verdict(what: str, times: float, least: float) -> Verdict:
    text = f"{JUDGED_TASKS} tasks: {times:.1f} times less {what} than the http provider, at least {least:g} times"
    return Verdict(times >= least, text)


def tables(costs: Costs, answer: LongAnswer | None, seconds: float) -> str:
    """Return all measurements as Markdown tables."""
    parts = [f"{_caption(seconds)}\n"]
    parts.append(
        "| tasks | trigger | requests | CPU | memory | longest block | while starting |\n"
        "|--:|:--|--:|--:|--:|--:|--:|\n"
        + "".join(
            f"| {count:,} | {CONTENDERS[name].title} | {cost.requests:,} | {cost.cpu:.2f} s |"
            f" {cost.memory / 1e6:.0f} MB | {cost.block * 1000:.0f} ms | {cost.start_block * 1000:.0f} ms |\n"
            for count in sorted({count for _, count in costs})
            for name in CONTENDERS
            if (cost := costs.get((name, count)))
        )
    )
    each = {CONTENDERS[name].title: size for name in CONTENDERS if (size := bytes_per_task(costs, name))}
    if each:
        counts = sorted({count for _, count in costs})[-2:]
        listed = ", ".join(f"{title} {size / 1024:.1f} KB" for title, size in each.items())
        parts.append(f"Memory for each additional task from {counts[0]:,} to {counts[1]:,}: {listed}.\n")
    if answer:
        cost = answer.cost
        parts.append(
            "| one task, and a response of | a poll takes | CPU for a poll | memory at most | longest block |\n"
            "|--:|--:|--:|--:|--:|\n"
            f"| {answer.rows:,} rows | {cost.poll:.2f} s | {cost.cpu / max(1, cost.requests):.2f} s |"
            f" {cost.peak / 1e6:.0f} MB | {cost.block * 1000:.0f} ms |\n"
        )
    return "\n".join(parts)


def _caption(seconds: float) -> str:
    return f"In {seconds:g} s, {setting()}:"


def setting() -> str:
    """Return a description of the machine and the versions."""
    names = {
        "Airflow": "apache-airflow",
        "http provider": "apache-airflow-providers-http",
        "aiohttp": "aiohttp",
    }
    versions = ", ".join(f"{title} {metadata.version(name)}" for title, name in names.items())
    today = datetime.now(timezone.utc).date()
    return (
        f"on {today}, on a machine with {os.cpu_count()} cores ({processor()}) and"
        f" {psutil.virtual_memory().total / 2**30:.0f} GB that the emulator shares,"
        f" with Python {platform.python_version()}, {versions}"
    )


def processor() -> str:
    """Return the model of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.machine())


def write(text: str, begin: str = BEGIN, end: str = END) -> None:
    """Write the tables between two markers of the page."""
    before, rest = PAGE.read_text().split(begin)
    _, after = rest.split(end)
    PAGE.write_text(f"{before}{begin}\n{text}{end}{after}")
