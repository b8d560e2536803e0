"""The doctor tells the truth about every switch of the emulator, in every position, and changes nothing unasked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

import pytest

from airflow_provider_astrobpm.doctor.points import ABOUT, READ_ONLY
from airflow_provider_astrobpm.emulator.remote import EmulatorControl
from airflow_provider_astrobpm.emulator.switches import Switches
from tests.conftest import positions
from tests.doctor.conftest import PROCESS, WRITES, Examine

Told = dict[Any, Any]


@dataclass(frozen=True)
class Row:
    """Which point reports a switch, and what it must say in each position.

    :param reading: without ``--start``; ``None`` stands for "could not be told", and no table for no such point.
    :param starting: with it.
    """

    point: str
    reading: Told | None
    starting: Told


def both(point: str, values: Told) -> Row:
    return Row(point, values, values)


def started(point: str, values: Told) -> Row:
    return Row(point, None, values)


def seconds(lag: float) -> Any:
    """The look at which something shows comes some seconds after it does."""
    return pytest.approx(lag + 4, abs=4.5)


ANSWER_TWICE = {"refuse": "refused", "accept": "accepted"}
TRUTH: dict[str, list[Row]] = {
    "get_by_id": [
        both(
            "get_by_id",
            {"absent": "absent", "not_allowed": "not allowed", "action": "action", "row": "row"},
        )
    ],
    "missing_by_id": [],  # "there is none" is the same to everybody, however it is said
    "get_variables": [both("get_variables", {"absent": "absent", "map": "map"})],
    "several_states": [
        both(
            "states_with_commas",
            # "repeated" takes the comma for a part of a name, and no state is called so
            {"refuse": "refused", "comma": "honoured", "repeated": "refused", "first": "first only"},
        ),
        both(
            "states_repeated",
            {"refuse": "refused", "comma": "first only", "repeated": "honoured", "first": "first only"},
        ),
    ],
    "unknown_state": [both("unknown_state", {"refuse": "refused", "empty": "empty"})],
    "row_cap": [both("row_cap", {None: "none seen", 1: 1, 37: 37, 100: 100})],
    "row_order": [
        both("own_order", {"newest": "newest first", "oldest": "oldest first", "shuffled": "other"})
    ],
    "fields_honoured": [both("fields", {True: "honoured", False: "ignored"})],
    "order_honoured": [both("order", {True: "honoured", False: "ignored"})],
    "unknown_field": [both("unknown_field", {"ignore": "ignored", "refuse": "refused"})],
    "business_keys_in_rows": [
        Row("business_keys", {True: "carried", False: None}, {True: "carried", False: "not carried"})
    ],
    "key_form": [
        started(
            "long_key",
            {
                "as_sent": "as sent",
                "cut_50": "cut at 50",
                "cut_20": "cut at 20",
                "upper": "upper case",
                "padded": "padded",
                "prefixed": "prefixed",
            },
        )
    ],
    "see_others": [Row("others", {True: "seen", False: None}, {True: "seen", False: "none seen"})],
    "keep_closed": [Row("ended", {True: "kept", False: None}, {True: "kept", False: "gone"})],
    "start_lag": [started("start_lag", {0: seconds(0), 30: seconds(30)})],
    "action_lag": [started("action_lag", {0: seconds(0), 30: seconds(30)})],
    "terminate_state": [
        started("terminate", {"Terminated": "Terminated", "User Terminated": "User Terminated"})
    ],
    "suspend_state": [
        started("suspend", {"unchanged": "flag", "Suspended": "flag and state", "state_only": "state"})
    ],
    "closed_flag": [started("closed_flag", {"on_close": "true", "never": "false"})],
    "acting_twice": [
        started("suspend_twice", ANSWER_TWICE),
        started("resume_twice", ANSWER_TWICE),
        started("terminate_twice", ANSWER_TWICE),
    ],
    "acting_on_closed": [started("suspend_ended", ANSWER_TWICE), started("variables_of_ended", ANSWER_TWICE)],
    "definition_variables": [],  # no definition is read by its id
    "deleting_open": [],  # deleting cannot be undone, and the API reference keeps it for administrators: never probed
    "duplicate_business_key": [started("duplicate_key", {"accept": "started", "refuse": "refused"})],
    "refused_token_start": [started("refused_token_start", {"nothing": "not started", "started": "started"})],
    "unknown_variables_at_start": [
        started("unknown_variable_at_start", {"ignore": "ignored", "refuse": "refused"})
    ],
    "refusal_status": [both("refusal", {status: f"HTTP {status}" for status in (400, 404, 500, 200)})],
    "bad_token": [
        both(
            "bad_token",
            {
                "401": "HTTP 401, resCode 405230602",
                "401_html": "HTTP 401, text/html",
                "400_602": "HTTP 400, resCode 405230602",
                "403_603": "HTTP 403, resCode 405230603",
                "200_602": "HTTP 200, resCode 405230602",
                "403": "HTTP 403, resCode 405230070",
                "403_html": "HTTP 403, text/html",
                "500_602": "HTTP 500, resCode 405230602",
            },
        )
    ],
    "token_body": [both("token_request", {"form": "form", "json": "json", "both": "both"})],
    "expires_in": [
        both(
            "token_lifetime",
            {
                "number": 600,
                "text": 600,
                "absent": "not said",
                "zero": "not said",
                "negative": "not said",
                "words": "not said",
            },
        )
    ],
    "concurrent_tokens": [both("older_tokens", {True: "kept", False: "replaced"})],
    "csrf_required": [started("csrf", {True: "needed", False: "not needed"})],
    "content_type_required": [both("content_type", {True: "needed", False: "not needed"})],
    "plus_is_blank": [both("plus", {True: "yes", False: "no"})],
    "success_message": [both("success_message", {"Success": "Success", "成功": "成功"})],
    # How an empty list, a code and the beginning of an answer are written makes no difference to anybody.
    "empty_list": [],
    "numeric_codes": [],
    "byte_order_mark": [],
    "utc_offset": [Row("timezone", {0: None, 8: None}, {0: 0, 8: 8})],
    "clock_skew": [
        started("start_time", {0: "documented", -15: "implausible", 15: "implausible", -100: "implausible"})
    ],
    "start_time_form": [
        started(
            "start_time",
            {
                "documented": "documented",
                "zero": "implausible",
                "epoch": "implausible",
                "dash": "unreadable",
                "slashes": "unreadable",
                "millis": "unreadable",
                "leading_blank": "unreadable",
            },
        )
    ],
}
MANY = {"row_cap": 100, "row_order": 20}  # how many instances more it takes to show a switch
NO_SWITCH = {  # points that no switch of the emulator changes, and what they say of it
    "connection": "http",
    "clock": pytest.approx(0, abs=2),
    "definitions": "yes",
    "instances": "all",
    "start": "started",
    "unknown_variable": "ignored",
    "resume": "Waiting for user interaction",
}


def test_every_switch_has_a_row_and_every_row_says_something_of_every_position() -> None:
    assert set(TRUTH) == set(get_type_hints(Switches))
    for switch, position in positions():
        for row in TRUTH[switch]:
            assert position in row.starting
            assert row.reading is None or position in row.reading


def test_every_point_is_in_the_table() -> None:
    assert {row.point for rows in TRUTH.values() for row in rows} | set(NO_SWITCH) == set(ABOUT)


@pytest.mark.parametrize("process", [None, PROCESS], ids=["read-only", "start"])
@pytest.mark.parametrize(("switch", "position"), positions())
def test_the_truth_in_every_position(
    switch: str,
    position: Any,
    process: str | None,
    emulator: EmulatorControl,
    populate: Callable[..., None],
    own_instances: Callable[[], list[dict[str, Any]]],
    run: Examine,
) -> None:
    populate(more=MANY.get(switch, 0))
    emulator.switch(**{switch: position})
    before = emulator.instances()
    report = run(process)
    values = {name: point.value for name, point in report.points.items()}

    assert set(values) == set(READ_ONLY if process is None else ABOUT)
    switched = {row.point for row in TRUTH[switch]}
    for name, rows in TRUTH.items():
        for row in rows:
            if name != switch and row.point in switched:
                continue  # two switches change what this point tells
            table = row.reading if process is None else row.starting
            if table is None:
                assert row.point not in values
            elif name == switch:
                assert values[row.point] == table[position], report.points[row.point]
            else:  # another switch may hide the truth, but never make it a lie
                truth = table[getattr(Switches(), name)]
                assert values[row.point] in (truth, None), report.points[row.point]
    for name, truth in NO_SWITCH.items():
        assert name not in values or values[name] == truth

    assert report.exit_code == 0
    assert emulator.instances()[: len(before)] == before
    assert report.not_ended == []
    assert all(instance["closed"] for instance in own_instances())
    counts = emulator.counts()
    assert report.requests == sum(counts.values())
    if process is None:
        assert own_instances() == []
        assert all(counts[kind] == 0 for kind in WRITES)
        # A refusal that looks like a failure of the server is asked for once more.
        assert report.requests <= (34 if position == 500 else 31)


def test_in_the_first_position_of_every_switch_every_point_is_told(
    populate: Callable[..., None], run: Examine
) -> None:
    populate()
    assert [name for name, point in run(PROCESS).points.items() if point.value is None] == []
    report = run()
    assert [name for name, point in report.points.items() if point.value is None] == ["timezone"]
    assert report.requests == 29


def test_where_no_instance_shows_nothing_is_guessed(emulator: EmulatorControl, run: Examine) -> None:
    untold = [name for name, point in run().points.items() if point.value is None]
    needing_two = ["order", "own_order", "row_cap"]
    needing_one = ["fields", "business_keys", "others", "ended", "get_by_id", "get_variables", "timezone"]
    assert sorted(untold) == sorted(needing_one + needing_two)
    report = run(PROCESS)
    assert [name for name, point in report.points.items() if point.value is None] == needing_two
    assert report.points["others"].value == "none seen"
    emulator.switch(several_states="repeated", unknown_state="empty", get_by_id="row")
    report = run(PROCESS)
    assert report.points["states_repeated"].value == "honoured"
    assert report.points["get_by_id"].value == "row"
