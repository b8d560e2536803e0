"""Reactions: actions that are planned in advance, in the engine and through the control API."""

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


class EngineHarness:
    """An engine with a clock that the tests advance."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.engine = Engine(lambda: self.now, parse_script(TWICE, "test"))

    def start(self, name: str = "Review", **variables: Any) -> Instance:
        return self.engine.instance(self.engine.start(name, variables=variables).id)

    def after(self, instance: Instance, seconds: float) -> str:
        self.now += seconds
        return self.engine.instance(instance.id).state


@pytest.fixture
def harness() -> EngineHarness:
    return EngineHarness()


def reaction(**fields: Any) -> Reaction:
    return Reaction(**{"name": "Review", **fields})


def test_decide_uses_one_outcome_each_time_an_instance_waits(harness: EngineHarness) -> None:
    harness.engine.react(reaction(outcomes=["ask", "again", "approve"], by="Li", variables={"comment": "hm"}))
    instance = harness.start()
    assert (instance.state, instance.task_outcome) == ("Running", "ask")
    assert harness.after(instance, 10) == "Running", (
        "again leads back to the first step, where approve is taken"
    )
    assert harness.after(instance, 10) == WAITING, "no outcome is left"
    assert instance.variables["comment"] == "hm"
    chosen = [event.what for event in instance.history if "chose" in event.what]
    assert chosen == ["Li chose ask", "Li chose again", "Li chose approve"]


def test_each_instance_gets_all_outcomes(harness: EngineHarness) -> None:
    harness.engine.react(reaction(outcomes=["approve", "approve"]))
    both = [harness.start(), harness.start()]
    assert [harness.after(one, 10) for one in both] == ["Completed OK"] * 2


def test_an_outcome_waits_until_a_step_offers_it(harness: EngineHarness) -> None:
    harness.engine.react(reaction(outcomes=["again"]))
    instance = harness.start()
    assert instance.state == WAITING
    harness.engine.decide(instance.id, "approve")
    assert harness.after(instance, 10) == WAITING
    assert instance.history[-1].what == "entered first"


@pytest.mark.parametrize(
    ("action", "state", "suspended"),
    [("break", "Broken", False), ("terminate", "Terminated", False), ("suspend", "Running", True)],
)
def test_break_terminate_and_suspend_are_applied_once(
    action: Any, state: str, suspended: bool, harness: EngineHarness
) -> None:
    harness.engine.react(reaction(name="Quick", action=action))
    instance = harness.start("Quick")
    assert (instance.state, instance.suspended) == (state, suspended)
    if suspended:
        harness.engine.act(instance.id, "resume")
        assert harness.after(instance, 1) == "Running"
        assert not instance.suspended, "it is applied once"


@pytest.mark.parametrize(
    ("action", "state", "suspended"),
    [("break", "Broken", False), ("terminate", "Terminated", False), ("suspend", "New", True)],
)
def test_a_reaction_applies_to_instances_that_end_immediately(
    action: Any, state: str, suspended: bool, harness: EngineHarness
) -> None:
    harness.engine.react(reaction(name="Instant", action=action))
    instance = harness.engine.start("Instant")
    assert (instance.state, instance.suspended) == (state, suspended), "before the start returns"
    assert harness.engine.missed(final=True) == []
    if suspended:
        harness.engine.act(instance.id, "resume")
        assert harness.after(instance, 0) == "Completed OK"


@pytest.mark.parametrize("read_after", [0, 4, 9, 60])
@pytest.mark.parametrize(("after", "at"), [(0, 0), (4, 4), (9.5, 9.5), (10, 10)])
def test_a_reaction_takes_effect_at_its_time_whenever_it_is_read(
    after: float, at: float, read_after: float, harness: EngineHarness
) -> None:
    """The script ends after 10 seconds; a reaction at the same time comes first."""
    harness.engine.react(reaction(name="Quick", action="break", after=after))
    began = harness.now
    instance = harness.start("Quick")
    assert harness.engine.next_due() == (float("inf") if after == 0 else began + at)
    harness.after(instance, read_after)
    harness.after(instance, 60)
    assert (instance.state, instance.ended) == ("Broken", began + at)
    assert [event.at for event in instance.history if event.what == "broken"] == [began + at]


def test_decide_takes_effect_when_the_instance_begins_to_wait(harness: EngineHarness) -> None:
    harness.engine.react(reaction(outcomes=["approve", "approve"]))
    began = harness.now
    instance = harness.start()
    assert harness.after(instance, 60) == "Completed OK"
    chosen = [event.at for event in instance.history if "chose" in event.what]
    assert chosen == [began, began + 10]
    assert instance.ended == began + 10


def test_a_reaction_to_an_open_instance_takes_effect_when_it_is_added(harness: EngineHarness) -> None:
    instance = harness.start("Quick")
    harness.now += 3
    harness.engine.react(reaction(name="Quick", action="terminate", after=1))
    harness.after(instance, 60)
    assert (instance.state, instance.ended) == ("Terminated", 1003)


def test_a_reaction_ignores_instances_that_had_ended(harness: EngineHarness) -> None:
    earlier = harness.start("Quick")
    harness.now += 60
    harness.engine.react(reaction(name="Quick", action="break"))
    later = harness.start("Quick")
    assert (earlier.state, later.state) == ("Completed OK", "Broken")
    assert harness.engine.missed(final=True) == []


class TestMissedReactions:
    def test_reports_instances_that_ended_first(self, harness: EngineHarness) -> None:
        harness.engine.react(reaction(name="Quick", action="suspend", after=10.5))
        ids = [harness.start("Quick").id for _ in range(5)]
        harness.now += 60
        said = (
            "each Quick should have been suspended 10.5 s after its start, but 5 of them were not: "
            + "; ".join(f"{one} had ended as 'Completed OK' 10 s after its start" for one in ids[:3])
            + "; and 2 more"
        )
        assert harness.engine.missed(final=False) == harness.engine.missed(final=True) == [said]

    def test_reports_reactions_that_are_not_due_when_final(self, harness: EngineHarness) -> None:
        harness.engine.react(reaction(name="Quick", action="break", after=5))
        instance = harness.start("Quick")
        assert harness.engine.missed(final=False) == []
        (said,) = harness.engine.missed(final=True)
        assert said == (
            "each Quick should have been broken 5 s after its start, but 1 of them was not: "
            f"{instance.id} is in state 'Running', and the action is not due yet"
        )

    @pytest.mark.parametrize("optional", [True, False])
    def test_reports_that_no_instance_was_started_unless_optional(
        self, optional: bool, harness: EngineHarness
    ) -> None:
        harness.engine.react(
            reaction(action="terminate", where={"dataset": "x"}, business_key="k", optional=optional)
        )
        harness.start(dataset="y")
        assert harness.engine.missed(final=False) == []
        said = (
            "each Review with business key 'k', variable dataset 'x' should have been terminated 0 s after its start, but none "
            "was started"
        )
        assert harness.engine.missed(final=True) == ([] if optional else [said])

    @pytest.mark.parametrize("remove", ["delete", "vanish"])
    def test_reports_deleted_instances(self, remove: str, harness: EngineHarness) -> None:
        harness.engine.react(reaction(name="Quick", action="break", after=5))
        instance = harness.start("Quick")
        getattr(harness.engine, remove)(instance.id)
        (said,) = harness.engine.missed(final=False)
        assert said.endswith(f"{instance.id} was deleted first")

    def test_ignores_superseded_reactions(self, harness: EngineHarness) -> None:
        harness.engine.react(reaction(action="break"))
        harness.engine.react(reaction(outcomes=["ask"]))
        harness.start()
        assert harness.engine.missed(final=True) == []

    def test_ignores_decisions(self, harness: EngineHarness) -> None:
        harness.engine.react(reaction(outcomes=["approve"]))
        assert harness.engine.missed(final=True) == []


def test_only_the_latest_matching_reaction_applies(harness: EngineHarness) -> None:
    harness.engine.react(reaction(outcomes=["approve"]))
    harness.engine.react(reaction(outcomes=["ask"], where={"dataset": "b"}))
    harness.engine.react(reaction(outcomes=[], where={"dataset": None}))
    assert [harness.start(dataset=name).task_outcome for name in "abc"] == ["approve", "ask", "approve"]


def test_a_reaction_applies_to_instances_that_already_wait(harness: EngineHarness) -> None:
    instance = harness.start()
    harness.engine.react(reaction(outcomes=["approve"]))
    assert harness.after(instance, 0) == "Running"


@pytest.mark.parametrize(
    ("fields", "matches"),
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
def test_a_reaction_matches_by_name_key_and_variables(
    fields: dict[str, Any], matches: bool, harness: EngineHarness
) -> None:
    instance = harness.start(**{"dataset": "a", "$Flow.BusinessKey": "k"})
    assert reaction(**fields).matches(instance) is matches


def test_reactions_are_added_by_the_control_api_and_removed_by_reset(control: EmulatorControl) -> None:
    control.react("PublishApproval", outcomes=["approve"], where={"dataset": "a"}, by="Li")
    control.react("SupplierOnboarding", "terminate", business_key="k")
    one = control.start("PublishApproval", {"dataset": "a"})["id"]
    other = control.start("SupplierOnboarding", business_key="k")["id"]
    states = {each["id"]: (each["state"], each["bp_status"]) for each in control.instances()}
    assert states == {one: ("Completed OK", "Approved"), other: ("Terminated", "Collecting")}
    control.reset()
    assert control.start("PublishApproval", {"dataset": "a"})["closed"] is False
    assert control.instances()[0]["closed"] is False


def test_change_suspends_resumes_and_terminates(control: EmulatorControl) -> None:
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
def test_an_invalid_reaction_is_refused(
    arguments: tuple[Any, ...], message: str, control: EmulatorControl
) -> None:
    name, action, outcomes, after = arguments
    with pytest.raises(EmulatorError, match=message):
        control.react(name, action, outcomes, after=after)
