"""Reactions: what is done with instances by themselves, on the engine and through the control API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_astrobpm.emulator import EmulatorControl, EmulatorError
from airflow_provider_astrobpm.emulator.engine import Engine
from airflow_provider_astrobpm.emulator.reactions import Reaction
from airflow_provider_astrobpm.emulator.scripts import parse_script

if TYPE_CHECKING:
    from airflow_provider_astrobpm.emulator.instances import Instance

TWICE = """
processes:
  - name: Review
    variables: {dataset: "", comment: ""}
    steps:
      - {state: Dispatched}
      - {state: Waiting for user interaction, name: first, wait: person, outcomes: {ask: {}, approve: {}}}
      - {state: Running, for: 10}
      - state: Waiting for user interaction
        wait: person
        outcomes:
          again: {goto: first}
          approve: {bp_status: Approved}
  - name: Quick
    steps: [{state: Running, for: 10}]
"""
WAITING = "Waiting for user interaction"


class Stage:
    """An engine, and the time it lives in."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.engine = Engine(lambda: self.now, parse_script(TWICE, "test"))

    def start(self, name: str = "Review", **variables: Any) -> Instance:
        return self.engine.instance(self.engine.start(name, variables=variables).id)

    def after(self, instance: Instance, seconds: float) -> str:
        self.now += seconds
        return self.engine.instance(instance.id).state


@pytest.fixture
def stage() -> Stage:
    return Stage()


def reaction(**fields: Any) -> Reaction:
    return Reaction(**{"name": "Review", **fields})


def test_each_outcome_is_for_one_time_that_an_instance_waits(stage: Stage) -> None:
    stage.engine.react(reaction(outcomes=["ask", "again", "approve"], by="Li", variables={"comment": "hm"}))
    instance = stage.start()
    assert (instance.state, instance.task_outcome) == ("Running", "ask")
    assert stage.after(instance, 10) == "Running", (
        "again leads back to the first step, where approve is taken"
    )
    assert stage.after(instance, 10) == WAITING, "nobody decides any more"
    assert instance.variables["comment"] == "hm"
    chosen = [event.what for event in instance.history if "chose" in event.what]
    assert chosen == ["Li chose ask", "Li chose again", "Li chose approve"]


def test_each_instance_gets_all_of_it(stage: Stage) -> None:
    stage.engine.react(reaction(outcomes=["approve", "approve"]))
    both = [stage.start(), stage.start()]
    assert [stage.after(one, 10) for one in both] == ["Completed OK"] * 2


def test_an_outcome_that_is_not_on_offer_waits_for_its_step(stage: Stage) -> None:
    stage.engine.react(reaction(outcomes=["again"]))
    instance = stage.start()
    assert instance.state == WAITING
    stage.engine.decide(instance.id, "approve")
    assert stage.after(instance, 10) == WAITING
    assert instance.history[-1].what == "entered first"


@pytest.mark.parametrize(
    ("deed", "state", "suspended"),
    [("break", "Broken", False), ("terminate", "Terminated", False), ("suspend", "Running", True)],
)
def test_what_is_done_once(deed: Any, state: str, suspended: bool, stage: Stage) -> None:
    stage.engine.react(reaction(name="Quick", deed=deed))
    instance = stage.start("Quick")
    assert (instance.state, instance.suspended) == (state, suspended)
    if suspended:
        stage.engine.act(instance.id, "resume")
        assert stage.after(instance, 1) == "Running"
        assert not instance.suspended, "it is done once"


def test_the_latest_that_is_about_an_instance_counts_alone(stage: Stage) -> None:
    stage.engine.react(reaction(outcomes=["approve"]))
    stage.engine.react(reaction(outcomes=["ask"], where={"dataset": "b"}))
    stage.engine.react(reaction(outcomes=[], where={"dataset": None}))
    assert [stage.start(dataset=name).task_outcome for name in "abc"] == ["approve", "ask", "approve"]


def test_it_is_also_for_those_that_wait_already(stage: Stage) -> None:
    instance = stage.start()
    stage.engine.react(reaction(outcomes=["approve"]))
    assert stage.after(instance, 0) == "Running"


@pytest.mark.parametrize(
    ("fields", "about"),
    [
        ({}, True),
        ({"name": "Quick"}, False),
        ({"business_key": "k"}, True),
        ({"business_key": "other"}, False),
        ({"where": {"dataset": "a"}}, True),
        ({"where": {"dataset": "b"}}, False),
        ({"where": {"dataset": "a", "comment": "x"}}, False),
        ({"where": {"unheard_of": None}}, False),
    ],
)
def test_what_it_is_about(fields: dict[str, Any], about: bool, stage: Stage) -> None:
    instance = stage.start(**{"dataset": "a", "$Flow.BusinessKey": "k"})
    assert reaction(**fields).is_about(instance) is about


def test_through_the_control_api(control: EmulatorControl) -> None:
    control.react("PublishApproval", outcomes=["approve"], where={"dataset": "a"}, by="Li")
    control.react("SupplierOnboarding", "terminate", business_key="k")
    one = control.start("PublishApproval", {"dataset": "a"})["id"]
    other = control.start("SupplierOnboarding", business_key="k")["id"]
    states = {each["id"]: (each["state"], each["bp_status"]) for each in control.instances()}
    assert states == {one: ("Completed OK", "Approved"), other: ("Terminated", "Collecting")}
    control.reset()
    assert control.start("PublishApproval", {"dataset": "a"})["closed"] is False
    assert control.instances()[0]["closed"] is False


def test_a_person_suspends_resumes_and_terminates(control: EmulatorControl) -> None:
    instance_id = control.start("PublishApproval")["id"]
    assert control.change(instance_id, "suspend")["suspended"] is True
    assert control.change(instance_id, "resume")["suspended"] is False
    assert control.change(instance_id, "terminate")["state"] == "Terminated"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Unheard",), "BPM Unheard does not exist"),
        (("PublishApproval", "decide", ["aprove"]), "has no outcome 'aprove'; it has approve, reject"),
        (("Instant", "decide", ["approve"]), "it has none, as no person is in it"),
        (("PublishApproval", "burn"), "Invalid enum value 'burn'"),
    ],
)
def test_what_is_refused(arguments: tuple[Any, ...], message: str, control: EmulatorControl) -> None:
    with pytest.raises(EmulatorError, match=message):
        control.react(*arguments)
