"""The process with the waits, like a triggerer. It also does what happens to their instances, and judges how the waits ended.

It reads the options and the emulator's address from standard input, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.sdk.log import configure_logging, reset_logging

from airflow_provider_astrobpm.client.errors import InstanceNotFoundError, WaitFailedError
from airflow_provider_astrobpm.emulator import EmulatorControl
from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmInstanceTrigger
from airflow_provider_astrobpm.waiting import event_payload
from airflow_provider_astrobpm.waiting.wait import InstanceWait
from benchmarks.faults.fates import FATES, PROCESS, meet_fate

if TYPE_CHECKING:
    from airflow_provider_astrobpm.client.moment import Moment
    from airflow_provider_astrobpm.client.search_result import SearchResult

KEY_EVERY = 50  # of so many waits one is for a business key
MAX_INTERVALS = 3  # without a successful poll, in addition to the pauses of one call
RESEND_SECONDS = 15.0  # the longest pauses of a call that succeeds with its fifth attempt: 1, 2, 4 and 8 s
TIMEOUT_SECONDS = (
    150.0  # after the end of its instance, a wait counts as lost; a vanished instance takes at least 60 s
)


@dataclass(kw_only=True)
class Case:
    """One wait, what happens to its instance, and how the wait ended.

    :param fate: what happens to the instance.
    :param at: when, in seconds since the beginning.
    :param by_key: whether the wait knows only the business key.
    :param starts_at: when the instance starts; 0 for before the wait.
    """

    business_key: str
    fate: str
    at: float
    by_key: bool = False
    starts_at: float = 0.0
    instance_id: str = ""
    end: str = "did not end"

    @property
    def is_right(self) -> bool:
        """Whether the wait ended as its instance did."""
        return self.end == FATES[self.fate][0]

    def start(self, control: EmulatorControl) -> None:
        """Start the instance."""
        self.instance_id = control.start(PROCESS, business_key=self.business_key)["id"]

    def meet_fate(self, control: EmulatorControl) -> None:
        """Let happen to the instance what is to happen."""
        meet_fate(control, self.instance_id, self.fate)

    async def wait(self, poll_interval: float) -> None:
        """Wait as a deferred task does."""
        trigger = AstroZeroBpmInstanceTrigger(
            astro_zero_conn_id="astro_zero_default",
            instance_id=None if self.by_key else self.instance_id,
            business_key=self.business_key if self.by_key else None,
            bpm_name=PROCESS if self.by_key else None,
            bp_statuses=["Approved"],
            poll_interval=poll_interval,
        )
        async with aclosing(trigger.run()) as events:  # type: ignore[type-var]
            payload = (await anext(events)).payload
        end = event_payload.load(json.loads(json.dumps(payload)))  # as the task receives it
        if isinstance(end, InstanceNotFoundError):
            self.end = "not found"
        elif isinstance(end, Exception) and not isinstance(end, WaitFailedError):
            self.end = f"{type(end).__name__}: {end}"
        else:
            word, instance = ("failed", end.instance) if isinstance(end, WaitFailedError) else ("done", end)
            shown = f"{word}: {instance.state}, {instance.bp_status}"
            self.end = shown if instance.id == self.instance_id else f"with another instance, {instance}"


@dataclass
class Silences:
    """Measure how long each wait was without a successful poll.

    :param begun: when the waits began, on the steady clock.
    """

    begun: float
    longest: float = 0.0
    successes: dict[InstanceWait, float] = field(default_factory=dict)

    def measure(self) -> None:
        """Measure from now on."""
        record_poll = InstanceWait.record_poll

        def recorded(
            wait: InstanceWait, result: SearchResult, now: Moment, connection: str | None = None
        ) -> None:
            record_poll(wait, result, now, connection)
            self.longest = max(self.longest, now.steady - self.successes.get(wait, self.begun))
            if wait.failure is None:
                self.successes[wait] = now.steady

        InstanceWait.record_poll = recorded  # type: ignore[method-assign,assignment]


def plan(waits: int, seconds: float, chance: random.Random) -> list[Case]:
    """Return the waits, and what is to happen to their instances."""
    frequencies = [frequency for _, frequency in FATES.values()]
    cases = []
    for number in range(waits):
        (fate,) = chance.choices(list(FATES), frequencies)
        case = Case(business_key=f"case-{number}", fate=fate, at=chance.uniform(0, seconds))
        if number % KEY_EVERY == 0:
            case.by_key, case.starts_at = True, chance.uniform(0, case.at)
            if fate == "vanish":  # it might vanish before any poll shows it, and its wait would last forever
                case.fate = "approve"
        cases.append(case)
    return cases


async def run(cases: list[Case], control: EmulatorControl, poll_interval: float) -> Silences:
    """Let all wait while things happen to their instances."""
    for case in cases:
        if not case.starts_at:
            case.start(control)
    silences = Silences(begun=time.monotonic())
    silences.measure()
    waits = [asyncio.create_task(case.wait(poll_interval)) for case in cases]
    events = [(case.starts_at, case.start) for case in cases if case.starts_at] + [
        (case.at, case.meet_fate) for case in cases
    ]
    reported = 0.0
    for at, happen in sorted(events, key=lambda event: event[0]):
        await asyncio.sleep(silences.begun + at - time.monotonic())
        await asyncio.to_thread(happen, control)
        if at - reported >= 60:
            reported = at
            print(f"  {at:.0f} s: {sum(one.done() for one in waits)} ended", flush=True)
    ended, _ = await asyncio.wait(waits, timeout=TIMEOUT_SECONDS)
    for one in ended:
        one.result()
    return silences


def report(cases: list[Case], silences: Silences, poll_interval: float) -> int:
    """Print how the waits ended, and return the exit code."""
    for (fate, end), number in sorted(Counter((case.fate, case.end) for case in cases).items()):
        print(f"{'right' if end == FATES[fate][0] else 'WRONG'}: {number} waits, {fate}: {end}")
    keys = [case for case in cases if case.by_key]
    wrong = sum(not case.is_right for case in cases)
    print(f"waits for a business key: {len(keys)}, {sum(case.is_right for case in keys)} of them right")
    print(f"all waits: {len(cases)}, {wrong} of them wrong")
    limit = MAX_INTERVALS * poll_interval + RESEND_SECONDS
    print(f"longest time without a successful poll of any wait: {silences.longest:.1f} s of {limit:g} s")
    return int(wrong > 0 or silences.longest > limit)


def main() -> int:
    """Run the workload from standard input."""
    work = json.loads(sys.stdin.readline())
    # A triggerer sends its log elsewhere. Thousands of waits log much here.
    sink = Path(os.devnull).open("wb", buffering=0)  # noqa: SIM115 - Airflow logs to it until the process ends
    reset_logging()  # type: ignore[no-untyped-call]
    configure_logging(json_output=True, output=sink, sending_to_supervisor=True)
    cases = plan(work["waits"], work["seconds"], random.Random(work["seed"]))  # noqa: S311 - the same in every run
    silences = asyncio.run(run(cases, EmulatorControl(work["control"]), work["poll_interval"]))
    return report(cases, silences, work["poll_interval"])


if __name__ == "__main__":
    sys.exit(main())
