"""Report the measurements as tables, and check that every cost is within its limit."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.waiting.measuring import STATES
from benchmarks.waiting.report import MAX_BLOCK_SECONDS, Verdict, setting

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.batch.measuring import Launching, Run, Waiting

BEGIN, END = "<!-- batch: begin -->", "<!-- batch: end -->"
BARE = "bare"
CONTENDERS = {"list": "this operator, from a list", "file": "this operator, from a file", BARE: "bare loop"}
DEPLOYED = {"batch": "one task of this operator", "mapped": "mapped tasks of the http provider"}

# The limits for the operator.
MIN_SHARE_OF_BARE_LOOP = 0.9
MAX_MEMORY_BYTES = 150e6


@dataclass(frozen=True)
class Report:
    """All measurements.

    :param count: the number of launches in a batch.
    :param rounds: for each round, contender to result.
    :param waiting: the cost of waiting for a batch.
    :param mapped: the number of launches in the deployment.
    :param runs: DAG to run; empty if there was no deployment.
    """

    count: int
    rounds: list[dict[str, Launching]]
    waiting: Waiting
    mapped: int
    runs: dict[str, Run]

    def share(self, name: str) -> float:
        """Return the median of a contender's rate as a share of the bare loop's rate in the same round."""
        return median(one[name].rate / one[BARE].rate for one in self.rounds)

    def memory(self, name: str) -> int:
        """Return the most memory that a contender used in addition to its idle memory."""
        return max(one[name].cost.memory for one in self.rounds)

    def judge(self) -> list[Verdict]:
        """Check every measurement against its limit."""
        verdicts = []
        for name, title in CONTENDERS.items():
            if name == BARE:
                continue
            share, memory = self.share(name), self.memory(name)
            verdicts += [
                Verdict(
                    share >= MIN_SHARE_OF_BARE_LOOP,
                    f"{title}: {share:.1%} of the bare loop's rate, at least {MIN_SHARE_OF_BARE_LOOP:.0%}",
                ),
                Verdict(
                    memory <= MAX_MEMORY_BYTES,
                    f"{title}: {memory / 1e6:.0f} MB, at most {MAX_MEMORY_BYTES / 1e6:.0f} MB",
                ),
            ]
        requests, block = self.waiting.requests, self.waiting.cost.block
        most = len(STATES)
        return [
            *verdicts,
            Verdict(requests <= most, f"the wait: {requests} requests a poll, at most {most}"),
            Verdict(
                block <= MAX_BLOCK_SECONDS,
                f"the wait: the loop was blocked for {block:.3f} s, at most {MAX_BLOCK_SECONDS:g} s",
            ),
        ]

    def tables(self) -> str:
        """Return all tables as Markdown."""
        parts = [f"{_caption(len(self.rounds))}\n", self._launching(), self._waiting()]
        return "\n".join([*parts, self._deployed()] if self.runs else parts)

    def _launching(self) -> str:
        def middle(name: str, value: Callable[[Launching], float]) -> float:
            return median(value(one[name]) for one in self.rounds)

        return (
            f"| {self.count:,} launches by | starts a second | of the bare loop | takes | CPU | memory |\n"
            "|:--|--:|--:|--:|--:|--:|\n"
        ) + "".join(
            f"| {title} | {middle(name, lambda one: one.rate):,.0f} | {self.share(name):.0%} |"
            f" {middle(name, lambda one: one.cost.seconds):.1f} s |"
            f" {middle(name, lambda one: one.cost.cpu):.2f} s | {self.memory(name) / 1e6:.0f} MB |\n"
            for name, title in CONTENDERS.items()
        )

    def _waiting(self) -> str:
        wait, cost = self.waiting, self.waiting.cost
        return (
            "| one trigger for | requests a poll | a poll takes | CPU of a poll | memory | longest block | while starting |\n"
            "|--:|--:|--:|--:|--:|--:|--:|\n"
            f"| {self.count:,} instances | {wait.requests} | {cost.poll:.2f} s | {cost.cpu / max(1, wait.polls):.2f} s |"
            f" {cost.memory / 1e6:.0f} MB | {cost.block * 1000:.0f} ms | {cost.start_block * 1000:.0f} ms |\n"
        )

    def _deployed(self) -> str:
        return (
            f"| {self.mapped:,} launches by | starts a second | the run takes |\n|:--|--:|--:|\n"
        ) + "".join(
            f"| {DEPLOYED[name]} | {run.rate:,.{0 if run.rate >= 100 else 1}f} | {run.seconds:,.0f} s |\n"
            for name, run in self.runs.items()
        )


def _caption(rounds: int) -> str:
    here = setting()
    return f"{here[0].upper()}{here[1:]}; the first table has the medians of {rounds} rounds, but the maximum of memory:"
