"""Compare the started instances with the expected ones, and describe the differences."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_astrobpm.testing.start_assertions import (
    ExpectedInstance,
    instance_line,
    instance_lines,
    matching,
    mismatch_message,
)


def instance(name: str = "Approval", **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "version": "1.0.0",
        "business_key": "k",
        "title": "T",
        "state": "Running",
        "bp_status": "Asked",
        "suspended": False,
        "variables": {"dataset": "a", "rows": 1, "note": None},
        "outcomes": [],
        **fields,
    }


@pytest.mark.parametrize(
    ("fields", "variables", "differences"),
    [
        ({}, {}, []),
        ({"title": "T"}, {"dataset": "a"}, []),
        ({}, {"dataset": "a", "rows": 1}, []),
        ({"title": "U"}, {}, ["title is 'T', not 'U'"]),
        ({}, {"dataset": "b"}, ["variable dataset is 'a', not 'b'"]),
        ({}, {"rows": "1"}, ["variable rows is 1, not '1'"]),
        ({}, {"note": None}, []),
        ({}, {"gone": None}, ["variable gone is missing, not None"]),
        (
            {"title": "U", "version": "2"},
            {"rows": 2},
            ["title is 'T', not 'U'", "version is '1.0.0', not '2'", "variable rows is 1, not 2"],
        ),
    ],
)
def test_differences_are_listed_for_fields_and_variables(
    fields: dict[str, Any], variables: dict[str, Any], differences: list[str]
) -> None:
    expected = ExpectedInstance("Approval", fields, variables)
    assert expected.differences(instance()) == differences
    assert matching(expected, [instance()]) == ([] if differences else [instance()])
    assert matching(expected, [instance("Other")]) == []


@pytest.mark.parametrize(
    ("names", "times", "first_line"),
    [
        (["Approval"], 1, None),
        (["Approval", "Other"], 1, None),
        ([], 0, None),
        (["Approval", "Approval"], 2, None),
        ([], 1, "Expected Approval with title 'T' to be started once, but it was started 0 times."),
        (["Approval"], 0, "Expected Approval with title 'T' to be started 0 times, but it was started once."),
        (
            ["Approval"] * 3,
            2,
            "Expected Approval with title 'T' to be started 2 times, but it was started 3 times.",
        ),
    ],
)
def test_mismatch_message_compares_the_number_of_matches(
    names: list[str], times: int, first_line: str | None
) -> None:
    started = [instance(name) for name in names]
    problem = mismatch_message(ExpectedInstance("Approval", {"title": "T"}), times, started)
    assert (problem.splitlines()[0] if problem else None) == first_line


def test_mismatch_message_lists_the_started_instances_with_differences() -> None:
    started = [instance(title="U"), instance("Other", title="U")]
    problem = mismatch_message(ExpectedInstance("Approval", {"title": "T"}), 1, started)
    assert problem
    first, second = (instance_line(each) for each in started)
    variables = "    variables {'dataset': 'a', 'rows': 1, 'note': None}"
    assert problem.splitlines()[1:] == [
        "Started instances:",
        f"  {first}",
        variables,
        "    but title is 'U', not 'T'",
        f"  {second}",
        variables,
    ]


def test_mismatch_message_without_started_instances() -> None:
    problem = mismatch_message(ExpectedInstance("Approval", {}, {"dataset": "a"}), 1, [])
    assert problem == (
        "Expected Approval with variable dataset 'a' to be started once, but it was started 0 times.\nStarted instances: none."
    )
    assert instance_lines("Open instances", []) == ["Open instances: none."]


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({}, "'T': Running, business status 'Asked'"),
        ({"suspended": True}, "'T': Running, suspended, business status 'Asked'"),
        ({"outcomes": ["yes", "no"]}, "business status 'Asked', waits for a person: yes, no"),
    ],
)
def test_instance_line_describes_an_instance(fields: dict[str, Any], end: str) -> None:
    line = instance_line(instance(**fields))
    assert line.startswith("Approval 1.0.0, business key 'k', title ")
    assert line.endswith(end)
