"""The engine, with a clock that the tests advance."""

from __future__ import annotations

import re
from typing import Any

import pytest

from airflow_provider_astrobpm.emulator.engine import Engine
from airflow_provider_astrobpm.emulator.process_scripts import parse_script
from airflow_provider_astrobpm.emulator.refusals import Refusal, ResultCode
from airflow_provider_astrobpm.emulator.switches import Switches
from tests.support.clocks import ManualClock

SCRIPT = """
processes:
  - name: Timed
    variables: {amount: 1, approved_by: unset}
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


class EngineHarness:
    """An engine, its clock, and shortcuts for tests."""

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
def harness() -> EngineHarness:
    return EngineHarness()


def test_an_old_instance_has_run_its_script_since_its_start(harness: EngineHarness) -> None:
    began = harness.clock.now - 1000
    timed = harness.engine.instance(harness.engine.start("Timed", age=1000).id)
    asked = harness.engine.instance(harness.engine.start("Asked", age=1000).id)
    young = harness.engine.start("Asked")
    assert (timed.started, timed.ended, timed.state) == (began, began + 15, "Completed OK")
    assert [event.at for event in timed.history] == [began, began, began + 10, began + 15]
    assert (asked.started, asked.closed, asked.changed) == (began, False, began + 1)
    harness.engine.decide(asked.id, "reject")
    assert asked.ended == harness.clock.now, "a decision takes effect at the current time"
    assert young.started == harness.clock.now


@pytest.mark.parametrize("age", [-1, float("nan"), float("inf"), 1e12])
def test_an_invalid_age_is_refused(age: float, harness: EngineHarness) -> None:
    with pytest.raises(ValueError, match="age must be 0 or more seconds"):
        harness.engine.start("Timed", age=age)
    assert harness.engine.instances() == []


def refusal_code(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(Refusal) as caught:
        call(*arguments, **named)
    return caught.value.code


def test_steps_take_effect_at_their_time(harness: EngineHarness) -> None:
    instance = harness.engine.start("Timed")
    assert (instance.state, instance.bp_status, instance.element) == ("Dispatched", "Begun", "Begin")
    seen = []
    for seconds in (0, 9.9, 0.1, 4.9, 0.1, 100):
        harness.after(seconds)
        harness.engine.instance(instance.id)
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


def test_a_late_read_yields_the_same_history_as_frequent_reads(harness: EngineHarness) -> None:
    instance = harness.engine.start("Timed")
    harness.after(1000)
    history = harness.engine.instance(instance.id).history
    assert [(event.at - instance.started, event.what, event.state) for event in history] == [
        (0, "entered Begin", "Dispatched"),
        (0, "entered Work", "Running"),
        (10, "entered Paused", "Paused"),
        (15, "ended", "Completed OK"),
    ]


def test_instances_end_immediately_or_as_broken(harness: EngineHarness) -> None:
    instant = harness.engine.start("Instant")
    assert (instant.state, instant.closed, instant.ended) == ("Completed OK", True, instant.started)
    fails = harness.engine.start("Fails")
    harness.after(3)
    assert (harness.state(fails.id), fails.closed) == ("Broken", True)


def test_ids_are_unique_and_have_the_documented_form(harness: EngineHarness) -> None:
    ids = {harness.engine.start("Instant").id for _ in range(200)}
    assert len(ids) == 200
    assert all(re.fullmatch(r"002N[0-9A-Za-z]{16}", each) for each in ids)
    assert all(re.fullmatch(r"001L[0-9A-Za-z]{16}", each.id) for each in harness.engine.catalogue)


def test_business_key_and_title_have_defaults(harness: EngineHarness) -> None:
    plain = harness.engine.start("Timed")
    assert (plain.business_key, plain.title) == (plain.id, "Timed")
    named = harness.engine.start(
        "Timed", variables={"$Flow.BusinessKey": "k-1", "$Flow.Title": "Mine", "amount": 5}
    )
    assert (named.business_key, named.title) == ("k-1", "Mine")
    assert named.variables == {"amount": 5, "approved_by": "unset"}


def test_start_runs_the_active_or_the_named_version(harness: EngineHarness) -> None:
    assert harness.engine.start("Old").process.version == "2.0.0"
    assert harness.engine.start("Old", "1.0.0").process.version == "1.0.0"
    assert harness.engine.start("Retired", "1.0.0").process.name == "Retired"
    assert refusal_code(harness.engine.start, "Retired") == ResultCode.NO_ACTIVE_VERSION
    assert refusal_code(harness.engine.start, "Old", "3.0.0") == ResultCode.UNKNOWN_VERSION
    assert refusal_code(harness.engine.start, "old") == ResultCode.UNKNOWN_PROCESS


def test_an_added_active_version_deactivates_the_others(harness: EngineHarness) -> None:
    before = {
        each.process.version: each.id for each in harness.engine.catalogue if each.process.name == "Old"
    }
    harness.engine.catalogue.add(
        parse_script(
            "processes: [{name: Old, version: 1.0.0}, {name: Old, version: 3.0.0, active: false}]", "x"
        )
    )
    assert harness.engine.start("Old").process.version == "1.0.0"
    active = {
        each.process.version
        for each in harness.engine.catalogue
        if each.process.name == "Old" and each.process.active
    }
    assert active == {"1.0.0"}
    assert harness.engine.start("Old").definition_id == before["1.0.0"]


def test_decide_completes_a_step_with_its_outcome(harness: EngineHarness) -> None:
    instance = harness.engine.start("Asked")
    assert refusal_code(harness.engine.decide, instance.id, "approve") == ResultCode.NO_PERSON_AWAITED
    harness.after(1)
    assert refusal_code(harness.engine.decide, instance.id, "shrug") == ResultCode.NO_PERSON_AWAITED
    harness.after(1_000_000)
    assert harness.state(instance.id) == "Waiting for user interaction"
    harness.engine.decide(instance.id, "approve", "Li", {"comment": "fine"})
    assert (instance.state, instance.bp_status, instance.task_outcome) == ("Running", "Publishing", "approve")
    assert instance.variables == {"comment": "fine", "approved_by": "Li"}
    harness.after(2)
    assert harness.state(instance.id) == "Completed OK"


def test_an_outcome_can_end_the_instance_or_return_to_a_step(harness: EngineHarness) -> None:
    rejected, again = harness.engine.start("Asked"), harness.engine.start("Asked")
    harness.after(1)
    harness.engine.decide(rejected.id, "reject")
    assert (rejected.state, rejected.bp_status, rejected.closed) == ("User Terminated", "Rejected", True)
    harness.engine.decide(again.id, "again")
    assert (again.state, again.task_outcome) == ("Running", "once more")
    harness.after(1)
    assert list(harness.engine.instance(again.id).outcomes) == ["approve", "reject", "again"]


def test_a_suspended_instance_does_not_advance(harness: EngineHarness) -> None:
    instance = harness.engine.start("Timed")
    harness.after(4)
    harness.engine.act(instance.id, "suspend")
    harness.after(1000)
    assert (harness.state(instance.id), instance.suspended) == ("Running", True)
    harness.engine.act(instance.id, "resume")
    harness.after(5.9)
    assert harness.state(instance.id) == "Running"
    harness.after(0.2)
    assert harness.state(instance.id) == "Paused"


def test_a_suspended_instance_offers_no_outcomes(harness: EngineHarness) -> None:
    instance = harness.engine.start("Asked")
    harness.after(1)
    harness.engine.act(instance.id, "suspend")
    assert refusal_code(harness.engine.decide, instance.id, "approve") == ResultCode.NO_PERSON_AWAITED
    harness.engine.act(instance.id, "resume")
    assert not harness.engine.decide(instance.id, "approve").closed


@pytest.mark.parametrize("suspended", [False, True])
def test_terminate_closes_an_instance(harness: EngineHarness, suspended: bool) -> None:
    instance = harness.engine.start("Timed")
    if suspended:
        harness.engine.act(instance.id, "suspend")
    harness.after(2)
    harness.engine.act(instance.id, "terminate")
    harness.after(1000)
    assert (harness.state(instance.id), instance.closed, instance.suspended) == ("Terminated", True, False)
    assert instance.ended == instance.started + 2


@pytest.mark.parametrize(
    ("before", "action", "code"),
    [
        (["suspend"], "suspend", ResultCode.ALREADY_SO),
        ([], "resume", ResultCode.ALREADY_SO),
        (["terminate"], "terminate", ResultCode.ALREADY_SO),
        (["terminate"], "suspend", ResultCode.INSTANCE_CLOSED),
        (["terminate"], "resume", ResultCode.INSTANCE_CLOSED),
        ([], "explode", ResultCode.UNKNOWN_ACTION),
    ],
)
def test_a_refused_action_changes_nothing(
    harness: EngineHarness, before: list[str], action: str, code: str
) -> None:
    instance = harness.engine.start("Timed")
    for earlier in before:
        harness.engine.act(instance.id, earlier)
    state = harness.state(instance.id)
    assert refusal_code(harness.engine.act, instance.id, action) == code
    assert harness.state(instance.id) == state


@pytest.mark.parametrize("action", ["suspend", "resume", "terminate"])
def test_a_repeated_action_that_is_accepted_changes_nothing(harness: EngineHarness, action: str) -> None:
    harness.switch(acting_twice="accept", acting_on_closed="accept")
    instance = harness.engine.start("Timed")
    for _ in range(2):
        harness.engine.act(instance.id, action)
    ended = harness.engine.start("Instant")
    assert harness.engine.act(ended.id, action).state == "Completed OK"
    harness.after(5)
    assert instance.suspended is (action == "suspend")
    assert len([event for event in instance.history if event.what.startswith(action)]) == (action != "resume")


def test_a_completed_instance_refuses_actions(harness: EngineHarness) -> None:
    instance = harness.engine.start("Instant")
    assert refusal_code(harness.engine.act, instance.id, "terminate") == ResultCode.INSTANCE_CLOSED
    assert refusal_code(harness.engine.set_variables, instance.id, {}) == ResultCode.INSTANCE_CLOSED


def test_action_lag_delays_an_action(harness: EngineHarness) -> None:
    harness.switch(action_lag=3)
    instance = harness.engine.start("Timed")
    assert harness.engine.act(instance.id, "terminate").state == "Running"
    harness.after(2.9)
    assert harness.state(instance.id) == "Running"
    harness.after(0.2)
    assert harness.state(instance.id) == "Terminated"
    assert instance.ended == instance.started + 3


def test_a_delayed_action_does_not_change_a_closed_instance(harness: EngineHarness) -> None:
    harness.switch(action_lag=20)
    instance = harness.engine.start("Timed")
    harness.engine.act(instance.id, "terminate")
    harness.after(100)
    assert harness.state(instance.id) == "Completed OK"


def test_a_delayed_suspend_pauses_the_timer_from_then_on(harness: EngineHarness) -> None:
    harness.switch(action_lag=4)
    instance = harness.engine.start("Timed")
    harness.engine.act(instance.id, "suspend")
    harness.after(1000)
    assert harness.state(instance.id) == "Running"
    harness.switch(action_lag=0)
    harness.engine.act(instance.id, "resume")
    harness.after(6)
    assert harness.state(instance.id) == "Paused"


def test_unknown_and_read_only_variables_are_ignored(harness: EngineHarness) -> None:
    instance = harness.engine.start("Timed", variables={"approved_by": "me", "unknown": 1})
    assert instance.variables == {"amount": 1, "approved_by": "unset"}
    harness.engine.set_variables(instance.id, {"amount": {"value": 2}, "approved_by": "me", "unknown": 1})
    assert instance.variables == {"amount": {"value": 2}, "approved_by": "unset"}


def test_instances_do_not_share_variables(harness: EngineHarness) -> None:
    harness.engine.catalogue.add(parse_script("processes: [{name: Nested, variables: {list: [1]}}]", "x"))
    first = harness.engine.start("Nested")
    first.variables["list"].append(2)
    assert harness.engine.start("Nested").variables == {"list": [1]}


def test_an_instance_can_be_broken_and_removed(harness: EngineHarness) -> None:
    instance = harness.engine.start("Timed")
    harness.engine.break_(instance.id)
    harness.after(100)
    assert (harness.state(instance.id), instance.closed) == ("Broken", True)
    harness.engine.vanish(instance.id)
    assert refusal_code(harness.engine.instance, instance.id) == ResultCode.UNKNOWN_INSTANCE
    assert refusal_code(harness.engine.vanish, instance.id) == ResultCode.UNKNOWN_INSTANCE


def test_move_forces_a_state(harness: EngineHarness) -> None:
    instance = harness.engine.start("Timed")
    harness.engine.move(instance.id, bp_status="Odd")
    assert (harness.state(instance.id), instance.bp_status) == ("Running", "Odd")
    harness.engine.move(instance.id, state="CompletedOkWait")
    harness.after(1000)
    assert (harness.state(instance.id), instance.closed) == ("CompletedOkWait", False)
    harness.engine.move(instance.id, closed=True)
    assert (harness.state(instance.id), instance.closed, instance.ended) == (
        "CompletedOkWait",
        True,
        harness.clock.now,
    )
    harness.engine.move(instance.id, state="Running")
    assert (instance.closed, instance.ended) == (False, None)
    harness.engine.move(instance.id, state="Completed OK", closed=False)
    assert (harness.state(instance.id), instance.closed) == ("Completed OK", False)
    with pytest.raises(ValueError, match="unknown state 'Lost'"):
        harness.engine.move(instance.id, state="Lost")


def test_a_deleted_instance_is_unknown(harness: EngineHarness) -> None:
    instance = harness.engine.start("Timed")
    harness.engine.delete(instance.id)
    assert refusal_code(harness.engine.delete, instance.id) == ResultCode.UNKNOWN_INSTANCE
    assert harness.engine.instances() == []
