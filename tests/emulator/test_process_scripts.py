"""Process scripts: parsing them, and the errors for invalid ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_astrobpm.emulator.process_scripts import (
    DEFAULT_SCRIPT,
    End,
    Process,
    ScriptedOutcome,
    ScriptError,
    Step,
    load_script,
    parse_script,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_a_complete_script_is_parsed() -> None:
    text = """
    processes:
      - name: Review
        version: 2.1.0
        label: Review of a thing
        description: A person reviews it.
        variables: {thing: "", result: {score: 0}}
        read_only: [result]
        steps:
          - {name: begin, state: Dispatched, bp_status: New, element: Begin}
          - state: Waiting for user interaction
            bp_step: Inspect
            wait: person
            outcomes:
              done:
              again: {goto: begin, task_outcome: once more}
              stop: {bp_status: Stopped, variables: {result: 1}, end: {state: User Terminated, bp_status: Left}}
              finish: {end: }
          - {state: Running, for: 2.5}
          - end: {bp_status: Reviewed}
    """
    assert parse_script(text, "here") == [
        Process(
            name="Review",
            version="2.1.0",
            label="Review of a thing",
            description="A person reviews it.",
            variables={"thing": "", "result": {"score": 0}},
            read_only=frozenset({"result"}),
            steps=(
                Step("Dispatched", name="begin", bp_status="New", element="Begin"),
                Step(
                    "Waiting for user interaction",
                    bp_step="Inspect",
                    seconds=None,
                    outcomes={
                        "done": ScriptedOutcome("done", "done"),
                        "again": ScriptedOutcome("again", "once more", goto="begin"),
                        "stop": ScriptedOutcome(
                            "stop",
                            "stop",
                            bp_status="Stopped",
                            variables={"result": 1},
                            end=End("User Terminated", "Left"),
                        ),
                        "finish": ScriptedOutcome("finish", "finish", end=End()),
                    },
                ),
                Step("Running", seconds=2.5),
            ),
            end=End("Completed OK", "Reviewed"),
        )
    ]


def test_a_minimal_script_has_defaults() -> None:
    (process,) = parse_script("processes: [{name: Short}]", "here")
    assert process == Process(name="Short", label="Short")
    assert (process.version, process.active, process.end) == ("1.0.0", True, End("Completed OK", None))


def test_the_default_script_has_its_processes() -> None:
    processes = load_script(DEFAULT_SCRIPT)
    assert {(process.name, process.version) for process in processes if not process.active} == {
        ("RetiredProcess", "1.0.0"),
        ("InvoiceCheck", "1.0.0"),
    }
    assert {process.name for process in processes if process.active} == {
        "PublishApproval",
        "NightlyReconciliation",
        "SupplierOnboarding",
        "AlwaysBroken",
        "Instant",
        "InvoiceCheck",
        "IncidentReview",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("processes: [", "here: not YAML: "),
        ("- name: A", "here: must be a mapping, not list"),
        ("", "here: must be a mapping, not nothing"),
        ("processes: []", "here: processes must not be empty"),
        ("processes: {}", "here: processes must be a list, not dict {}"),
        ("process: []", "here: unknown key 'process'; known are processes"),
        ("processes: [A]", "here: process 1: must be a mapping, not str"),
        ("processes: [{version: 1.0.0}]", "here: process 1: name is missing"),
        ("processes: [{name: ' '}]", "here: process 1: name must not be blank"),
        (
            "processes: [{name: A, version: 1.0}]",
            "here: process 1: version must be text (quote it), not float 1.0",
        ),
        (
            "processes: [{name: A, steppes: []}]",
            "here: process 'A' version 1.0.0: unknown key 'steppes'; known are ",
        ),
        (
            "processes: [{name: A, active: 1}]",
            "here: process 'A' version 1.0.0: active must be true or false",
        ),
        (
            "processes: [{name: A, variables: [x]}]",
            "process 'A' version 1.0.0: variables must be a mapping, not list",
        ),
        ("processes: [{name: A, variables: {1: x}}]", "variables must have text as keys, not 1 (quote it)"),
        (
            "processes: [{name: A, read_only: [x]}]",
            "read_only contains 'x', which variables does not declare",
        ),
        ("processes: [{name: A}, {name: A}]", "here: process 'A' version 1.0.0 is defined twice"),
        ("processes: [{name: A}, {name: A, version: 2.0.0}]", "has two active versions, 1.0.0 and 2.0.0"),
    ],
)
def test_an_invalid_process_is_refused(text: str, message: str) -> None:
    with pytest.raises(ScriptError) as caught:
        parse_script(text, "here")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("[x]", "step 1: must be a mapping, not str"),
        ("[{for: 1}]", "step 1: state is missing"),
        ("[{state: running}]", "step 1: unknown state 'running'; known are "),
        ("[{state: Running, four: 1}]", "step 1: unknown key 'four'; known are "),
        ("[{state: Running, for: soon}]", "step 1: for must be a number of seconds, not str 'soon'"),
        ("[{state: Running, for: -1}]", "step 1: for must be 0 or more seconds, not -1"),
        ("[{state: Running, for: .inf}]", "step 1: for must be 0 or more seconds, not inf"),
        ("[{state: Running, wait: dog}]", "step 1: wait must be person, not 'dog'"),
        (
            "[{state: Running, wait: person}]",
            "step 1: a step with wait: person needs outcomes and takes no for",
        ),
        (
            "[{state: Running, wait: person, for: 1, outcomes: {a: }}]",
            "step 1: a step with wait: person needs outcomes and takes no for",
        ),
        ("[{state: Running, outcomes: {a: }}]", "step 1: outcomes need wait: person"),
        ("[{state: Running, wait: person, outcomes: {no: }}]", "outcomes must have text as keys, not False"),
        ("[{end: }, {state: Running}]", "step 1: end must be the last step"),
        ("[{end: {state: Running}}]", "end: state 'Running' is not a final state"),
        ("[{end: {status: Done}}]", "end: unknown key 'status'; known are state, bp_status"),
        ("[{end: {}, for: 1}]", "unknown key 'for'; known are end"),
        (
            "[{state: Running}, {state: Running, wait: person, outcomes: {a: {goto: x}}}]",
            "step 2: outcome 'a': no step is named 'x'; named steps are none",
        ),
        (
            "[{state: Running, name: x, wait: person, outcomes: {a: {goto: x, end: }}}]",
            "step 1: outcome 'a': an outcome has goto or end, not both",
        ),
        ("[{state: New, name: x}, {state: New, name: x}]", "step names must be unique, they are x, x"),
    ],
)
def test_an_invalid_step_is_refused(steps: str, message: str) -> None:
    with pytest.raises(ScriptError) as caught:
        parse_script(f"processes: [{{name: A, steps: {steps}}}]", "here")
    assert str(caught.value).startswith("here: process 'A' version 1.0.0: ")
    assert message in str(caught.value)


def test_an_error_contains_the_file_name(tmp_path: Path) -> None:
    script = tmp_path / "mine.yaml"
    script.write_text("processes: [{name: A, steps: [{state: Lost}]}]")
    with pytest.raises(
        ScriptError, match=r"mine\.yaml: process 'A' version 1.0.0: step 1: unknown state 'Lost'"
    ):
        load_script(script)


@pytest.mark.parametrize(
    "text", ["!!int ''", "!!float ''", "!!bool maybe", "!!timestamp soon", "{? !!int '' : 1}"]
)
def test_a_value_that_is_not_what_its_tag_says_is_refused(text: str) -> None:
    with pytest.raises(ScriptError, match="here: a value is not what its tag says"):
        parse_script(text, "here")


@pytest.mark.parametrize("number", ["1" + "0" * 400, "1" + ":00" * 3000, "-1" + ":00" * 3000])
def test_a_number_that_python_cannot_use_is_refused(number: str) -> None:
    with pytest.raises(ScriptError, match="here: an integer has more than 1,000 bits"):
        parse_script(f"processes: [{{name: A, steps: [{{state: Running, for: {number}}}]}}]", "here")
