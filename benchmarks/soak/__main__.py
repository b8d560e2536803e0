"""``python -m benchmarks.soak``: let tasks wait while everything else fails, and print the verdict and a table."""

from __future__ import annotations

import argparse
import math
import os
import random
import resource
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

import benchmarks.soak
from airflow_provider_astrobpm.emulator import EmulatorControl
from benchmarks.faults.fates import FATES, PROCESS, meet_fate
from benchmarks.soak.judgement import MAX_END_SECONDS, Plan, Sample, WaitHistory, judge, outcomes, section
from benchmarks.waiting.report import setting, write
from local_services import install_services, start_postgres
from local_stack import DATABASE_VARIABLE, Child, Deployment, Stack

if TYPE_CHECKING:
    from benchmarks.soak.task_rows import TaskRows

BEGIN, END = "<!-- soak: begin -->", "<!-- soak: end -->"
WAITS, MINUTES = 2000, 30.0
POLL_INTERVAL_SECONDS = 5.0
CLOSE_SECONDS = 0.5  # between the ends of two instances
FAULT_SECONDS = 4.0  # between two faults
KILL_SHARE, MIN_KILL_SECONDS = 1 / 6, 60.0  # of the time, between two kills; five minutes of thirty
WINDOW_SHARE = 1 / 3  # the last ten minutes of thirty
SAMPLE_SECONDS = 2.0
MAX_ENDED_KEPT = 1000  # ended instances in the tenant; it removes older ones, as an archive job does
CREATED_AT_ONCE = 200
KEY_EVERY = 50  # of so many waits one knows only the business key
START_SECONDS = 600.0
TICK_SECONDS = 0.5
CAPACITY_SHARE = 1.05  # of its part of the waits: a triggerer is nearly full, so that its memory does not follow their number
TRIGGERERS = 2
ENOUGH_QUERIES = 10  # after which the triggerers have begun to poll

# What the server does at times, each for a few requests of any kind.
FAULTS: tuple[dict[str, Any], ...] = (
    {"fault": "html", "status": 200},
    {"fault": "html", "status": 502},
    {"fault": "not_json"},
    {"fault": "wrong_shape"},
    {"fault": "status", "status": 503},
    {"fault": "status", "status": 429, "retry_after": 1},
    {"fault": "drop_before"},
    {"fault": "drop_after"},
    {"fault": "truncate"},
    {"fault": "trickle", "seconds": 2.0},
    {"fault": "delay", "seconds": 3.0},
)


@dataclass(kw_only=True)
class Wait(WaitHistory):
    """One wait and its instance."""

    number: int
    fate: str
    instance_id: str
    key: str
    by_key: bool


@dataclass
class Triggerers:
    """The two triggerers, and which of them are killed when.

    Each is killed in turn, but in the window in which memory is compared always the same one, so that the other lives through it.
    """

    deployment: Deployment
    window_begin: float
    children: list[Child] = field(default_factory=list)
    killed: int = 0
    _next: int = 0

    def start(self) -> None:
        """Start all."""
        self.children = [self.deployment.start_triggerer() for _ in range(TRIGGERERS)]

    def kill(self, now: float, tolerance: float) -> str:
        """Kill every process of one triggerer, start another, and return the name of the dead one."""
        which = self._next
        if now < self.window_begin - tolerance:
            self._next = (which + 1) % TRIGGERERS
        child = self.children[which]
        while members := child.members():
            for process in members:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.05)
        self.children[which] = self.deployment.start_triggerer()
        self.killed += 1
        return child.name

    def samples(self, now: float) -> list[Sample]:
        """Return the memory of each."""
        found = []
        for child in self.children:
            memory = 0
            for process in child.members():
                with suppress(psutil.NoSuchProcess):
                    memory += process.memory_info().rss
            found.append(Sample(now, child.name, memory))
        return found

    def check(self) -> None:
        """Raise an error if one has ended although it was not killed."""
        for child in self.children:
            if child.exit_code is not None:
                raise child.failure(f"ended with exit code {child.exit_code}")


class Soak:
    """The run. Times are seconds since it began."""

    def __init__(
        self, rows: TaskRows, control: EmulatorControl, triggerers: Triggerers, options: argparse.Namespace
    ) -> None:
        self._rows = rows
        self._control = control
        self._triggerers = triggerers
        self._chance = random.Random(options.seed)  # noqa: S311 - the same fates and faults in every run
        self._options = options
        self._began = 0.0
        self._open: dict[int, Wait] = {}
        self._ended_ids: list[str] = []
        self.waits: list[Wait] = []
        self.samples: list[Sample] = []
        self.fewest = options.waits
        self.faults = 0

    @property
    def now(self) -> float:
        """Seconds since the beginning; negative before it."""
        return time.monotonic() - self._began if self._began else -1.0

    def prepare(self) -> None:
        """Create the waits, and return when all of them are polled for."""
        while len(self.waits) < self._options.waits:
            self._add(min(CREATED_AT_ONCE, self._options.waits - len(self.waits)))
        self._triggerers.start()
        deadline = time.monotonic() + START_SECONDS
        while self._rows.running() < self._options.waits or self._control.counts()["query"] < ENOUGH_QUERIES:
            self._triggerers.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"not all waits were polled for within {START_SECONDS:g} s")
            time.sleep(1)

    def run(self) -> None:
        """Run, and then give the last waits time to end."""
        length = self._options.minutes * 60
        period = kill_period(self._options)
        close_at, fault_at, kill_at, sample_at, report_at = 0.0, 0.0, period, 0.0, 60.0
        self._began = time.monotonic()
        print("minute | waiting | ended | latest | faults | requests | memory of each triggerer", flush=True)
        while (now := self.now) < length:
            due = 0
            while close_at <= now:
                close_at, due = close_at + CLOSE_SECONDS, due + 1
            if due:
                self._add(due)
                self._close(due)
            if fault_at <= now:
                fault_at += FAULT_SECONDS
                self._fail()
            if kill_at <= now and length - kill_at > period / 2:
                kill_at += period
                print(f"  {now:.0f} s: killed {self._triggerers.kill(now, period / 2)}", flush=True)
            if sample_at <= now:
                sample_at += SAMPLE_SECONDS
                self.samples += self._triggerers.samples(now)
            self._collect()
            if report_at <= now:
                self._report(report_at)
                report_at += 60
            time.sleep(TICK_SECONDS)
        self._control.clear_faults()
        while self._is_owed() and self.now < length + MAX_END_SECONDS:
            self._collect()
            time.sleep(TICK_SECONDS)

    def _add(self, number: int) -> None:
        from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmInstanceTrigger  # noqa: PLC0415 - needs the environment

        fates = self._chance.choices(list(FATES), [frequency for _, frequency in FATES.values()], k=number)
        triggers = []
        for fate in fates:
            count = len(self.waits)
            key = f"soak-{count}"
            wait = Wait(
                name=f"wait {count} ({fate})",
                expected=FATES[fate][0],
                number=count,
                fate=fate,
                instance_id=self._control.start(PROCESS, business_key=key)["id"],
                key=key,
                # A wait for a key waits on if its instance vanishes before a poll has shown it.
                by_key=count % KEY_EVERY == 0 and fate != "vanish",
            )
            self.waits.append(wait)
            self._open[count] = wait
            trigger = AstroZeroBpmInstanceTrigger(
                astro_zero_conn_id="astro_zero_default",
                instance_id=None if wait.by_key else wait.instance_id,
                business_key=key if wait.by_key else None,
                bpm_name=PROCESS if wait.by_key else None,
                bp_statuses=["Approved"],
                poll_interval=POLL_INTERVAL_SECONDS,
            )
            triggers.append((count, trigger))
        self._rows.defer(triggers)

    def _close(self, number: int) -> None:
        for count in self._chance.sample(sorted(self._open), number):
            wait = self._open.pop(count)
            meet_fate(self._control, wait.instance_id, wait.fate)
            wait.closed = self.now
            if wait.fate != "vanish":
                self._ended_ids.append(wait.instance_id)

    def _fail(self) -> None:
        if self._chance.random() < 0.1:
            self._control.revoke_tokens()
            self.faults += 1
            return
        # Faults that met no request do not add up: a server that only fails is an outage.
        self.faults -= sum(rule["times"] for rule in self._control.faults())
        self._control.clear_faults()
        times = self._chance.randint(1, 3)
        self._control.fault("any", **self._chance.choice(FAULTS), times=times)
        self.faults += times

    def _collect(self) -> None:
        self._triggerers.check()
        for ended in self._rows.take_ended({wait.number: wait.instance_id for wait in self.waits}):
            wait = self.waits[ended.number]
            wait.ended, wait.end = self.now, ended.end
        self.fewest = min(self.fewest, self._rows.waiting())
        known = {wait.instance_id for wait in self.waits if wait.ended is not None}
        while len(self._ended_ids) > MAX_ENDED_KEPT and self._ended_ids[0] in known:
            self._control.vanish(self._ended_ids.pop(0))

    def _is_owed(self) -> bool:
        return any(wait.closed is not None and wait.ended is None for wait in self.waits)

    def _report(self, at: float) -> None:
        late = [w.ended - w.closed for w in self.waits if w.ended is not None and w.closed is not None]
        latest = {sample.triggerer: sample.memory for sample in self.samples}
        names = [child.name for child in self._triggerers.children]
        memory = ", ".join(f"{name} {latest.get(name, 0) / 1e6:.0f} MB" for name in names)
        requests = sum(self._control.counts().values())
        print(
            f"{at / 60:.0f} | {self._rows.waiting()} | {len(late)} | {max(late, default=0):.0f} s | {self.faults} |"
            f" {requests} | {memory}",
            flush=True,
        )


def main() -> int:
    """Run the soak, print the verdict, and return the exit code."""
    options = _options()
    # A triggerer has a log file for each trigger.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with Stack() as stack:
        install_services(stack)
        emulator = stack.start_emulator(START_SECONDS)
        deployment = Deployment(
            stack,
            emulator,
            **{
                DATABASE_VARIABLE: f"postgresql+psycopg2://{start_postgres(stack)}",
                "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent / "dags"),
                "AIRFLOW__TRIGGERER__CAPACITY": str(math.ceil(options.waits / TRIGGERERS * CAPACITY_SHARE)),
            },
        )
        deployment.create_database(START_SECONDS)
        stack.run(
            "airflow dags reserialize",
            ["airflow", "dags", "reserialize"],
            deployment.environment,
            START_SECONDS,
        )
        os.environ.update(deployment.environment)  # this process uses the same database
        from benchmarks.soak.task_rows import TaskRows  # noqa: PLC0415 - reads the environment

        length = options.minutes * 60
        window = length * (1 - WINDOW_SHARE), length
        title = f"{options.waits:,} waits for {options.minutes:g} minutes, {setting()}; --seed {options.seed}"
        print(title, flush=True)
        triggerers = Triggerers(deployment, window[0])
        soak = Soak(TaskRows(), EmulatorControl(emulator.url), triggerers, options)
        soak.prepare()
        soak.run()
        plan = Plan(
            waits=options.waits,
            fewest_waiting=soak.fewest,
            kills=math.ceil(length / kill_period(options) - 0.5) - 1,
            killed=triggerers.killed,
            faults=soak.faults,
        )
        verdicts = judge(soak.waits, soak.samples, window, soak.now, plan)
        if not all(verdict.kept for verdict in verdicts):
            for child in triggerers.children:
                print(child.failure("its last lines").args[0])
    ends = outcomes(soak.waits)
    for end, number in ends:
        print(f"{number} waits ended: {end}")
    for verdict in verdicts:
        print(f"{'kept  ' if verdict.kept else 'MISSED'}  {verdict.text}")
    if not all(verdict.kept for verdict in verdicts):
        return 1
    if options.write:
        write(section(title, ends, verdicts), BEGIN, END)
    return 0


def kill_period(options: argparse.Namespace) -> float:
    """Return the seconds between two kills."""
    return float(options.kill_every or max(MIN_KILL_SECONDS, options.minutes * 60 * KILL_SHARE))


def _options() -> argparse.Namespace:
    description = (benchmarks.soak.__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=description)
    parser.add_argument("--waits", type=int, default=WAITS, help=f"how many ({WAITS})")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"for how long ({MINUTES:g})")
    parser.add_argument("--kill-every", type=float, help="seconds (a sixth of the time, a minute at least)")
    parser.add_argument("--seed", type=int, help="of the instances' fates and the faults (random)")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md if nothing is missed")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.randrange(10_000)  # noqa: S311 - not a secret
    return options


if __name__ == "__main__":
    sys.exit(main())
