"""Switches: their positions, and the errors for invalid ones."""

from __future__ import annotations

import pytest

from airflow_provider_astrobpm.emulator.switches import SwitchError, Switches, describe_switches, parse_switch


def test_changed_keeps_the_other_switches() -> None:
    before = Switches()
    after = before.changed(row_cap=3, action_lag=2, several_states="comma")
    assert (after.row_cap, after.action_lag, after.several_states) == (3, 2.0, "comma")
    assert isinstance(after.action_lag, float)
    assert before.row_cap is None
    assert after.changed(row_cap=None, action_lag=0, several_states="refuse") == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("get_by_id=row", ("get_by_id", "row")),
        ("bad_token=401", ("bad_token", "401")),
        ("refusal_status=200", ("refusal_status", 200)),
        ("row_cap=37", ("row_cap", 37)),
        ("row_cap=none", ("row_cap", None)),
        ("action_lag=0.5", ("action_lag", 0.5)),
        ("utc_offset=-3", ("utc_offset", -3.0)),
        ("clock_skew=-15", ("clock_skew", -15.0)),
        ("csrf_required=true", ("csrf_required", True)),
        ("keep_closed=False", ("keep_closed", False)),
        ("terminate_state=User Terminated", ("terminate_state", "User Terminated")),
    ],
)
def test_parse_switch_converts_the_position(text: str, expected: tuple[str, object]) -> None:
    assert parse_switch(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("row_cap", "a switch is given as NAME=POSITION, not 'row_cap'"),
        ("rowcap=1", "unknown switch 'rowcap'; known are get_by_id, "),
        (
            "get_by_id=yes",
            "switch get_by_id has no position 'yes'; it has absent | not_allowed | action | row",
        ),
        ("refusal_status=418", "switch refusal_status has no position '418'; it has 400 | 404 | 500 | 200"),
        ("row_cap=0", "switch row_cap has no position 0; it has none | an integer of at least 1"),
        ("row_cap=many", "switch row_cap has no position 'many'"),
        ("action_lag=-1", "switch action_lag has no position -1.0; it has a number of at least 0"),
        ("action_lag=nan", "switch action_lag has no position nan"),
        ("action_lag=none", "switch action_lag has no position 'none'"),
        ("utc_offset=15", "it has a number of at least -14 and at most 14"),
        ("clock_skew=-1e6", "it has a number of at least -100000 and at most 100000"),
        ("csrf_required=1", "switch csrf_required has no position '1'; it has true | false"),
    ],
)
def test_parse_switch_refuses_invalid_text(text: str, message: str) -> None:
    with pytest.raises(SwitchError) as caught:
        parse_switch(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "positions", [{"row_cap": True}, {"csrf_required": 1}, {"refusal_status": "400"}, {"x": 1}]
)
def test_changed_refuses_invalid_values(positions: dict[str, object]) -> None:
    with pytest.raises(SwitchError):
        Switches().changed(**positions)


def test_every_switch_is_described() -> None:
    text = describe_switches()
    for name in Switches().positions():
        assert f"{name} = " in text
    assert "row_cap = none | an integer of at least 1 (default: none)" in text
    assert "csrf_required = true | false (default: false)" in text


@pytest.mark.parametrize(("name", "position"), [("self", 1), ("start_lag", 10**400), ("row_cap", -(10**400))])
def test_odd_names_and_numbers_are_refused(name: str, position: int) -> None:
    with pytest.raises(SwitchError, match=name):
        Switches().changed(**{name: position})
