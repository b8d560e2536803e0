"""The engine under a clock that stands still until it is told to go on."""

from __future__ import annotations

import re
from typing import Any

import pytest

from airflow_provider_astrobpm.emulator.engine import Engine
from airflow_provider_astrobpm.emulator.refusals import Code, Refusal
from airflow_provider_astrobpm.emulator.scripts import parse_script
from airflow_provider_astrobpm.emulator.switches import Switches
from tests.support.clocks import ManualClock

SCRIPT = """
processes:
  - name: Timed
    variables: {amount: 1, approved_by: nobody}
    read_only: [approved_by]
    steps:
      - {state: Dispatched, bp_status: Begun, element: Begin}
      - {state: Running, element: Work, for: 10}
      - {state: Paused, bp_status: Resting, for: 5}
      - end: {bp_status: Done}
  - name: Asked
    variables: {comment: "", approved_by: ""}
    read_only: [approved_by]
    steps:
      - {state: Running, name: prepare, for: 1}
      - state: Waiting for user interaction
        element: Approve
        wait: person
        outcomes:
          approve: {bp_status: Approved, variables: {approved_by: Li}}
          reject: {bp_status: Rejected, end: {state: User Terminated}}
          again: {goto: prepare, task_outcome: once more}
      - {state: Running, bp_status: Publishing, for: 2}
  - {name: Fails, steps: [{state: Running, for: 3}, {end: {state: Broken}}]}
  - {name: Instant}
  - {name: Old, version: 1.0.0, active: false}
  - {name: Old, version: 2.0.0}
  - {name: Retired, active: false}
"""


class World:
    """An engine, its clock, and short words for tests."""

    def __init__(self) -> None:
        self.clock = ManualClock(1_000_000.0)
        self.engine = Engine(self.clock, parse_script(SCRIPT, "test"))

    def switch(self, **positions: object) -> None:
        self.engine.switches = Switches().changed(**positions)

    def after(self, seconds: float) -> None:
        self.clock.now += seconds

    def state(self, instance_id: str) -> str:
        return self.engine.shown_state(self.engine.instance(instance_id))


@pytest.fixture
def world() -> World:
    return World()


def test_an_old_instance_has_lived_since(world: World) -> None:
    began = world.clock.now - 1000
    timed = world.engine.instance(world.engine.start("Timed", age=1000).id)
    asked = world.engine.instance(world.engine.start("Asked", age=1000).id)
    young = world.engine.start("Asked")
    assert (timed.started, timed.ended, timed.state) == (began, began + 15, "Completed OK")
    assert [event.at for event in timed.history] == [began, began, began + 10, began + 15]
    assert (asked.started, asked.closed, asked.changed) == (began, False, began + 1)
    world.engine.decide(asked.id, "reject")
    assert asked.ended == world.clock.now, "what people do now is done now"
    assert young.started == world.clock.now


@pytest.mark.parametrize("age", [-1, float("nan"), float("inf"), 1e12])
def test_an_age_that_is_none(age: float, world: World) -> None:
    with pytest.raises(ValueError, match="age must be 0 or more seconds"):
        world.engine.start("Timed", age=age)
    assert world.engine.instances() == []


def refusal_code(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(Refusal) as caught:
        call(*arguments, **named)
    return caught.value.code


def test_steps_follow_each_other_in_time(world: World) -> None:
    instance = world.engine.start("Timed")
    assert (instance.state, instance.bp_status, instance.element) == ("Dispatched", "Begun", "Begin")
    seen = []
    for seconds in (0, 9.9, 0.1, 4.9, 0.1, 100):
        world.after(seconds)
        world.engine.instance(instance.id)
        seen.append((instance.state, instance.bp_status, instance.closed))
    assert seen == [
        ("Running", "Begun", False),
        ("Running", "Begun", False),
        ("Paused", "Resting", False),
        ("Paused", "Resting", False),
        ("Completed OK", "Done", True),
        ("Completed OK", "Done", True),
    ]
    assert instance.ended == instance.started + 15


def test_a_late_look_gives_the_same_history_as_a_close_one(world: World) -> None:
    instance = world.engine.start("Timed")
    world.after(1000)
    history = world.engine.instance(instance.id).history
    assert [(event.at - instance.started, event.what, event.state) for event in history] == [
        (0, "entered Begin", "Dispatched"),
        (0, "entered Work", "Running"),
        (10, "entered Paused", "Paused"),
        (15, "ended", "Completed OK"),
    ]


def test_instances_that_end_at_once_or_badly(world: World) -> None:
    instant = world.engine.start("Instant")
    assert (instant.state, instant.closed, instant.ended) == ("Completed OK", True, instant.started)
    fails = world.engine.start("Fails")
    world.after(3)
    assert (world.state(fails.id), fails.closed) == ("Broken", True)


def test_ids(world: World) -> None:
    ids = {world.engine.start("Instant").id for _ in range(200)}
    assert len(ids) == 200
    assert all(re.fullmatch(r"002N[0-9A-Za-z]{16}", each) for each in ids)
    assert all(re.fullmatch(r"001L[0-9A-Za-z]{16}", each.id) for each in world.engine.catalogue)


def test_business_key_and_title(world: World) -> None:
    plain = world.engine.start("Timed")
    assert (plain.business_key, plain.title) == (plain.id, "Timed")
    named = world.engine.start(
        "Timed", variables={"$Flow.BusinessKey": "k-1", "$Flow.Title": "Mine", "amount": 5}
    )
    assert (named.business_key, named.title) == ("k-1", "Mine")
    assert named.variables == {"amount": 5, "approved_by": "nobody"}


def test_which_version_starts(world: World) -> None:
    assert world.engine.start("Old").process.version == "2.0.0"
    assert world.engine.start("Old", "1.0.0").process.version == "1.0.0"
    assert world.engine.start("Retired", "1.0.0").process.name == "Retired"
    assert refusal_code(world.engine.start, "Retired") == Code.NO_ACTIVE_VERSION
    assert refusal_code(world.engine.start, "Old", "3.0.0") == Code.UNKNOWN_VERSION
    assert refusal_code(world.engine.start, "old") == Code.UNKNOWN_PROCESS


def test_an_added_active_version_takes_over(world: World) -> None:
    before = {each.process.version: each.id for each in world.engine.catalogue if each.process.name == "Old"}
    world.engine.catalogue.add(
        parse_script(
            "processes: [{name: Old, version: 1.0.0}, {name: Old, version: 3.0.0, active: false}]", "x"
        )
    )
    assert world.engine.start("Old").process.version == "1.0.0"
    active = {
        each.process.version
        for each in world.engine.catalogue
        if each.process.name == "Old" and each.process.active
    }
    assert active == {"1.0.0"}
    assert world.engine.start("Old").definition_id == before["1.0.0"]


def test_a_person_decides(world: World) -> None:
    instance = world.engine.start("Asked")
    assert refusal_code(world.engine.decide, instance.id, "approve") == Code.NO_PERSON_AWAITED
    world.after(1)
    assert refusal_code(world.engine.decide, instance.id, "shrug") == Code.NO_PERSON_AWAITED
    world.after(1_000_000)
    assert world.state(instance.id) == "Waiting for user interaction"
    world.engine.decide(instance.id, "approve", "Li", {"comment": "fine"})
    assert (instance.state, instance.bp_status, instance.task_outcome) == ("Running", "Publishing", "approve")
    assert instance.variables == {"comment": "fine", "approved_by": "Li"}
    world.after(2)
    assert world.state(instance.id) == "Completed OK"


def test_a_person_ends_it_or_sends_it_back(world: World) -> None:
    rejected, again = world.engine.start("Asked"), world.engine.start("Asked")
    world.after(1)
    world.engine.decide(rejected.id, "reject")
    assert (rejected.state, rejected.bp_status, rejected.closed) == ("User Terminated", "Rejected", True)
    world.engine.decide(again.id, "again")
    assert (again.state, again.task_outcome) == ("Running", "once more")
    world.after(1)
    assert list(world.engine.instance(again.id).outcomes) == ["approve", "reject", "again"]


def test_a_suspended_instance_stands_still(world: World) -> None:
    instance = world.engine.start("Timed")
    world.after(4)
    world.engine.act(instance.id, "suspend")
    world.after(1000)
    assert (world.state(instance.id), instance.suspended) == ("Running", True)
    world.engine.act(instance.id, "resume")
    world.after(5.9)
    assert world.state(instance.id) == "Running"
    world.after(0.2)
    assert world.state(instance.id) == "Paused"


def test_a_suspended_task_is_on_nobodys_list(world: World) -> None:
    instance = world.engine.start("Asked")
    world.after(1)
    world.engine.act(instance.id, "suspend")
    assert refusal_code(world.engine.decide, instance.id, "approve") == Code.NO_PERSON_AWAITED
    world.engine.act(instance.id, "resume")
    assert not world.engine.decide(instance.id, "approve").closed


@pytest.mark.parametrize("suspended", [False, True])
def test_terminate_ends_an_instance(world: World, suspended: bool) -> None:
    instance = world.engine.start("Timed")
    if suspended:
        world.engine.act(instance.id, "suspend")
    world.after(2)
    world.engine.act(instance.id, "terminate")
    world.after(1000)
    assert (world.state(instance.id), instance.closed, instance.suspended) == ("Terminated", True, False)
    assert instance.ended == instance.started + 2


@pytest.mark.parametrize(
    ("before", "action", "code"),
    [
        (["suspend"], "suspend", Code.ALREADY_SO),
        ([], "resume", Code.ALREADY_SO),
        (["terminate"], "terminate", Code.ALREADY_SO),
        (["terminate"], "suspend", Code.INSTANCE_CLOSED),
        (["terminate"], "resume", Code.INSTANCE_CLOSED),
        ([], "explode", Code.UNKNOWN_ACTION),
    ],
)
def test_actions_that_are_refused(world: World, before: list[str], action: str, code: str) -> None:
    instance = world.engine.start("Timed")
    for earlier in before:
        world.engine.act(instance.id, earlier)
    state = world.state(instance.id)
    assert refusal_code(world.engine.act, instance.id, action) == code
    assert world.state(instance.id) == state


@pytest.mark.parametrize("action", ["suspend", "resume", "terminate"])
def test_actions_that_are_accepted_change_nothing_twice(world: World, action: str) -> None:
    world.switch(acting_twice="accept", acting_on_closed="accept")
    instance = world.engine.start("Timed")
    for _ in range(2):
        world.engine.act(instance.id, action)
    ended = world.engine.start("Instant")
    assert world.engine.act(ended.id, action).state == "Completed OK"
    world.after(5)
    assert instance.suspended is (action == "suspend")
    assert len([event for event in instance.history if event.what.startswith(action)]) == (action != "resume")


def test_a_completed_instance_refuses_terminate(world: World) -> None:
    instance = world.engine.start("Instant")
    assert refusal_code(world.engine.act, instance.id, "terminate") == Code.INSTANCE_CLOSED
    assert refusal_code(world.engine.set_variables, instance.id, {}) == Code.INSTANCE_CLOSED


def test_an_action_that_takes_effect_late(world: World) -> None:
    world.switch(action_lag=3)
    instance = world.engine.start("Timed")
    assert world.engine.act(instance.id, "terminate").state == "Running"
    world.after(2.9)
    assert world.state(instance.id) == "Running"
    world.after(0.2)
    assert world.state(instance.id) == "Terminated"
    assert instance.ended == instance.started + 3


def test_a_late_action_meets_an_instance_that_ended_first(world: World) -> None:
    world.switch(action_lag=20)
    instance = world.engine.start("Timed")
    world.engine.act(instance.id, "terminate")
    world.after(100)
    assert world.state(instance.id) == "Completed OK"


def test_late_suspend_holds_the_timer_from_then_on(world: World) -> None:
    world.switch(action_lag=4)
    instance = world.engine.start("Timed")
    world.engine.act(instance.id, "suspend")
    world.after(1000)
    assert world.state(instance.id) == "Running"
    world.switch(action_lag=0)
    world.engine.act(instance.id, "resume")
    world.after(6)
    assert world.state(instance.id) == "Paused"


def test_variables(world: World) -> None:
    instance = world.engine.start("Timed", variables={"approved_by": "me", "unknown": 1})
    assert instance.variables == {"amount": 1, "approved_by": "nobody"}
    world.engine.set_variables(instance.id, {"amount": {"value": 2}, "approved_by": "me", "unknown": 1})
    assert instance.variables == {"amount": {"value": 2}, "approved_by": "nobody"}


def test_variables_are_not_shared(world: World) -> None:
    world.engine.catalogue.add(parse_script("processes: [{name: Nested, variables: {list: [1]}}]", "x"))
    first = world.engine.start("Nested")
    first.variables["list"].append(2)
    assert world.engine.start("Nested").variables == {"list": [1]}


def test_break_and_vanish(world: World) -> None:
    instance = world.engine.start("Timed")
    world.engine.break_(instance.id)
    world.after(100)
    assert (world.state(instance.id), instance.closed) == ("Broken", True)
    world.engine.vanish(instance.id)
    assert refusal_code(world.engine.instance, instance.id) == Code.UNKNOWN_INSTANCE
    assert refusal_code(world.engine.vanish, instance.id) == Code.UNKNOWN_INSTANCE


def test_move(world: World) -> None:
    instance = world.engine.start("Timed")
    world.engine.move(instance.id, bp_status="Odd")
    assert (world.state(instance.id), instance.bp_status) == ("Running", "Odd")
    world.engine.move(instance.id, state="CompletedOkWait")
    world.after(1000)
    assert (world.state(instance.id), instance.closed) == ("CompletedOkWait", False)
    world.engine.move(instance.id, closed=True)
    assert (world.state(instance.id), instance.closed, instance.ended) == (
        "CompletedOkWait",
        True,
        world.clock.now,
    )
    world.engine.move(instance.id, state="Running")
    assert (instance.closed, instance.ended) == (False, None)
    world.engine.move(instance.id, state="Completed OK", closed=False)
    assert (world.state(instance.id), instance.closed) == ("Completed OK", False)
    with pytest.raises(ValueError, match="unknown state 'Lost'"):
        world.engine.move(instance.id, state="Lost")


def test_delete(world: World) -> None:
    instance = world.engine.start("Timed")
    world.engine.delete(instance.id)
    assert refusal_code(world.engine.delete, instance.id) == Code.UNKNOWN_INSTANCE
    assert world.engine.instances() == []
