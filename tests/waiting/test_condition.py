"""How a condition judges an instance, as a table, and the main rule: no success that was not asked for."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.client import states
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.waiting.condition import (
    NOT_GIVEN,
    Outcome,
    WaitCondition,
    given_condition_arguments,
)

WAITING, DONE, FAILED = Outcome.WAITING, Outcome.DONE, Outcome.FAILED

# condition, instance, outcome
TABLE: list[tuple[dict[str, Any], dict[str, Any], Outcome]] = [
    # Without states and statuses: Completed OK.
    *[({}, {"state": state}, WAITING) for state in states.OPEN_STATES],
    ({}, {"state": "Completed OK"}, DONE),
    ({}, {"state": "Terminated"}, FAILED),
    ({}, {"state": "User Terminated"}, FAILED),
    ({}, {"state": "Broken"}, FAILED),
    ({}, {"state": "CompletedOkWait"}, WAITING),
    ({}, {"state": "CompletedOkWait", "is_closed": True}, FAILED),
    ({}, {"state": "Running", "is_closed": True}, FAILED),
    ({}, {"state": "Perfectly Fine"}, WAITING),
    ({}, {"state": "Perfectly Fine", "is_closed": True}, FAILED),
    ({}, {"state": "completed ok"}, WAITING),
    ({}, {"state": "Completed OK", "bp_status": "Rejected"}, DONE),
    # States.
    ({"states": ["Terminated"]}, {"state": "Terminated"}, DONE),
    ({"states": ["Terminated"]}, {"state": "User Terminated"}, FAILED),
    ({"states": ["Terminated"]}, {"state": "Completed OK"}, FAILED),
    ({"states": ["Broken"]}, {"state": "Broken"}, DONE),
    ({"states": ["CompletedOkWait", "Completed OK"]}, {"state": "CompletedOkWait"}, DONE),
    ({"states": ["Waiting for user interaction"]}, {"state": "Running"}, WAITING),
    ({"states": ["Waiting for user interaction"]}, {"state": "Waiting for user interaction"}, DONE),
    ({"states": ["Waiting for user interaction"]}, {"state": "Completed OK"}, FAILED),
    ({"states": ["Suspended"]}, {"state": "New", "suspended": True}, DONE),
    ({"states": ["Suspended"]}, {"state": "Suspended"}, DONE),
    ({"states": ["Suspended"]}, {"state": "Terminated", "suspended": True}, FAILED),
    ({"states": ["Suspended"]}, {"state": "Who Knows", "suspended": True}, WAITING),
    # Business statuses.
    ({"bp_statuses": ["Approved"]}, {"state": "Running", "bp_status": "Approved"}, DONE),
    ({"bp_statuses": ["Approved"]}, {"state": "Running", "bp_status": "Submitted"}, WAITING),
    ({"bp_statuses": ["Approved"]}, {"state": "Running", "bp_status": None}, WAITING),
    ({"bp_statuses": ["Approved"]}, {"state": "Completed OK", "bp_status": "Approved"}, DONE),
    ({"bp_statuses": ["Approved"]}, {"state": "Completed OK", "bp_status": "Rejected"}, FAILED),
    ({"bp_statuses": ["Approved"]}, {"state": "Broken", "bp_status": "Approved"}, FAILED),
    ({"bp_statuses": ["Approved"]}, {"state": "Terminated", "bp_status": "Approved"}, FAILED),
    ({"bp_statuses": ["Approved"]}, {"state": "Who Knows", "bp_status": "Approved"}, WAITING),
    (
        {"bp_statuses": ["Approved"]},
        {"state": "Who Knows", "bp_status": "Approved", "is_closed": True},
        FAILED,
    ),
    ({"bp_statuses": ["Approved"]}, {"state": "Running", "bp_status": "Approved", "is_closed": True}, FAILED),
    # States and statuses: both have to hold.
    (
        {"states": ["Completed OK"], "bp_statuses": ["Approved"]},
        {"state": "Running", "bp_status": "Approved"},
        WAITING,
    ),
    (
        {"states": ["Completed OK"], "bp_statuses": ["Approved"]},
        {"state": "Completed OK", "bp_status": "Approved"},
        DONE,
    ),
    (
        {"states": ["Completed OK"], "bp_statuses": ["Approved"]},
        {"state": "Completed OK", "bp_status": "Rejected"},
        FAILED,
    ),
    # Failure takes precedence over success.
    ({"failed_bp_statuses": ["Rejected"]}, {"state": "Running", "bp_status": "Rejected"}, FAILED),
    ({"failed_bp_statuses": ["Rejected"]}, {"state": "Completed OK", "bp_status": "Rejected"}, FAILED),
    ({"failed_bp_statuses": ["Rejected"]}, {"state": "Completed OK", "bp_status": "Approved"}, DONE),
    ({"failed_states": ["Paused"]}, {"state": "Paused"}, FAILED),
    ({"failed_states": ["Suspended"]}, {"state": "Running", "suspended": True}, FAILED),
    # Blanks around a status are ignored.
    ({"failed_bp_statuses": ["Rejected"]}, {"state": "Completed OK", "bp_status": "Rejected "}, FAILED),
    ({"failed_bp_statuses": [" Rejected"]}, {"state": "Completed OK", "bp_status": "Rejected"}, FAILED),
    ({"bp_statuses": ["Approved\n"]}, {"state": "Running", "bp_status": "\u3000Approved"}, DONE),
    ({"bp_statuses": ["Approved"]}, {"state": "Running", "bp_status": "Appr oved"}, WAITING),
    ({"bp_statuses": ["Approved"]}, {"state": "Running", "bp_status": "approved"}, WAITING),
    # A closed instance has to show a status if any are given.
    ({"failed_bp_statuses": ["Rejected"]}, {"state": "Completed OK", "bp_status": None}, FAILED),
    ({"failed_bp_statuses": ["Rejected"]}, {"state": "Completed OK", "bp_status": " "}, FAILED),
    ({"failed_bp_statuses": ["Rejected"]}, {"state": "Running", "bp_status": None}, WAITING),
    ({"failed_bp_statuses": ["Rejected"]}, {"state": "Terminated", "bp_status": None}, FAILED),
    (
        {"failed_bp_statuses": ["Rejected"], "states": ["Completed OK"]},
        {"state": "Completed OK", "bp_status": None},
        FAILED,
    ),
    (
        {"failed_bp_statuses": ["Rejected"], "states": ["Terminated"]},
        {"state": "Terminated", "bp_status": None},
        FAILED,
    ),
    (
        {"failed_bp_statuses": ["Rejected"], "states": ["Running"]},
        {"state": "Running", "bp_status": None},
        DONE,
    ),
    ({"bp_statuses": ["Approved"]}, {"state": "Completed OK", "bp_status": None}, FAILED),
    ({}, {"state": "Completed OK", "bp_status": None}, DONE),
    # A status with replaced characters matches nothing.
    ({"bp_statuses": ["Approved"]}, {"state": "Running", "bp_status": "Appr\ufffdoved"}, WAITING),
    ({"failed_bp_statuses": ["Rejected"]}, {"state": "Completed OK", "bp_status": "Rej\ufffdected"}, FAILED),
    ({"failed_bp_statuses": ["Rejected"]}, {"state": "Running", "bp_status": "Rej\ufffdected"}, WAITING),
    (
        {"failed_bp_statuses": ["Rejected"], "states": ["Running"]},
        {"state": "Running", "bp_status": "Rej\ufffdected"},
        WAITING,
    ),
    ({}, {"state": "Completed OK", "bp_status": "Rej\ufffdected"}, DONE),
    # Suspended.
    ({}, {"state": "New", "suspended": True}, WAITING),
    ({"on_suspended": "fail"}, {"state": "New", "suspended": True}, FAILED),
    ({"on_suspended": "fail"}, {"state": "Suspended"}, FAILED),
    ({"on_suspended": "fail"}, {"state": "Completed OK", "suspended": True}, DONE),
    ({"on_suspended": "fail", "states": ["Suspended"]}, {"state": "New", "suspended": True}, DONE),
]


@pytest.mark.parametrize(("condition", "instance", "outcome"), TABLE)
def test_judges_by_the_table(
    condition: dict[str, Any], instance: dict[str, Any], outcome: Outcome, make: Callable[..., BpmInstance]
) -> None:
    verdict = WaitCondition.of(**condition).judge(make(**instance))
    assert verdict.outcome is outcome
    assert verdict.reason


def test_failure_reason_names_the_shown_and_the_wanted_state(make: Callable[..., BpmInstance]) -> None:
    condition = WaitCondition.of(states=["Completed OK"], bp_statuses=["Approved"])
    reason = condition.judge(make(state="Completed OK", bp_status="Rejected")).reason
    assert "'Completed OK' with business status 'Rejected'" in reason
    assert "'Approved'" in reason


@pytest.mark.parametrize(
    ("condition", "asked"),
    [
        (
            {"failed_bp_statuses": ["Rejected"]},
            "the wait was for state 'Completed OK' and a business status other than 'Rejected'",
        ),
        (
            {"bp_statuses": ["Approved"]},
            "the wait was for state 'Completed OK' and business status 'Approved'",
        ),
    ],
)
def test_failure_reason_says_that_no_status_was_shown(
    condition: dict[str, Any], asked: str, make: Callable[..., BpmInstance]
) -> None:
    reason = WaitCondition.of(**condition).judge(make(state="Completed OK")).reason
    assert reason == f"it ended in state 'Completed OK' without showing a business status; {asked}"


@pytest.mark.parametrize(
    ("condition", "instance", "reason"),
    [
        ({"failed_states": ["Paused"]}, {"state": "Paused"}, "it is in state 'Paused', one of failed_states"),
        (
            {"failed_bp_statuses": ["No"]},
            {"bp_status": " No"},
            "its business status is 'No', one of failed_bp_statuses",
        ),
        ({"on_suspended": "fail"}, {"suspended": True}, 'it is suspended, and on_suspended is "fail"'),
        ({}, {"state": "Running"}, "the condition is not met yet"),
        ({}, {"state": "Completed OK"}, "the condition is met"),
        ({}, {"state": "Broken"}, "it ended in state 'Broken'; the wait was for state 'Completed OK'"),
        (
            {},
            {"state": "Broken", "bp_status": "No"},
            "it ended in state 'Broken' with business status 'No'; the wait was for state 'Completed OK'",
        ),
        (
            {"states": ["Paused", "New"]},
            {"state": "Broken"},
            "it ended in state 'Broken'; the wait was for state 'New' or 'Paused'",
        ),
        (
            {"failed_bp_statuses": ["No"]},
            {"state": "Completed OK", "bp_status": "N\ufffd"},
            (
                "it ended in state 'Completed OK' with business status 'N\ufffd'; the wait was for state 'Completed OK' and a "
                "business status other than 'No'"
            ),
        ),
        (
            {"failed_bp_statuses": ["No"]},
            {"state": "Broken", "bp_status": "Yes"},
            "it ended in state 'Broken' with business status 'Yes'; the wait was for state 'Completed OK'",
        ),
        (
            {"bp_statuses": ["Yes"], "failed_bp_statuses": ["No"]},
            {"state": "Broken"},
            (
                "it ended in state 'Broken' without showing a business status; the wait was for state 'Completed OK' and "
                "business status 'Yes'"
            ),
        ),
    ],
)
def test_the_reason_says_what_was_shown_and_what_was_asked_for(
    condition: dict[str, Any], instance: dict[str, Any], reason: str, make: Callable[..., BpmInstance]
) -> None:
    assert WaitCondition.of(**condition).judge(make(**instance)).reason == reason


@pytest.mark.parametrize(
    ("condition", "is_permanent"),
    [
        ({}, True),
        ({"failed_bp_statuses": ["No"], "failed_states": ["Paused"]}, True),
        ({"states": ["Completed OK"]}, False),
        ({"bp_statuses": ["Yes"]}, False),
    ],
)
def test_only_the_end_is_permanent(condition: dict[str, Any], is_permanent: bool) -> None:
    assert WaitCondition.of(**condition).is_permanent is is_permanent


def test_distinguishes_wanted_statuses_from_merely_not_failing_ones() -> None:
    assert WaitCondition.of(failed_bp_statuses=["No", "Nay"]).only_failing_statuses == {"No", "Nay"}
    assert WaitCondition.of(failed_bp_statuses=["No"], states=["Paused"]).only_failing_statuses == {"No"}
    assert not WaitCondition.of(failed_bp_statuses=["No"], bp_statuses=["Yes"]).only_failing_statuses
    assert not WaitCondition.of(states=["Paused"]).only_failing_statuses


STATUS = st.sampled_from(["Approved", "Rejected", "Submitted", " Approved", "Rejected\t"])
SOME_STATES = st.frozensets(st.sampled_from(sorted(states.STATES)))


@st.composite
def conditions(draw: st.DrawFn) -> WaitCondition:
    wanted, failing = draw(SOME_STATES), draw(SOME_STATES)
    plain = STATUS.map(str.strip)
    statuses, failing_statuses = draw(st.frozensets(plain)), draw(st.frozensets(plain))
    return WaitCondition(
        wanted,
        statuses,
        failing - wanted,
        failing_statuses - statuses,
        draw(st.sampled_from(["wait", "fail"])),
    )


@st.composite
def instances(draw: st.DrawFn) -> BpmInstance:
    state = draw(st.sampled_from(sorted(states.STATES)) | st.text(max_size=12))
    return BpmInstance(
        id="1",
        name="n",
        state=state,
        bp_status=draw(STATUS | st.none()),
        suspended=draw(st.booleans()) or state == states.SUSPENDED,
        is_closed=draw(st.booleans()) or states.is_terminal(state),
    )


@given(condition=conditions(), instance=instances())
def test_never_succeeds_on_a_state_or_status_not_asked_for(
    condition: WaitCondition, instance: BpmInstance
) -> None:
    verdict = condition.judge(instance)
    if verdict.outcome is not DONE:
        return
    assert instance.state in states.STATES
    if condition.states:
        assert instance.state in condition.states or (instance.suspended and "Suspended" in condition.states)
    elif instance.is_closed:
        assert instance.state == states.COMPLETED
    status = (instance.bp_status or "").strip()
    if condition.bp_statuses:
        assert status in condition.bp_statuses
    if condition.failed_bp_statuses and instance.is_closed:
        assert status
    assert instance.state not in condition.failed_states
    assert status not in condition.failed_bp_statuses


@given(condition=conditions(), instance=instances())
def test_a_closed_instance_always_ends_the_wait(condition: WaitCondition, instance: BpmInstance) -> None:
    if instance.is_closed:
        assert condition.judge(instance).outcome is not WAITING


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"states": ["Complete"]}, "states must be one of .*'Completed OK'.* not 'Complete'"),
        ({"failed_states": ["nope"]}, "failed_states must be one of .* not 'nope'"),
        ({"states": "Completed OK"}, "states must be a list of texts, not 'Completed OK'"),
        ({"failed_states": "Broken"}, "failed_states must be a list of texts, not 'Broken'"),
        ({"failed_states": []}, "failed_states must not be empty"),
        ({"bp_statuses": [" "]}, "bp_statuses"),
        (
            {"bp_statuses": ["None"]},
            "each of bp_statuses must not be 'None': a template renders this",
        ),
        (
            {"failed_bp_statuses": ["Rejected", "undefined"]},
            "each of failed_bp_statuses must not be 'undefined'",
        ),
        ({"states": ["null"]}, "each of states must not be 'null'"),
        ({"bp_statuses": ["Appr\0oved"]}, "each of bp_statuses must be a text without NUL"),
        ({"bp_statuses": ["Appr\ufffdoved"]}, "each of bp_statuses must not contain U.FFFD"),
        ({"bp_statuses": ["A "], "failed_bp_statuses": ["A"]}, "success and failure at once"),
        ({"bp_statuses": [3.5]}, "bp_statuses"),
        ({"failed_bp_statuses": "Rejected"}, "failed_bp_statuses must be a list"),
        ({"states": ["Broken"], "failed_states": ["Broken"]}, "success and failure at once"),
        ({"bp_statuses": ["A"], "failed_bp_statuses": ["A"]}, "success and failure at once"),
        ({"states": []}, "states must not be empty"),
        ({"bp_statuses": []}, "bp_statuses must not be empty"),
        ({"bp_statuses": ""}, "bp_statuses must be a list"),
        ({"failed_bp_statuses": ()}, "failed_bp_statuses must not be empty"),
        ({"bp_statuses": iter(["Approved"])}, "bp_statuses must be a list"),
        ({"states": map(str.strip, ["Broken"])}, "states must be a list"),
        ({"states": {"Broken": 1}}, "states must be a list"),
        ({"on_suspended": "ignore"}, "on_suspended must be one of 'wait', 'fail', not 'ignore'"),
    ],
)
def test_bad_conditions_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        WaitCondition.of(**arguments)


@pytest.mark.parametrize("argument", ["states", "bp_statuses", "failed_states", "failed_bp_statuses"])
def test_a_condition_made_from_sets_names_the_bad_argument(argument: str) -> None:
    blank: dict[str, Any] = {argument: frozenset({" "})}
    with pytest.raises(ValueError, match=f"^(each of )?{argument} must "):
        WaitCondition(**blank)


def test_none_is_refused() -> None:
    nothing = dict.fromkeys(("states", "bp_statuses", "failed_states", "failed_bp_statuses"), NOT_GIVEN)
    assert given_condition_arguments(**nothing) == {}
    assert given_condition_arguments(**{**nothing, "states": ["{{ a }}"]}) == {"states": ["{{ a }}"]}
    for argument in nothing:
        with pytest.raises(ValueError, match=f"{argument} is None; omit it instead"):
            given_condition_arguments(**{**nothing, argument: None})
        with pytest.raises(ValueError, match=f"^{argument} must be a list of texts, not 'one'"):
            given_condition_arguments(**{**nothing, argument: "one"})
    for argument in ("states", "failed_states"):
        with pytest.raises(ValueError, match=f"^{argument} must be one of .* not 'Finished'"):
            given_condition_arguments(**{**nothing, argument: ["{{ a }}", "Finished"]})


def test_not_given_survives_copying() -> None:
    assert copy.deepcopy(NOT_GIVEN) is pickle.loads(pickle.dumps(NOT_GIVEN)) is NOT_GIVEN


def test_arguments_that_are_known_only_when_the_task_runs_are_kept() -> None:
    later = object()
    given = {"states": later, "bp_statuses": ["Approved"], "failed_states": ["Broken"]}
    assert given_condition_arguments(**given) == given
