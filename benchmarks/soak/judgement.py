"""Judge a soak: which waits were lost, which ended with a false outcome, and whether memory has grown. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.waiting.report import Verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

# The longest time from the end of an instance to the end of its wait: a vanished instance counts as gone after 60 s, Airflow
# notices a dead triggerer after 30 s, the next one starts, takes 50 waits a second and has room for nearly all, and calls pause
# after failures.
MAX_END_SECONDS = 240.0
MAX_MEMORY_GROWTH = 0.02
SLICES = 5  # of the window in which memory is compared
MAX_SHOWN = 5


@dataclass(kw_only=True)
class WaitHistory:
    """What happened to one wait. Times are seconds since the beginning.

    :param expected: how the wait must end, in words.
    :param closed: when its instance ended; ``None`` while it is open.
    :param ended: when the wait was seen to have ended; ``None`` while it waits.
    :param end: how the wait ended, in words.
    """

    name: str
    expected: str
    closed: float | None = None
    ended: float | None = None
    end: str = ""


class Sample(NamedTuple):
    """The resident bytes of all processes of one triggerer at a moment."""

    at: float
    triggerer: str
    memory: int


class Plan(NamedTuple):
    """What the soak meant to do, and what it did."""

    waits: int
    fewest_waiting: int
    kills: int
    killed: int
    faults: int


def lost(waits: Collection[WaitHistory], now: float) -> list[str]:
    """Return a line for each wait that ended too late after its instance, or has not ended although it should have."""
    lines = []
    for wait in waits:
        if wait.closed is None:
            continue
        seconds = (now if wait.ended is None else wait.ended) - wait.closed
        if seconds > MAX_END_SECONDS:
            what = "has not ended" if wait.ended is None else "ended"
            lines.append(f"{wait.name} {what} {seconds:.0f} s after its instance")
    return lines


def false(waits: Collection[WaitHistory]) -> list[str]:
    """Return a line for each wait that ended before its instance, or with another outcome."""
    lines = []
    for wait in waits:
        if wait.ended is None:
            continue
        if wait.closed is None:
            lines.append(f"{wait.name} ended while its instance was open: {wait.end}")
        elif wait.end != wait.expected:
            lines.append(f"{wait.name} ended with {wait.end!r} instead of {wait.expected!r}")
    return lines


def growth(samples: Sequence[Sample], begin: float, end: float) -> dict[str, float]:
    """Return by how much the memory of each triggerer that lived through a window, and a slice before, has grown, as a share.

    The window is cut into slices. The growth is from the median of the first slice to the highest median of the others, so that
    neither one peak nor one trough decides.
    """
    found = {}
    width = (end - begin) / SLICES
    for name in sorted({sample.triggerer for sample in samples}):
        slices = [
            [
                each.memory
                for each in samples
                if each.triggerer == name and begin + number * width <= each.at < begin + (number + 1) * width
            ]
            for number in range(SLICES)
        ]
        warmed_up = any(each.triggerer == name and each.at <= begin - width for each in samples)
        if warmed_up and all(slices):
            first, *others = [float(median(each)) for each in slices]
            found[name] = max(others) / first - 1
    return found


def judge(
    waits: Collection[WaitHistory],
    samples: Sequence[Sample],
    window: tuple[float, float],
    now: float,
    plan: Plan,
) -> list[Verdict]:
    """Judge a soak.

    :param window: the begin and the end of the time in which memory must not grow.
    :param now: the end of the soak.
    """
    late = [wait.ended - wait.closed for wait in waits if wait.ended is not None and wait.closed is not None]
    grown = growth(samples, *window)
    most = max(grown.values(), default=None)
    shown = ", ".join(f"{name} {share:+.1%}" for name, share in grown.items())
    text = f"no triggerer's memory grew by more than {MAX_MEMORY_GROWTH:.0%}: {shown or 'none lived long enough'}"
    return [
        _none(
            lost(waits, now),
            f"lost, of {sum(wait.closed is not None for wait in waits):,} waits whose instances ended",
        ),
        _none(false(waits), f"false, of {len(late):,} waits that ended"),
        Verdict(most is not None and most <= MAX_MEMORY_GROWTH, text),
        Verdict(bool(late), f"the latest wait ended {max(late, default=0):.0f} s after its instance"),
        Verdict(
            plan.fewest_waiting >= plan.waits,
            f"at least {plan.fewest_waiting:,} tasks waited at any time, of {plan.waits:,}",
        ),
        Verdict(plan.killed >= plan.kills > 0, f"{plan.killed} triggerers were killed, of {plan.kills}"),
        Verdict(plan.faults > 0, f"the server failed {plan.faults:,} times"),
    ]


def _none(lines: list[str], what: str) -> Verdict:
    more = "".join(f"\n        {line}" for line in lines[:MAX_SHOWN])
    return Verdict(not lines, f"{len(lines)} {what}{more}")


def outcomes(waits: Collection[WaitHistory]) -> list[tuple[str, int]]:
    """Return how many waits ended in which way, the most frequent first."""
    return Counter(wait.end for wait in waits if wait.ended is not None).most_common()


def section(title: str, ends: Sequence[tuple[str, int]], verdicts: Sequence[Verdict]) -> str:
    """Return the section of the page.

    :param title: what was measured, when and on which machine.
    :param ends: how many waits ended in which way.
    """
    lines = [f"{title}:", "", "| waits | ended |", "|--:|---|"]
    lines += [f"| {number:,} | {end} |" for end, number in ends]
    lines += ["", *(f"- {verdict.text}" for verdict in verdicts), ""]
    return "\n".join(lines)
