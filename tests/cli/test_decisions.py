"""Decisions of the commands that need no request: arguments, filters, plans, summaries and exit codes."""

from __future__ import annotations

import argparse
import json
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_astrobpm.batches.bulk_change import BulkChange
from airflow_provider_astrobpm.cli.change_commands import MAX_LISTED_IDS, ChangeSummary, make_plan
from airflow_provider_astrobpm.cli.exit_codes import MEANINGS, Exit
from airflow_provider_astrobpm.cli.option_values import state_named, variables_from
from airflow_provider_astrobpm.cli.runner import exit_of
from airflow_provider_astrobpm.cli.selection import filter_from
from airflow_provider_astrobpm.client.ages import AgeLimits
from airflow_provider_astrobpm.client.changes import ChangeName
from airflow_provider_astrobpm.client.errors import (
    AmbiguousStartError,
    AuthenticationError,
    InstanceNotFoundError,
    RefusedError,
    SettingsError,
    SeveralInstancesError,
)
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.listing import ALL_INSTANCES, ListingFilter
from airflow_provider_astrobpm.client.states import STATES

UTC = timezone.utc
NOW = datetime(2026, 3, 10, 12, 0, 0, tzinfo=UTC).timestamp()
WAITING = "Waiting for user interaction"


def instance(one: str = "a", **fields: Any) -> BpmInstance:
    return BpmInstance(**{"id": one, "name": "Approval", "state": "Running", **fields})


def arguments(**given: Any) -> argparse.Namespace:
    nothing = dict.fromkeys(("state", "bpm_name", "business_key", "older_than", "younger_than"))
    return argparse.Namespace(**{**nothing, **given})


def test_filter_from_arguments() -> None:
    assert filter_from(arguments(), None, "c") == ALL_INSTANCES
    assert filter_from(
        arguments(state=["broken"], bpm_name="A", business_key="k"), None, "c"
    ) == ListingFilter(states=frozenset({"Broken"}), bpm_name="A", business_key="k")
    assert filter_from(arguments(older_than="2h", younger_than="1d"), UTC, "c") == ListingFilter(
        ages=AgeLimits(UTC, 7200, 86_400)
    )


@pytest.mark.parametrize(
    ("given", "zone", "message"),
    [
        ({"older_than": "2h"}, None, "on connection 'c'.*extra 'timezone'"),
        ({"younger_than": "x"}, UTC, "--younger-than must be an age"),
        (
            {"older_than": "2h", "younger_than": "1h"},
            UTC,
            "both older than 7200 s and younger than 3600 s",
        ),
        ({"bpm_name": " "}, None, "--bpm-name must be a text"),
        ({"business_key": ""}, None, "--business-key must be a text"),
        ({"state": ["Closed"]}, None, "--state must be a state, not 'Closed'"),
    ],
)
def test_invalid_filter_arguments_are_rejected(given: dict[str, Any], zone: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        filter_from(arguments(**given), zone, "c")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x=3", 3),
        ("x=3.5", 3.5),
        ("x=true", True),
        ("x=null", None),
        ('x=["a", 1]', ["a", 1]),
        ('x={"a": {"b": 1}}', {"a": {"b": 1}}),
        ('x="3"', "3"),
        ("x=CN", "CN"),
        ("x=", ""),
        ("x=a=b", "a=b"),
        ("x=007", "007"),
        ("x=NaN", "NaN"),
        ("x=-Infinity", "-Infinity"),
        ("x={", "{"),
        ("x=[" * 1 + "[" * 100_000, "[" * 100_001),
    ],
    ids=lambda value: str(value)[:20],
)
def test_value_of_a_variable_is_json_or_text(text: str, value: object) -> None:
    assert variables_from([text], None, None) == {"x": value}


def test_variables_from_a_file_and_options(tmp_path: Path) -> None:
    file = tmp_path / "variables.json"
    file.write_text(json.dumps({"country": "DE", "risk": {"class": 2}}), encoding="utf-8")
    assert variables_from(None, None, str(file)) == {"country": "DE", "risk": {"class": 2}}
    assert variables_from(["country=CN"], None, str(file)) == {"country": "CN", "risk": {"class": 2}}
    assert variables_from(None, None, None) == {}


def test_precedence_of_variables(tmp_path: Path) -> None:
    file = tmp_path / "variables.json"
    file.write_text('{"a": "file", "b": "file", "c": "file"}', encoding="utf-8")
    assert variables_from(["a=one"], '{"a": "json", "b": ["json", null, 1.5, true]}', str(file)) == {
        "a": "one",
        "b": ["json", None, 1.5, True],
        "c": "file",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("country=secret", "--variables is not JSON; write it such as"),
        ("{country: secret}", "--variables is not JSON; write it such as"),
        ('{"x": NaN}', "--variables is not JSON"),
        ('["secret"]', "--variables must be a JSON object of variables and their values; write it"),
        ('{" ": "secret"}', "each name in variables"),
    ],
)
def test_invalid_json_variables_are_rejected_without_quoting_them(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        variables_from(None, text, None)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "state"),
    [
        ("Waiting for user interaction", WAITING),
        ("waiting for USER interaction", WAITING),
        (" waiting  for user ", WAITING),
        ("waiting for page", "Waiting for page event"),
        ("RUNNING", "Running"),
        ("completed", "Completed OK"),
        ("completedokwait", "CompletedOkWait"),
        ("terminated", "Terminated"),
        ("user", "User Terminated"),
    ],
)
def test_state_names_may_be_abbreviated(given: str, state: str) -> None:
    assert state_named(given, "--state") == state


@pytest.mark.parametrize("state", STATES)
def test_state_names_ignore_case(state: str) -> None:
    assert {state_named(each, "--state") for each in (state, state.lower(), state.upper())} == {state}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "waiting",
            "'waiting' is ambiguous: it may be 'Waiting for user interaction' or 'Waiting for page event'. Give more",
        ),
        ("runing", "must be a state, not 'runing'. Did you mean 'Running'? The states are "),
        ("Complete", "Did you mean 'Completed OK'?"),
        ("susspended", "Did you mean 'Suspended'?"),
        ("waiting for usr interaction", "Did you mean 'Waiting for user interaction'?"),
        ("xyz", "must be a state, not 'xyz'. The states are 'Waiting for user interaction', "),
        (" ", "must be a state, not ' '. The states are "),
    ],
)
def test_unknown_or_ambiguous_state_is_rejected(given: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        state_named(given, "--state")


@pytest.mark.parametrize("text", ["secret", "=secret", " =secret"])
def test_malformed_variable_is_rejected_without_quoting_it(text: str) -> None:
    with pytest.raises(ValueError, match="NAME=VALUE") as caught:
        variables_from([text], None, None)
    assert "secret" not in str(caught.value)


def test_variable_given_twice_is_rejected() -> None:
    with pytest.raises(ValueError, match="'x' is given twice"):
        variables_from(["x=1", "x=1"], None, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "must be a JSON object"),
        ('{"x": NaN}', "is not JSON"),
        ('{" ": 1}', "each name"),
    ],
)
def test_invalid_variables_file_is_rejected(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "variables.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        variables_from(None, None, str(file))
    with pytest.raises(ValueError, match="cannot be read"):
        variables_from(None, None, str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("action", "changed", "done_already", "ended"),
    [
        ("suspend", "run", "held", "good broken gone"),
        ("resume", "held", "run", "good broken gone"),
        ("terminate", "run held", "gone", "good broken"),
        ("set", "run held good broken gone", "", ""),
    ],
)
def test_plan_sorts_instances_by_what_the_action_changes(
    action: ChangeName, changed: str, done_already: str, ended: str
) -> None:
    plan = make_plan(
        [
            instance("run"),
            instance("held", suspended=True),
            instance("good", state="Completed OK", is_closed=True),
            instance("broken", state="Broken", is_closed=True),
            instance("gone", state="Terminated", is_closed=True),
        ],
        action,
    )
    found = [" ".join(one.id for one in each) for each in (plan.to_change, plan.done_already, plan.ended)]
    assert found == [changed, done_already, ended]


def test_messages_of_a_plan() -> None:
    gone, good = (
        instance(state="Terminated", is_closed=True),
        instance("b", state="Completed OK", is_closed=True),
    )
    plan = make_plan([instance("r"), gone, good], "terminate")
    assert plan.count == "Terminate 1 instance"
    assert plan.skipped == "1 is terminated already, 1 has ended already"
    assert plan.dry_run(()) == "Dry run, nothing was changed. Without --dry-run: Terminate 1 instance."
    both = make_plan([instance(), instance("b")], "set")
    assert both.dry_run(["country", "risk"]).endswith(
        "Set the variables of 2 instances to new values of 'country', 'risk'."
    )
    assert make_plan([], "resume").skipped == ""
    assert make_plan([gone, gone], "terminate").skipped == "2 are terminated already"
    assert make_plan([instance(), instance()], "set").count == "Set the variables of 2 instances"


def summary_of(total: int, *, interrupted: bool = False, **change: Any) -> ChangeSummary:
    plan = make_plan([instance(f"i{number}") for number in range(total)], "terminate")
    return ChangeSummary(plan, BulkChange("terminate", **change), interrupted=interrupted)


@pytest.mark.parametrize(
    ("ended", "text", "code"),
    [
        (summary_of(2, done=["i0", "i1"]), "Terminated 2 of 2.", Exit.OK),
        (summary_of(2, done=["i0"], ended=["i1"]), "Terminated 1 of 2, 1 had ended already.", Exit.OK),
        (
            summary_of(2, done=["i0"], left_alone=["i1"]),
            "Left alone, because their tasks have changed meanwhile: 1 instance.\nTerminated 1 of 2, 1 left alone.",
            Exit.OK,
        ),
        (summary_of(2, done=["i0"], failed={"i1": "no"}), "Terminated 1 of 2, 1 failed.", Exit.FAILED),
        (
            summary_of(2, failed={"i0": "no", "i1": "accepted"}, in_doubt={"i1"}),
            "Terminated 0 of 2, 1 failed, 1 unconfirmed.",
            Exit.FAILED,
        ),
        (
            summary_of(2, done=["i0"], not_tried=["i1"], stopped_by=AuthenticationError("it was refused")),
            "Terminated 1 of 2, 1 not tried.\nStopped: it was refused. Check",
            Exit.FAILED,
        ),
        (
            summary_of(3, interrupted=True, done=["i0"], not_tried=["i1", "i2"]),
            "Interrupted. Terminated 1 of 3, 2 not tried.\nNot tried: i1, i2. Run the same command again to finish.",
            Exit.INTERRUPTED,
        ),
        (
            summary_of(2, interrupted=True, done=["i0"]),
            "Interrupted. Terminated 1 of 2, 1 unknown.\nUnknown: i1. Run the same command again to finish.",
            Exit.INTERRUPTED,
        ),
    ],
)
def test_text_and_exit_code_of_a_summary(ended: ChangeSummary, text: str, code: Exit) -> None:
    assert ended.text.startswith(text)
    assert ended.exit is code


def test_summary_lists_a_limited_number_of_ids() -> None:
    ids = [f"i{number}" for number in range(MAX_LISTED_IDS + 3)]
    assert f"i{MAX_LISTED_IDS - 1} and 3 more." in summary_of(len(ids), not_tried=ids).text


def test_summary_has_one_line_per_failure() -> None:
    assert summary_of(2, failed={"i1": "refused. Check it", "i0": "no"}).failures == [
        "Instance 'i1' of 'Approval': refused. Check it.",
        "Instance 'i0' of 'Approval': no.",
    ]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("host is empty", "c"), Exit.USAGE),
        (AirflowNotFoundException("no such connection"), Exit.USAGE),
        (ValueError("bad"), Exit.USAGE),
        (RefusedError("no"), Exit.FAILED),
        (InstanceNotFoundError("instance 'x'"), Exit.NOT_FOUND),
        (SeveralInstancesError("key 'x'", [instance()]), Exit.NOT_FOUND),
        (AmbiguousStartError("lost", None), Exit.AMBIGUOUS_START),
    ],
)
def test_exit_code_of_an_error(error: Exception, code: Exit) -> None:
    assert exit_of(error) is code


def test_every_exit_code_has_a_meaning() -> None:
    assert set(MEANINGS) == set(Exit)
