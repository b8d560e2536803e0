"""Kills the processes of a task at every point. The next try must adopt what was started, and start nothing twice.

The points are not chosen by hand. A run that is not killed notes all its effects, and further runs are killed before
and after each of them. Nothing observable happens between two effects, so "after" one and "before" the next are the
same moment. They differ in what people do meanwhile: they approve while no task waits, or only once the next try
waits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from threading import Semaphore
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.crash.conftest import LOOKS_OF_A_WAIT

if TYPE_CHECKING:
    from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
    from tests.crash.conftest import Run, Story, World

pytestmark = pytest.mark.crash


FEW = Semaphore(4)
"""A supervisor is a worker of the executor. After the loss of all workers the executor may hang before it starts new ones."""


class Point(NamedTuple):
    """The point at which a process dies.

    :param approved: whether people have already approved.
    :param early: whether they otherwise approve while no task waits, and not only when the next try waits.
    :param deferred: whether the task is deferred by then, so that it continues without another try.
    """

    process: str
    effect: str
    when: str
    whom: str = "task"
    approved: bool = False
    early: bool = False
    deferred: bool = False

    @property
    def conf(self) -> dict[str, Any]:
        return {"process": self.process, "effect": self.effect, "when": self.when, "whom": self.whom}


@dataclass(frozen=True)
class Scene:
    """Kills a run at every point of one or several of its processes, with one run for each point.

    :param dag_id: the DAG.
    :param processes: the killed processes; ``01-first`` is the first try, and ``01-resumed`` its process after the deferral.
    :param crashes: the points at which earlier tries die.
    :param prelude: runs until the first of the processes begins.
    :param instances: the total number of started instances.
    :param thorough: whether processes are also killed before each effect.
    :param victims: the other victims, after each effect that changes something and comes before the approval.
    """

    dag_id: str
    processes: tuple[str, ...]
    crashes: tuple[Point, ...] = ()
    prelude: Callable[[Run], None] = lambda _run: None
    instances: int = 1
    thorough: bool = False
    victims: tuple[str, ...] = ()

    @property
    def tries(self) -> int:
        """The number of the killed try."""
        return int(self.processes[0][:2])

    def __call__(self, world: World) -> None:
        """Run the story of the surviving run, then concurrently those of all killed runs.

        :raises AssertionError: if any of them fails its checks.
        """
        control = world.emulator()
        points = self.points(world, control)
        with ThreadPoolExecutor(max_workers=len(points)) as threads:
            futures = {point: threads.submit(self.killed, world, control, point) for point in points}
        bad = [f"{point}\n{error}" for point, future in futures.items() if (error := _error(future))]
        assert not bad, "\n".join([f"{len(bad)} of {len(points)} points", *bad])

    def points(self, world: World, control: EmulatorControl) -> list[Point]:
        """Return every point at which a run can die, from the effects of a surviving one."""
        run = self.begin(world, control)
        run.until_waiting(tries=self.tries)
        approved = time.time()
        run.approve()
        run.assert_succeeds(self.instances)
        points = []
        for process in self.processes:
            notes = [note for note in run.notes[process] if "effect" in note]
            before = {note["effect"]: note["at"] > approved for note in notes if note["when"] == "before"}
            kept = _without_mere_reading(before)
            deferrals = [note["at"] for note in notes if note["effect"].startswith("DeferTask")]
            points += [
                Point(
                    process,
                    note["effect"],
                    note["when"],
                    approved=note["at"] > approved,
                    early=note["when"] == "after",
                    deferred=note["at"] > min(deferrals, default=math.inf),
                )
                for note in notes
                if note["effect"] in kept
            ]
        others = [
            point._replace(whom=whom)
            for point in points
            if point.when == "after" and not point.approved and not _reads(point.effect)
            # A deferred task sends no heartbeat that could be missed, so the executor would wait for its worker forever.
            if not point.deferred
            for whom in self.victims
        ]
        if not self.thorough:
            points = [points[0], *(point for point in points if point.when == "after")]
            points = [point._replace(early=number % 2 == 1) for number, point in enumerate(points)]
        return points + others

    def begin(self, world: World, control: EmulatorControl, *points: Point) -> Run:
        crashes = [point.conf for point in (*self.crashes, *points)]
        run = world.run(self.dag_id, crashes, control=control)
        self.prelude(run)
        return run

    def killed(self, world: World, control: EmulatorControl, point: Point) -> None:
        """Run the story of a run that dies at a point."""
        with nullcontext() if point.whom == "task" else FEW:
            self._killed(self.begin(world, control, point), point)

    def _killed(self, run: Run, point: Point) -> None:
        if point.approved:
            run.until_waiting(tries=self.tries, or_ended=True)
            run.approve()
        run.until_crashed(len(self.crashes) + 1)
        # A deferred task must not resume before its worker has reported its end to the scheduler: Airflow would consider it
        # killed externally, and run this process again.
        if point.early and not point.deferred and len(run.instances) == self.instances:
            run.approve()
        run.until_waiting(tries=self.tries + (not point.deferred), or_ended=True)
        run.approve()
        run.assert_succeeds(self.instances)
        assert all(each["state"] == "Terminated" for each in run.instances[:-1]), run.story()
        # A process has some effects after its task has succeeded.
        run.until("it dies", lambda: len(run.crashes) > len(self.crashes) or None)
        assert len(run.crashes) == len(self.crashes) + 1, run.story()


def _reads(effect: str) -> bool:
    return effect.startswith(("GET ", "Get"))


def _without_mere_reading(effects: dict[str, bool]) -> set[str]:
    """Drop effects that only read and lie between two others of that kind, and polls that occur only in a long wait.

    :param effects: the effects in order, with whether each came after the approval.
    """
    certain = [
        each
        for each in effects
        if not each.startswith("GET ") or int(each.rpartition("#")[2]) <= LOOKS_OF_A_WAIT
    ]
    kept: set[str] = set()
    for (reads, _), row in groupby(certain, lambda effect: (_reads(effect), effects[effect])):
        members = list(row)
        kept |= {members[0], members[-1]} if reads else set(members)
    return kept


def _error(future: Future[None]) -> str | None:
    error = future.exception()
    return None if error is None else f"{type(error).__name__}: {error}"


def clear_what_failed(run: Run) -> None:
    """Clear a task that has failed and left its instance open."""
    run.until_failed()
    assert len(run.still_open) == 1, run.story()
    run.clear()


STARTED = Point("01-first", "POST start #1", "after")
PUBLISHED = STARTED._replace(effect="SetXCom business_key #1")
RETRIED = Point("02-first", "GetTaskStateStore astro_zero_launch #1", "after")

SCENES = {
    "first try, on a worker": Scene(
        "plain_on_worker", ("01-first",), thorough=True, victims=("both", "supervisor")
    ),
    "first try, deferred": Scene(
        "plain_deferred", ("01-first", "01-resumed"), thorough=True, victims=("both",)
    ),
    "retry, on a worker": Scene("plain_on_worker", ("02-first",), (STARTED,)),
    "retry, deferred": Scene("plain_deferred", ("02-first", "02-resumed"), (STARTED,)),
    "first try after a clear, on a worker": Scene(
        "stubborn_on_worker", ("03-first",), (PUBLISHED, RETRIED), clear_what_failed, instances=2
    ),
    "first try after a clear, deferred": Scene(
        "stubborn_deferred", ("03-first", "03-resumed"), (PUBLISHED, RETRIED), clear_what_failed, instances=2
    ),
}


@pytest.mark.parametrize("story", SCENES.values(), ids=SCENES)
def test_one_instance_after_a_crash_at_every_point(stories: dict[Story, Future[None]], story: Story) -> None:
    stories[story].result()
