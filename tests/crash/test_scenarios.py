"""Faults on the way to Astro Zero and actions of people on a task: always exactly one open instance for each task.

Each story has its own emulator, so that faults and requests do not mix.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.crash.conftest import QUERIES_OF_A_SEARCH

if TYPE_CHECKING:
    from tests.crash.conftest import Run, Story, World

pytestmark = pytest.mark.crash

SOON = 2.0  # seconds by which a start outlasts its worker; less than START_GRACE
LATE = 30.0  # seconds after which no client waits for an answer any more
# A refused token request is resent once, in the other encoding.
REFUSED: dict[str, Any] = {"status": 401, "res_code": "invalid_client", "times": 2}


def approve_and_succeed(run: Run, *, tries: int = 1, instances: int = 1) -> None:
    """Approve once a try waits. Only instances before the newest one are terminated."""
    run.until_waiting(tries=tries, or_ended=True)
    assert len(run.still_open) == 1, run.story()
    run.approve()
    run.assert_succeeds(instances)
    assert run.instances[-1]["id"] not in run.terminations(), run.story()


# The start and its answer.


@dataclass(frozen=True)
class Fault:
    """A failing start.

    :param tries: the number of the try that finally waits.
    """

    name: str
    arguments: dict[str, Any]
    tries: int
    switches: tuple[tuple[str, Any], ...] = ()

    def __call__(self, world: World, dag_id: str) -> None:
        control = world.emulator()
        control.switch(**dict(self.switches))
        control.fault("start", self.name, **self.arguments)
        run = world.run(dag_id, control=control)
        approve_and_succeed(run, tries=self.tries)
        assert run.task["try_number"] == self.tries, run.story()
        assert control.counts()["start"] == self.tries, run.story()


FAULTS = {
    "cut before it was processed": Fault("drop_before", {}, tries=2),
    "cut after it was processed": Fault("drop_after", {}, tries=1),
    "cut after it was processed, and slow to show": Fault(
        "drop_after", {}, tries=1, switches=(("start_lag", SOON),)
    ),
    "server error without it": Fault("status", {"status": 500}, tries=2),
    "server error with it": Fault("status", {"status": 500, "work_done": True}, tries=1),
    "unreadable answer": Fault("not_json", {"work_done": True}, tries=1),
    "half an answer": Fault("truncate", {}, tries=1),
}


def held(world: World, dag_id: str, *, work_done: bool) -> None:
    """A worker dies while Astro Zero holds its request, which has been processed or is processed later."""
    control = world.emulator()
    control.fault("start", "delay", seconds=LATE if work_done else SOON, work_done=work_done)
    run = world.run(dag_id, control=control)
    run.until("the start came in", lambda: control.counts()["start"] or None)
    os.kill(run.pid(), signal.SIGKILL)
    approve_and_succeed(run, tries=2)
    assert control.counts()["start"] == 1, run.story()


def slow_to_show(world: World, dag_id: str) -> None:
    """A worker dies before it has recorded its instance, and the lists show the instance only later."""
    control = world.emulator()
    control.switch(start_lag=SOON)
    died = {"process": "01-first", "effect": "POST start #1", "when": "after", "whom": "task"}
    run = world.run(dag_id, [died], control=control)
    approve_and_succeed(run, tries=2)
    assert control.counts()["start"] == 1, run.story()


# Costs.


def first_try_costs_one_post(world: World, dag_id: str) -> None:
    control = world.emulator()
    run = world.run(dag_id, control=control)
    run.until_waiting()
    kinds = [entry["kind"] for entry in control.requests()]
    assert kinds[:2] == ["token", "start"], kinds
    assert kinds.count("start") == 1, kinds
    approve_and_succeed(run)


def retry_costs_one_search(world: World, dag_id: str) -> None:
    """No wait hides the queries of a search: the second try finds that the instance has ended."""
    control = world.emulator()
    died = {"process": "01-first", "effect": "POST start #1", "when": "after", "whom": "task"}
    run = world.run(dag_id, [died], control=control)
    run.until_crashed()
    run.approve()
    run.assert_succeeds()
    assert control.counts()["query"] <= QUERIES_OF_A_SEARCH, run.story()
    assert control.counts()["start"] == 1, run.story()


# Actions of people.


def cleared_while_it_waits(world: World, dag_id: str) -> None:
    run = world.run(dag_id, control=world.emulator())
    run.until_waiting()
    (first,) = run.instances
    run.clear()
    run.until_closed(first)
    approve_and_succeed(run, tries=2, instances=2)
    assert set(run.terminations()) == {first["id"]}, run.story()


def cleared_and_kept(world: World, dag_id: str) -> None:
    run = world.run(dag_id, control=world.emulator())
    run.until_waiting()
    run.clear()
    approve_and_succeed(run, tries=2)
    assert run.terminations() == [], run.story()


def cleared_after_success(world: World, dag_id: str) -> None:
    run = world.run(dag_id, control=world.emulator())
    approve_and_succeed(run)
    run.clear()
    approve_and_succeed(run, tries=2, instances=2)
    assert run.terminations() == [], run.story()


def marked_failed(world: World, dag_id: str) -> None:
    run = world.run(dag_id, control=world.emulator())
    run.until_waiting()
    (instance,) = run.instances
    assert run.hidden(instance) == []
    run.mark("failed")
    run.until_closed(instance)
    run.until_failed()
    assert len(run.instances) == 1, run.story()
    assert run.hidden(instance) == []


def marked_failed_while_it_starts(world: World, dag_id: str) -> None:
    """The kill comes before the answer of the start."""
    control = world.emulator()
    control.fault("start", "delay", seconds=LATE, work_done=True)
    run = world.run(dag_id, control=control)
    run.until("the start came in", lambda: control.counts()["start"] or None)
    run.mark("failed")
    run.until_closed(run.instance)
    run.until_failed()
    assert len(run.instances) == 1, run.story()


def rejected(world: World, dag_id: str) -> None:
    """A failed instance fails its try; the retry starts another one."""
    run = world.run(dag_id, control=world.emulator())
    run.until_waiting()
    run.approve("reject")
    approve_and_succeed(run, tries=2, instances=2)
    assert run.terminations() == [], run.story()


# Time-outs.


def left_at_the_deadline(world: World, dag_id: str) -> None:
    run = world.run(dag_id, control=world.emulator())
    run.until_failed()
    assert len(run.still_open) == 1, run.story()
    run.clear()
    approve_and_succeed(run, tries=2)
    assert run.terminations() == [], run.story()


def terminated_at_the_deadline(world: World, dag_id: str) -> None:
    run = world.run(dag_id, control=world.emulator())
    run.until_failed()
    (first,) = run.instances
    assert first["state"] == "Terminated", run.story()
    run.clear()
    approve_and_succeed(run, tries=2, instances=2)
    assert run.terminations() == [first["id"]], run.story()


def unreachable(world: World, dag_id: str) -> None:
    control = world.emulator()
    run = world.run(dag_id, control=control)
    run.until_waiting()
    control.outage()
    run.until_failed()
    control.outage(False)
    assert len(run.still_open) == 1, run.story()
    run.clear()
    approve_and_succeed(run, tries=2)
    assert run.terminations() == [], run.story()


# Credentials.


def token_revoked(world: World, dag_id: str) -> None:
    control = world.emulator()
    run = world.run(dag_id, control=control)
    run.until_waiting()
    assert control.revoke_tokens() > 0
    tokens = control.counts()["token"]
    run.until("a new token is fetched", lambda: control.counts()["token"] > tokens or None)
    approve_and_succeed(run)
    assert run.task["try_number"] == 1, run.story()


def credentials_refused_while_it_waits(world: World, dag_id: str) -> None:
    control = world.emulator()
    run = world.run(dag_id, control=control)
    run.until_waiting()
    control.fault("token", "status", **REFUSED)
    control.revoke_tokens()
    approve_and_succeed(run, tries=2)
    assert run.terminations() == [], run.story()


def credentials_refused_before_it_starts(world: World, dag_id: str) -> None:
    control = world.emulator()
    control.fault("token", "status", **REFUSED)
    run = world.run(dag_id, control=control)
    approve_and_succeed(run, tries=2)
    assert control.counts()["start"] == 1, run.story()


WAYS = ("on_worker", "deferred")


def _of(act: Callable[[World, str], None], dag_id: str) -> Story:
    return lambda world: act(world, dag_id)


def stories_of(
    kind: str, act: Callable[[World, str], None], ways: tuple[str, ...] = WAYS
) -> dict[str, Story]:
    """Return the story of one kind of task for each way to wait."""
    name = getattr(act, "__name__", "").replace("_", " ")
    return {f"{name}, {way}": _of(act, f"{kind}_{way}") for way in ways}


STORIES: dict[str, Story] = {
    **{f"start {name}, {way}": _of(fault, f"plain_{way}") for name, fault in FAULTS.items() for way in WAYS},
    **{
        f"held {'after' if done else 'before'} it was processed, {way}": _of(
            partial(held, work_done=done), f"plain_{way}"
        )
        for done in (True, False)
        for way in WAYS
    },
    **stories_of("plain", slow_to_show),
    **stories_of("plain", first_try_costs_one_post),
    **stories_of("plain", retry_costs_one_search),
    **stories_of("plain", cleared_while_it_waits),
    **stories_of("keeps", cleared_and_kept),
    **stories_of("plain", cleared_after_success),
    **stories_of("plain", marked_failed),
    **stories_of("plain", marked_failed_while_it_starts, ("on_worker",)),
    **stories_of("plain", rejected),
    **stories_of("leaves", left_at_the_deadline),
    **stories_of("terminates", terminated_at_the_deadline),
    **stories_of("impatient", unreachable),
    **stories_of("plain", token_revoked),
    **stories_of("plain", credentials_refused_while_it_waits),
    **stories_of("plain", credentials_refused_before_it_starts, ("on_worker",)),
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_one_instance(stories: dict[Story, Future[None]], story: Story) -> None:
    stories[story].result()
