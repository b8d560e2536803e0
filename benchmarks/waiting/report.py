"""What the measurements say: tables, and whether every cost is within its limit."""

from __future__ import annotations

import math
import os
import platform
from importlib import metadata
from typing import NamedTuple

from benchmarks.waiting.measuring import CONTENDERS, INTERVAL, ROOT, STATES
from benchmarks.waiting.orders import Cost

PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- waiting: begin -->", "<!-- waiting: end -->"

# What the provider's trigger may cost.
JUDGED_AT = 1000
FEWER_REQUESTS = 100
LESS_CPU = 10
LONGEST_BLOCK = 0.2  # from there on a triggerer warns that its loop was blocked
BYTES_A_WAITER = 4096
SHORTEST_PAUSE = 0.9 * INTERVAL  # the poller's interval is up to a tenth shorter, at random


Costs = dict[tuple[str, int], Cost]


class LongAnswer(NamedTuple):
    """One waiting task of the provider's, and an answer of so many rows to each look."""

    rows: int
    cost: Cost


class Verdict(NamedTuple):
    """Whether one cost is within its limit, in words."""

    kept: bool
    words: str


def bytes_a_waiter(costs: Costs, name: str) -> float | None:
    """Return the resident bytes that a further waiting task takes, between the two highest counts if they tell."""
    counts = sorted(count for contender, count in costs if contender == name)[-2:]
    if len(counts) < 2 or counts[1] - counts[0] < 1000:
        return None
    fewer, more = counts
    return (costs[name, more].memory - costs[name, fewer].memory) / (more - fewer)


def judge(costs: Costs, answer: LongAnswer | None) -> list[Verdict]:
    """Hold what was measured against what it may be; what was not measured is not judged."""
    verdicts = []
    for count in sorted(count for name, count in costs if name == "ours"):
        cost = costs["ours", count]
        most = min(count, len(STATES)) * (math.floor(cost.seconds / SHORTEST_PAUSE) + 1)
        verdicts += [
            Verdict(cost.requests <= most, f"{count} tasks: {cost.requests} requests, at most {most}"),
            _block_verdict(f"{count} tasks", cost),
        ]
    if answer:
        verdicts.append(_block_verdict(f"an answer of {answer.rows} rows", answer.cost))
    if ("ours", JUDGED_AT) in costs and ("http", JUDGED_AT) in costs:
        ours, http = costs["ours", JUDGED_AT], costs["http", JUDGED_AT]
        verdicts += [
            _ratio_verdict("requests", http.requests / max(1, ours.requests), FEWER_REQUESTS),
            _ratio_verdict("CPU", http.cpu / ours.cpu, LESS_CPU),
        ]
    ours_each, idle_each = bytes_a_waiter(costs, "ours"), bytes_a_waiter(costs, "idle")
    if ours_each is not None and idle_each is not None:
        own = ours_each - idle_each
        words = f"{own:.0f} bytes a further task beyond Airflow's own, at most {BYTES_A_WAITER}"
        verdicts.append(Verdict(own <= BYTES_A_WAITER, words))
    return verdicts


def _block_verdict(what: str, cost: Cost) -> Verdict:
    words = f"{what}: the loop was blocked for {cost.block:.3f} s, at most {LONGEST_BLOCK:g} s"
    return Verdict(cost.block <= LONGEST_BLOCK, words)


def _ratio_verdict(what: str, times: float, least: float) -> Verdict:
    words = (
        f"{JUDGED_AT} tasks: {times:.1f} times less {what} than the http provider, at least {least:g} times"
    )
    return Verdict(times >= least, words)


def tables(costs: Costs, answer: LongAnswer | None, seconds: float) -> str:
    """Return everything that was measured, as Markdown."""
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
    each = {CONTENDERS[name].title: size for name in CONTENDERS if (size := bytes_a_waiter(costs, name))}
    if each:
        counts = sorted({count for _, count in costs})[-2:]
        listed = ", ".join(f"{title} {size / 1024:.1f} KB" for title, size in each.items())
        parts.append(f"Memory for each further task from {counts[0]:,} to {counts[1]:,}: {listed}.\n")
    if answer:
        cost = answer.cost
        parts.append(
            "| one task, and an answer of | a poll takes | CPU for a poll | memory at most | longest block |\n"
            "|--:|--:|--:|--:|--:|\n"
            f"| {answer.rows:,} rows | {cost.look:.2f} s | {cost.cpu / max(1, cost.requests):.2f} s |"
            f" {cost.peak / 1e6:.0f} MB | {cost.block * 1000:.0f} ms |\n"
        )
    return "\n".join(parts)


def _caption(seconds: float) -> str:
    return f"In {seconds:g} s, {setting()}:"


def setting() -> str:
    """Return on what was measured, in words."""
    names = {
        "Airflow": "apache-airflow",
        "http provider": "apache-airflow-providers-http",
        "aiohttp": "aiohttp",
    }
    versions = ", ".join(f"{title} {metadata.version(name)}" for title, name in names.items())
    return (
        f"on a machine with {os.cpu_count()} cores that the emulator shares,"
        f" with Python {platform.python_version()}, {versions}"
    )


def write(text: str, begin: str = BEGIN, end: str = END) -> None:
    """Put the tables between two marks of the page."""
    before, rest = PAGE.read_text().split(begin)
    _, after = rest.split(end)
    PAGE.write_text(f"{before}{begin}\n{text}{end}{after}")
