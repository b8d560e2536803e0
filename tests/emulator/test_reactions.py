"""Reactions: what is done with instances by themselves, on the engine and through the control API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_astrobpm.emulator import EmulatorControl, EmulatorError
from airflow_provider_astrobpm.emulator.engine import Engine
from airflow_provider_astrobpm.emulator.process_scripts import parse_script
from airflow_provider_astrobpm.emulator.reactions import Reaction

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
  - {name: Instant}
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


@pytest.mark.parametrize(
    ("deed", "state", "suspended"),
    [("break", "Broken", False), ("terminate", "Terminated", False), ("suspend", "New", True)],
)
def test_what_ends_at_once_is_met_as_well(deed: Any, state: str, suspended: bool, stage: Stage) -> None:
    stage.engine.react(reaction(name="Instant", deed=deed))
    instance = stage.engine.start("Instant")
    assert (instance.state, instance.suspended) == (state, suspended), "before the start is answered"
    assert stage.engine.missed(final=True) == []
    if suspended:
        stage.engine.act(instance.id, "resume")
        assert stage.after(instance, 0) == "Completed OK"


@pytest.mark.parametrize("looked_after", [0, 4, 9, 60])
@pytest.mark.parametrize(("after", "at"), [(0, 0), (4, 4), (9.5, 9.5), (10, 10)])
def test_it_happens_at_its_moment_whenever_somebody_looks(
    after: float, at: float, looked_after: float, stage: Stage
) -> None:
    """At 10 its script ends, and what was ordered comes before."""
    stage.engine.react(reaction(name="Quick", deed="break", after=after))
    began = stage.now
    instance = stage.start("Quick")
    assert stage.engine.next_due() == (float("inf") if after == 0 else began + at)
    stage.after(instance, looked_after)
    stage.after(instance, 60)
    assert (instance.state, instance.ended) == ("Broken", began + at)
    assert [event.at for event in instance.history if event.what == "broken"] == [began + at]


def test_a_person_decides_in_the_moment_in_which_it_begins_to_wait(stage: Stage) -> None:
    stage.engine.react(reaction(outcomes=["approve", "approve"]))
    began = stage.now
    instance = stage.start()
    assert stage.after(instance, 60) == "Completed OK"
    chosen = [event.at for event in instance.history if "chose" in event.what]
    assert chosen == [began, began + 10]
    assert instance.ended == began + 10


def test_what_was_ordered_later_happens_then(stage: Stage) -> None:
    instance = stage.start("Quick")
    stage.now += 3
    stage.engine.react(reaction(name="Quick", deed="terminate", after=1))
    stage.after(instance, 60)
    assert (instance.state, instance.ended) == ("Terminated", 1003)


def test_what_had_ended_before_the_order_is_none_of_it(stage: Stage) -> None:
    earlier = stage.start("Quick")
    stage.now += 60
    stage.engine.react(reaction(name="Quick", deed="break"))
    later = stage.start("Quick")
    assert (earlier.state, later.state) == ("Completed OK", "Broken")
    assert stage.engine.missed(final=True) == []


class TestWhatDidNotHappen:
    def test_it_had_ended(self, stage: Stage) -> None:
        stage.engine.react(reaction(name="Quick", deed="suspend", after=10.5))
        ids = [stage.start("Quick").id for _ in range(5)]
        stage.now += 60
        said = (
            "each Quick should have been suspended 10.5 s after its start, but 5 of them were not: "
            + "; ".join(f"{one} had ended as 'Completed OK' 10 s after its start" for one in ids[:3])
            + "; and 2 more"
        )
        assert stage.engine.missed(final=False) == stage.engine.missed(final=True) == [said]

    def test_its_moment_has_not_come(self, stage: Stage) -> None:
        stage.engine.react(reaction(name="Quick", deed="break", after=5))
        instance = stage.start("Quick")
        assert stage.engine.missed(final=False) == []
        (said,) = stage.engine.missed(final=True)
        assert said == (
            "each Quick should have been broken 5 s after its start, but 1 of them was not: "
            f"{instance.id} is in state 'Running', and the action is not due yet"
        )

    @pytest.mark.parametrize("optional", [True, False])
    def test_none_was_started(self, optional: bool, stage: Stage) -> None:
        stage.engine.react(
            reaction(deed="terminate", where={"dataset": "x"}, business_key="k", optional=optional)
        )
        stage.start(dataset="y")
        assert stage.engine.missed(final=False) == []
        said = (
            "each Review with business key 'k', variable dataset 'x' should have been terminated 0 s after its start, but none "
            "was started"
        )
        assert stage.engine.missed(final=True) == ([] if optional else [said])

    @pytest.mark.parametrize("remove", ["delete", "vanish"])
    def test_it_was_deleted(self, remove: str, stage: Stage) -> None:
        stage.engine.react(reaction(name="Quick", deed="break", after=5))
        instance = stage.start("Quick")
        getattr(stage.engine, remove)(instance.id)
        (said,) = stage.engine.missed(final=False)
        assert said.endswith(f"{instance.id} was deleted first")

    def test_a_later_order_took_its_place(self, stage: Stage) -> None:
        stage.engine.react(reaction(deed="break"))
        stage.engine.react(reaction(outcomes=["ask"]))
        stage.start()
        assert stage.engine.missed(final=True) == []

    def test_decisions_of_people_are_none_of_it(self, stage: Stage) -> None:
        stage.engine.react(reaction(outcomes=["approve"]))
        assert stage.engine.missed(final=True) == []


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
    assert reaction(**fields).matches(instance) is about


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
        (("Unheard", "decide", [], 0), "BPM Unheard does not exist"),
        (("PublishApproval", "decide", ["aprove"], 0), "has no outcome 'aprove'; it has approve, reject"),
        (("Instant", "decide", ["approve"], 0), "it has none, because it never waits for a person"),
        (("PublishApproval", "burn", [], 0), "Invalid enum value 'burn'"),
        (("PublishApproval", "break", [], -1), "after must be 0 or more seconds, not -1"),
        (("PublishApproval", "decide", ["approve"], 1), "so after has no effect"),
    ],
)
def test_what_is_refused(arguments: tuple[Any, ...], message: str, control: EmulatorControl) -> None:
    name, deed, outcomes, after = arguments
    with pytest.raises(EmulatorError, match=message):
        control.react(name, deed, outcomes, after=after)
