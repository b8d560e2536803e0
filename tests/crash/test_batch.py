"""Kills a batch of 1,000 launches at random moments and retries until it is done: 1,000 instances, each started once.

``test_matrix`` kills at all known points. Here the moments are random: in the number of starts, in the number of queries
of a search or a wait, and in time. The emulator and Airflow show afterwards what a kill has hit, regardless of its
target.

Runs alone, before all other stories, because it also kills the triggerer.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Literal, get_args

import psutil
import pytest

from airflow_provider_astrobpm.emulator.engine import MACHINE_USER
from tests.crash.conftest import PATIENCE, START_GRACE, Run, World
from tests.support.deployed import MEASURED, Found

if TYPE_CHECKING:
    from airflow_provider_astrobpm.emulator.control_client import EmulatorControl

pytestmark = pytest.mark.crash

SEED = int(os.environ.get("CRASH_SEED", "1"))
LAUNCHES = 1000  # like the next constant, as in the DAG file
LATE = 25
START_LAG = 1.5  # seconds before the lists show an instance; less than START_GRACE
PREEXISTING = 5  # instances of someone else that have custom keys
ALWAYS = 100_000  # repetitions of a fault that never ends

PROCESSES = """
processes:
  - name: Reconcile
    variables: {n: 0}
    steps:
      - {state: Dispatched, bp_status: New, element: Begin}
      - {state: Running, bp_status: Reconciling, element: Reconcile, for: 1}
      - end: {bp_status: Done}
  - name: ReconcileLate
    variables: {n: 0}
    steps:
      - state: Waiting for user interaction
        bp_status: Reconciling
        element: Reconcile
        wait: person
        outcomes:
          finish: {bp_status: Done}
"""

Phase = Literal["searching", "starting", "waiting", "deferred", "ending"]
PHASES: tuple[Phase, ...] = get_args(Phase)
Victim = Literal["task", "supervisor", "both", "triggerer"]


@dataclass(frozen=True)
class Kill:
    """A kill and its victim."""

    process: str
    victim: Victim
    phase: Phase
    sent: int
    """The number of starts received by then."""
    seconds: float
    """Since the beginning of the run."""

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s, {self.process}: {self.victim} while {self.phase}, after {self.sent} starts"


@dataclass(frozen=True)
class BatchRun(Run):
    """One run, on an emulator of its own."""

    @property
    def sent(self) -> int:
        """The number of starts received."""
        return self.control.counts()["start"]

    @property
    def queries(self) -> int:
        return self.control.counts()["query"]

    @property
    def has_published(self) -> bool:
        """Whether this try has published what it has started, just before the wait."""
        try:
            self.xcom("refusals")
        except AssertionError:
            return False
        return True

    def soon(self, what: str, look: Callable[[], Found | None]) -> Found:
        """Wait for something that the board does not show, or not soon enough."""
        return self.airflow.until(f"{self.run_id}: {what}", look, PATIENCE)

    def value(self, key: str) -> Any:
        """Return a value that the task has published."""
        path = f"{self._path}/taskInstances/wait/xcomEntries/{key}?deserialize=true"
        return self.airflow.call("GET", path)["value"]

    def let_end(self) -> None:
        """Finish the instances that wait for that, and slow down the polls that notice it."""
        self.control.clear_faults()
        self.control.fault("query", "delay", times=ALWAYS, seconds=0.3)
        for each in self.control.instances(name="ReconcileLate"):
            if each["created_by"] == MACHINE_USER:
                self.control.act(each["id"], "finish")


@dataclass
class Killer:
    """Kills the processes of a run, one try after the other."""

    run: BatchRun
    random: Random
    kills: list[Kill] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    _process: str = ""
    """The process to kill next."""

    @property
    def tries(self) -> int:
        """The number of the try that must be running: only a kill causes a new try."""
        return 1 + sum(kill.victim != "triggerer" for kill in self.kills)

    def kill(self, meant: Phase, *, sent: int = 0, victim: Victim = "task") -> None:
        """Kill the process of the current or next try, at a random moment of a phase.

        :param sent: with ``starting``: the number of starts after which to kill.
        """
        run, leg = self.run, self._last_leg if meant == "ending" else "first"
        process = f"{self.tries:02}-{leg}"
        note = self._until_it_runs(process)
        before = run.sent
        if meant == "searching":
            self._during_the_search()
        elif meant == "starting":
            self._until(f"{sent} starts are sent", lambda: run.sent >= max(sent, before + 1) or None)
        elif meant == "waiting":
            self._until("it has published what it started", lambda: run.has_published or None)
            self._after_queries(self.random.randint(0, 4))
        else:
            self._after_queries(self.random.randint(0 if leg == "resumed" else 1, 2))
        self._strike(note, victim)
        more = run.sent - before
        phase: Phase = "starting" if more else "searching"
        if run.has_published:
            phase = "ending" if meant == "ending" else "waiting"
        self._note(process, victim, phase)

    def kill_triggerer(self) -> None:
        """Kill the waiting triggerer at a random moment, and wait for another one to take over."""
        run, airflow = self.run, self.run.airflow
        self.until_all_wait()
        killed = run.task["trigger"]["triggerer_id"]
        self._after_queries(self.random.randint(0, 4))
        airflow.gone.append(airflow.triggerer)  # the board must not report it as an unexpected end
        airflow.triggerer.signal(signal.SIGKILL)
        airflow.expect_end(airflow.triggerer)
        airflow.start_triggerer()
        self._note(f"{self.tries:02}-deferred", "triggerer", "deferred")

        def taken_over() -> bool | None:
            found = (run.task["trigger"] or {}).get("triggerer_id")
            started = found not in {None, killed} and run.logged(found, "started", tries=self.tries)
            return bool(started) or None

        run.until("another triggerer waits", taken_over)

    def until_all_wait(self) -> None:
        """Wait until a try waits for all started instances, so that they can be finished."""
        run, process = self.run, f"{self.tries:02}-first"
        # Wait for the process first. Until then the XComs may be those of the previous try.
        self._until_it_runs(process)
        if self._last_leg == "resumed":
            run.until_waiting(tries=self.tries)
        else:
            self._until("it has published what it started", lambda: run.has_published or None)

    @property
    def _last_leg(self) -> str:
        return "resumed" if self.run.dag_id.endswith("_deferred") else "first"

    def _until_it_runs(self, process: str) -> dict[str, Any]:
        """Wait until a process of the task has begun, and return its note."""
        self._process = process
        return self._until(f"{process} begins", lambda: next(iter(self.run.notes.get(process, ())), None))

    def _until(self, what: str, look: Callable[[], Found | None]) -> Found:
        """Wait for a moment of the process to kill, as long as it can occur."""

        def seen() -> Found | None:
            newest = max(self.run.notes, default="")
            assert newest <= self._process, f"process {newest} has begun before {self._process} was killed"
            assert not self.run.has_ended, f"the task has ended before {self._process} was killed"
            return look()

        return self.run.soon(what, seen)

    def _during_the_search(self) -> None:
        """Wait for a random part of a search: of the pause before it, or of its queries."""
        if self.random.random() < 0.5:
            moment = time.monotonic() + self.random.uniform(0, START_GRACE)
            self._until("some time has passed", lambda: time.monotonic() >= moment or None)
        else:
            self._after_queries(self.random.randint(1, 11))

    def _after_queries(self, more: int) -> None:
        run, known = self.run, self.run.queries
        self._until(f"{more} more queries are sent", lambda: run.queries >= known + more or None)

    @staticmethod
    def _strike(note: dict[str, Any], victim: Victim) -> None:
        """Kill a living process, its supervisor, or both."""
        task = psutil.Process(note["pid"])
        assert task.ppid() == note["supervisor"]
        assert task.status() != psutil.STATUS_ZOMBIE
        if victim != "task":
            os.kill(note["supervisor"], signal.SIGKILL)
        if victim != "supervisor":
            os.kill(note["pid"], signal.SIGKILL)

    def _note(self, process: str, victim: Victim, phase: Phase) -> None:
        kill = Kill(process, victim, phase, self.run.sent, time.monotonic() - self.began)
        self.kills.append(kill)
        # Next to the notes of the processes, so that it is counted, and shown if the story fails.
        with (self.run.airflow.home / "effects" / self.run.run_id / process).open("a") as file:
            file.write(json.dumps({"crash": str(kill)}) + "\n")


def run_story(world: World, dag_id: str) -> Killer:
    """Run the story of one run, and return its killer.

    :raises AssertionError: if the run fails its checks.
    """
    random = Random(f"{SEED} {dag_id}")
    control = world.emulator()
    prepare(control, random, slow="orphaned" in dag_id)
    if "own_keys" in dag_id:
        start_preexisting(control, random)
    run = BatchRun(**vars(world.run(dag_id, control=control)))
    killer = Killer(run, random)
    try:
        if "orphaned" in dag_id:
            killer.kill("starting", sent=random.randint(20, 120), victim="supervisor")
        else:
            kill_amid_starts_and_wait(killer)
        killer.until_all_wait()
        run.let_end()
        if "orphaned" not in dag_id:
            killer.kill("ending")
            killer.kill("searching")
        run.until_ended()
        problems = [*problems_of(killer), *lost_processes(run)]
        assert not problems, problems
    except Exception as error:
        kills = "\n  ".join(
            [f"{dag_id}, CRASH_SEED={SEED}, {len(killer.kills)} kills", *map(str, killer.kills)]
        )
        raise AssertionError(f"{error}\n{kills}\n{run.story()}") from error
    return killer


def prepare(control: EmulatorControl, random: Random, *, slow: bool) -> None:
    """Deploy the processes with slow answers to starts. Some starts are processed at once, some after the task may have died.

    :param slow: whether starts are so slow that most of the batch is missing when Airflow notices a dead supervisor.
    """
    control.add_processes(PROCESSES)
    control.switch(start_lag=START_LAG)
    control.fault("query", "delay", times=ALWAYS, seconds=0.05)
    left = LAUNCHES
    while left > 0:
        times, seconds = random.randint(5, 40), 0.6 if slow else random.uniform(0.05, 0.2)
        control.fault("start", "delay", times=times, seconds=seconds, work_done=random.random() < 0.5)
        left -= times


def start_preexisting(control: EmulatorControl, random: Random) -> None:
    """Start instances of someone else with business keys of the batch."""
    for n in (LATE, *random.sample(range(LATE + 1, LAUNCHES + 1), PREEXISTING)):
        name = "ReconcileLate" if n % LATE == 0 else "Reconcile"
        control.start(name, {"n": n}, f"account-{n}")


def kill_amid_starts_and_wait(killer: Killer) -> None:
    """Kill the processes of a run repeatedly while it searches, starts and waits, in a random order."""
    run, random = killer.run, killer.random
    is_deferred = run.dag_id.endswith("_deferred")
    # The first try searches only for custom keys.
    phases: list[Phase] = ["searching", "searching", "starting", "starting"]
    random.shuffle(phases)
    phases.insert(random.randint(0, len(phases)) if "own_keys" in run.dag_id else 0, "starting")
    after = iter(sorted(random.sample(range(1, 901), phases.count("starting"))))
    starts = [next(after) if phase == "starting" else 0 for phase in phases]
    if not is_deferred:
        phases += ["waiting", "waiting"]
        starts += [0, 0]
    victims: list[Victim] = ["task" for _ in phases]
    worse: Victim = random.choice(["both", "supervisor"])  # only once, because Airflow takes long to notice
    last = max(number for number, phase in enumerate(phases) if phase == "starting")
    # Without its supervisor a process may start the rest of the batch, and leave no starts for later kills.
    may_be = [number for number, phase in enumerate(phases) if phase != "starting" or number == last]
    victims[random.choice(may_be)] = worse
    for phase, sent, victim in zip(phases, starts, victims, strict=True):
        killer.kill(phase, sent=sent, victim=victim)
    if is_deferred:
        killer.kill_triggerer()


def problems_of(killer: Killer) -> list[str]:
    """Return the deviations from a task that has succeeded."""
    run = killer.run
    task, counts, everything = run.task, run.control.counts(), run.control.instances()
    if task["state"] != "success":
        return [f"the task is {task['state']}"]
    own = [each for each in everything if each["created_by"] == MACHINE_USER]
    preexisting = [each for each in everything if each not in own]
    times = Counter(each["variables"]["n"] for each in own)
    ids = {each["variables"]["n"]: each["id"] for each in own}
    numbers = range(1, LAUNCHES + 1)
    result = run.value("result")
    shown = {key: value for key, value in result.items() if key not in {"launches", "result_path"} and value}
    checks = {
        f"there are {len(own)} instances": len(own) == LAUNCHES,
        f"started more than once: {[n for n in times if times[n] > 1]}": max(times.values()) == 1,
        f"never started: {[n for n in numbers if n not in times]}": set(times) == set(numbers),
        f"{counts['start']} starts were sent": counts["start"] == LAUNCHES,
        f"{counts['action']} actions and {counts['delete']} deletions were sent": not counts["action"]
        and not counts["delete"],
        f"it took {task['try_number']} tries, and {killer.tries - 1} were killed": task["try_number"]
        == killer.tries,
        "not all have the key of their place": all(
            re.fullmatch(rf"account-{n}|.+-1-{n}-[a-z2-7]{{4}}", each["business_key"])
            for each in own
            for n in [each["variables"]["n"]]
        ),
        "not all are closed": all(each["closed"] for each in own),
        "not all have succeeded": {(each["state"], each["bp_status"]) for each in own}
        == {("Completed OK", "Done")},
        "preexisting instances were terminated": any(not each["closed"] for each in preexisting)
        or not preexisting,
        f"the result is {shown}": shown == {"total": LAUNCHES, "succeeded": LAUNCHES},
        f"the result is of {result['launches'][:1]}": all(
            each["outcome"] == "succeeded" and each["instance_id"] == ids[each["number"]]
            for each in result["launches"]
        ),
        "a different result was returned": run.returned == result,
        "the ids are not in the order of the launches": run.value("instance_ids")
        == [ids.get(n) for n in numbers],
    }
    return [problem for problem, is_well in checks.items() if not is_well]


def lost_processes(run: BatchRun) -> list[str]:
    """Return the processes of a run that do not end although they have nothing left to do."""
    pids = {note["pid"] for notes in run.notes.values() for note in notes if "pid" in note}
    try:
        run.soon("its processes have ended", lambda: not any(map(is_alive, pids)) or None)
    except AssertionError as error:
        return [str(error)]
    return []


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def counted(what: Iterable[str]) -> str:
    return ", ".join(f"{count} {one}" for one, count in Counter(what).items())


DAG_IDS = ("batch_on_worker", "batch_deferred", "batch_own_keys_on_worker", "batch_orphaned_on_worker")


def test_each_launch_is_started_once(world: World, pytestconfig: pytest.Config) -> None:
    began = time.monotonic()
    try:
        with ThreadPoolExecutor(max_workers=len(DAG_IDS)) as threads:
            futures = {dag_id: threads.submit(run_story, world, dag_id) for dag_id in DAG_IDS}
    finally:
        world.airflow.settle()
    errors = [str(error) for future in futures.values() if (error := future.exception())]
    assert not errors, "\n".join(errors)
    kills = [kill for future in futures.values() for kill in future.result().kills]
    seconds = time.monotonic() - began
    shown = [
        f"{len(kills)} kills of {len(futures)} batches in {seconds:.0f} s, CRASH_SEED={SEED}",
        *(f"  {phase}: {counted(kill.victim for kill in kills if kill.phase == phase)}" for phase in PHASES),
    ]
    pytestconfig.stash.setdefault(MEASURED, []).extend(shown)
    assert {kill.phase for kill in kills} == set(PHASES), shown
