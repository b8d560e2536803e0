"""Which switches a report of the doctor sets. The doctor itself checks them in ``tests/doctor/test_likeness.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from airflow_provider_astrobpm.doctor.findings import DESCRIPTIONS
from airflow_provider_astrobpm.emulator.doctor_report import (
    _ALWAYS,
    _SHOWN_BY,
    ReportError,
    likeness,
    read_report,
)
from airflow_provider_astrobpm.emulator.emulator_state import EmulatorSettings
from airflow_provider_astrobpm.emulator.switches import Switches

ALL = Switches().positions()


@pytest.mark.parametrize("switch", _SHOWN_BY)
def test_every_position_of_a_switch_can_be_read_from_a_report(switch: str) -> None:
    findings, table = _SHOWN_BY[switch]
    kind = get_type_hints(Switches)[switch]
    positions = get_args(kind) if get_origin(kind) else (True, False)
    assert sorted(map(str, table.values())) == sorted(map(str, positions))
    assert set(findings) <= set(DESCRIPTIONS)


def test_findings_have_their_names() -> None:
    assert set(_ALWAYS) <= set(DESCRIPTIONS)


@pytest.mark.parametrize(
    ("values", "changed"),
    [
        ({}, {}),
        ({"get_by_id": None}, {}),
        ({"states_with_commas": "honoured", "states_repeated": "first only"}, {"several_states": "comma"}),
        ({"states_with_commas": "none", "states_repeated": "honoured"}, {"several_states": "repeated"}),
        ({"states_with_commas": "first only", "states_repeated": "first only"}, {"several_states": "first"}),
        ({"states_with_commas": "refused"}, {}),
        ({"row_cap": 100}, {"row_cap": 100}),
        ({"row_cap": "none seen"}, {}),
        ({"start_lag": 0.1, "action_lag": 5.5}, {"action_lag": 5.5}),
        ({"token_lifetime": 30}, {}),
        ({"token_lifetime": "not said"}, {"expires_in": "absent"}),
        ({"token_lifetime": "unusable"}, {"expires_in": "words"}),
        ({"timezone": 8.0, "start_time": "documented"}, {"utc_offset": 8.0}),
        ({"start_time": "unreadable"}, {"start_time_form": "dash"}),
        ({"start_time": "unreadable", "order": "honoured"}, {"start_time_form": "slashes"}),
        ({"start_time": "implausible"}, {"start_time_form": "zero"}),
        ({"start_time": "implausible", "order": "honoured"}, {"clock_skew": -1000.0}),
        ({"suspend_twice": "accepted", "terminate_twice": "accepted"}, {"acting_twice": "accept"}),
        (
            {"suspend_twice": "accepted", "terminate_twice": "refused", "ended": "gone"},
            {"acting_twice": "accept", "keep_closed": False},
        ),
        ({"suspend_ended": "accepted", "ended": "gone"}, {"keep_closed": False}),
    ],
)
def test_switches_that_a_report_changes(values: dict[str, Any], changed: dict[str, Any]) -> None:
    assert likeness(values).switches.positions() == ALL | changed


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"terminate": "Ended by an administrator"}, "terminate is 'Ended by an administrator'"),
        ({"long_key": "cut at 37"}, "long_key is 'cut at 37'"),
        ({"suspend_twice": "accepted", "resume_twice": "refused"}, "suspend_twice is 'accepted', resume_twice is 'refused'"),
        ({"states_with_commas": "last only", "states_repeated": "last only"}, "states_with_commas is 'last only', states_repeated is 'last only'"),
        ({"suspend": "nothing"}, "suspend is 'nothing'"),
        ({"start_time": "absent"}, "start_time is 'absent'"),
        ({"instances": "refused"}, "instances is 'refused'"),
        ({"clock": -40}, "clock is -40"),
    ],
)  # fmt: skip
def test_what_no_switch_shows_is_said(values: dict[str, Any], sentence: str) -> None:
    like = likeness(values)
    assert like.switches == Switches()
    assert like.unlike == (sentence,)
    assert like.lines()[-1] == f"Unlike the report: {sentence}"


def test_switches_that_the_report_leaves_open_are_listed() -> None:
    like = likeness({"get_by_id": "row", "terminate": "Ended by an administrator", "plus": None})
    assert "plus_is_blank" in like.unspecified
    assert "deleting_open" in like.unspecified
    assert not {"get_by_id", "terminate_state"} & set(like.unspecified)
    assert like.lines()[0] == f"Not in the report, so at the default: {', '.join(like.unspecified)}"


def test_token_lifetime_of_the_report_is_used() -> None:
    assert likeness({"token_lifetime": 30}).applied_to(EmulatorSettings()).token_lifetime == 30
    assert likeness({"token_lifetime": "not said"}).applied_to(EmulatorSettings()).token_lifetime == 600


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        ("no JSON", "is not a report of the doctor; write one with: airflow astro-zero doctor --output json"),
        ("[]", "is not a report of the doctor"),
        ('{"points": [1], "signed_in": true}', "is not a report of the doctor"),
        ('{"points": [], "signed_in": false}', "got no token, so its report says nothing"),
        (b"\xff", "is not a report of the doctor"),
    ],
)
def test_a_file_that_is_no_report_is_refused(text: str | bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ReportError, match=message):
        read_report(path)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("row_cap", "many", "switch row_cap has no position 'many'"),
        ("clock", "late", ""),
        ("start_lag", "long", ""),
        ("token_lifetime", float("inf"), ""),
    ],
)
def test_a_value_that_the_doctor_never_finds_is_refused(name: str, value: object, why: str) -> None:
    with pytest.raises(ReportError, match=f"never finds: {why}"):
        likeness({name: value})


def test_values_of_a_later_version_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    points = [{"name": "get_by_id", "value": ["row"]}, {"name": "new_point", "value": "x"}]
    path.write_text(json.dumps({"signed_in": True, "points": points}))
    assert read_report(path).switches == Switches()
