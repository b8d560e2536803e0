"""Report the measurements as tables, and check them against their limits and the formula in the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.waiting.measuring import POLL_INTERVAL_SECONDS, STATES
from benchmarks.waiting.report import MAX_BLOCK_SECONDS, Verdict, setting

if TYPE_CHECKING:
    from benchmarks.scale.measuring import Shared
    from benchmarks.scale.searches import Searched

BEGIN, END = "<!-- scale: begin -->", "<!-- scale: end -->"
MEAN_JITTER = 0.05  # by which a poll interval is shorter, on average
MAX_DEVIATION = 0.1  # of the queries from the formula

SEARCHES = {
    "ended": "a wait whose instance has ended",
    "key": "a wait for a business key",
    "watch": "two polls of an asset event",
    "retry": "the search of a retry",
}
IN_TRIGGERER = ("ended", "key", "watch", "retry")


def expected_queries(triggerers: int, seconds: float) -> float:
    """Return how many queries the formula gives: each triggerer lists each state in which an awaited instance is."""
    return triggerers * len(STATES) * seconds / (POLL_INTERVAL_SECONDS * (1 - MEAN_JITTER))


def judge(shared: dict[int, Shared], searched: dict[tuple[str, int], Searched]) -> list[Verdict]:
    """Check every measurement."""
    verdicts = []
    for triggerers, cost in shared.items():
        formula = expected_queries(triggerers, cost.seconds)
        # A poll that is due at the edge of the measurement counts or does not.
        slack = MAX_DEVIATION * formula + triggerers * len(STATES)
        verdicts += [
            Verdict(
                abs(cost.queries - formula) <= slack,
                f"{triggerers} triggerers: {cost.queries} queries, by the formula {formula:.0f}, give or take {slack:.0f}",
            ),
            Verdict(cost.tokens == triggerers, f"{triggerers} triggerers: {cost.tokens} tokens, one each"),
        ]
    for (name, ended), found in searched.items():
        text = f"{SEARCHES[name]}, {ended:,} ended: the loop was blocked for {found.block:.3f} s, at most {MAX_BLOCK_SECONDS:g} s"
        verdicts.append(Verdict(found.block <= MAX_BLOCK_SECONDS, text))
    return verdicts


def tables(
    shared: dict[int, Shared], searched: dict[tuple[str, int], Searched], waits: int, label: str = ""
) -> str:
    """Return all measurements as Markdown tables."""
    parts = [f"{label}Measured {setting()}:\n"]
    if shared:
        seconds = next(iter(shared.values())).seconds
        parts.append(
            f"| triggerers for {waits:,} tasks | queries in {seconds:.0f} s | by the formula | tokens | connections | CPU | memory of all |\n"
            "|--:|--:|--:|--:|--:|--:|--:|\n"
            + "".join(
                f"| {number} | {cost.queries:,} | {expected_queries(number, cost.seconds):.0f} | {cost.tokens} |"
                f" {cost.sockets} | {cost.cpu:.2f} s | {cost.memory / 1e6:.0f} MB |\n"
                for number, cost in shared.items()
            )
        )
    if searched:
        parts.append(
            "| ended instances | search | requests | bytes | takes | CPU | memory | longest block |\n"
            "|--:|:--|--:|--:|--:|--:|--:|--:|\n"
            + "".join(
                f"| {ended:,} | {SEARCHES[name]} | {found.calls} | {found.received / 1e6:.2f} MB | {found.seconds:.2f} s |"
                f" {found.cpu:.2f} s | {found.peak / 1e6:.0f} MB | {found.block * 1000:.0f} ms |\n"
                for (name, ended), found in searched.items()
            )
        )
    return "\n".join(parts)
