"""Findings about the business key and the start time of a new instance, without a server."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.client.key_form import KeyForm, KeyForms
from airflow_provider_astrobpm.doctor import key_findings, timestamp_findings
from airflow_provider_astrobpm.doctor.observation import Observation
from airflow_provider_astrobpm.doctor.start_markers import make_key, matches, resembles, title_for
from airflow_provider_astrobpm.starting.business_keys import MAX_KEY_LENGTH, TaskIdentity

KEY, OTHER = make_key("0123456789ab"), make_key("ba9876543210")
SEEN = Observation("asked -> answered")
NOW = datetime(2026, 1, 31, 20, 0, 0, tzinfo=timezone.utc).timestamp()


def row(**columns: Any) -> dict[str, Any]:
    return {"id": "002N1", "name": "P", "state": "Running", **columns}


def test_generated_key_is_as_long_and_mixed_as_a_task_key() -> None:
    of_task = TaskIdentity("Orders.daily_2", "scheduled__2026-11-24T00:00:00+00:00", "Approve.it", 815).key(
        1, 12
    )
    assert len(KEY) == MAX_KEY_LENGTH >= len(of_task)
    for kind in ("[a-z]", "[A-Z]", "[0-9]", "[.]", "_", "-"):
        assert re.search(kind, KEY)
        assert re.search(kind, of_task)
    assert KEY.startswith("airflow-doctor-0123456789ab.")
    assert re.fullmatch(r".*-[a-z2-7]{16}-1", KEY)


@pytest.mark.parametrize(
    ("shown", "change"),
    [
        (KEY, "as sent"),
        (KEY[:50], "cut at 50"),
        (KEY[:63], "cut at 63"),
        (KEY.upper(), "upper case"),
        (KEY.ljust(80), "padded"),
        (f" {KEY}", "padded"),
        (f"ASTRO:{KEY}", "prefixed"),
        (KEY.lower(), "lower case"),
        (KEY.upper()[:50], "upper case and cut at 50"),
        (f"ASTRO:{KEY}"[:50], "prefixed and cut at 50"),
        (KEY[:50].ljust(80), "cut at 50 and padded"),
        (OTHER[::-1], "changed"),
    ],
)
def test_change_of_a_returned_key(shown: str, change: str) -> None:
    assert key_findings.describe_change(KEY, shown) == change
    for in_row in (shown, "", "002N1", None):
        answer = row(businessKey=shown)
        of_row = None if in_row is None else row(businessKey=in_row)
        finding = key_findings.long_key_finding(KEY, answer, of_row, SEEN)
        is_shown = change != "as sent" or in_row == shown
        assert (finding.value, finding.fine) == ((change, change == "as sent") if is_shown else (None, None))
        assert finding.fine is not True or in_row == shown == KEY


def test_row_counts_if_it_differs_from_the_answer() -> None:
    finding = key_findings.long_key_finding(KEY, row(businessKey=KEY), row(businessKey=KEY[:50]), SEEN)
    assert (finding.value, finding.fine) == ("cut at 50", False)
    assert "as sent in the start's answer, cut at 50 in the row. The two differ" in finding.sentence
    assert "AmbiguousStartError" in finding.sentence
    finding = key_findings.long_key_finding(KEY, row(businessKey=KEY[:50]), row(businessKey=KEY), SEEN)
    assert (finding.value, finding.fine) == ("as sent", False)
    assert key_findings.long_key_finding(KEY, row(), row(businessKey=KEY), SEEN).fine is True
    assert key_findings.long_key_finding(KEY, row(), row(), SEEN).value is None


@given(
    length=st.integers(0, 90),
    upper=st.booleans(),
    padding=st.integers(0, 20),
    prefix=st.sampled_from(["", "ASTRO:"]),
)
def test_key_is_recognised_in_any_form_and_never_confused_with_another(
    length: int, upper: bool, padding: int, prefix: str
) -> None:
    shown = f"{prefix}{KEY}"[:length] + " " * padding
    shown = shown.upper() if upper else shown
    assert resembles(shown, KEY) is (length >= len(prefix) + 20)
    assert not resembles(shown, OTHER)


def test_instance_is_recognised_by_its_title_too() -> None:
    assert matches(row(businessKey="002N1", title=title_for(KEY)), KEY)
    assert matches(row(businessKey=KEY[:20]), KEY)
    assert not matches(row(businessKey="", title=title_for(OTHER)), KEY)
    assert not matches(row(), KEY)


@pytest.mark.parametrize("key", ["", "airflow-doctor-", KEY[:19]])
def test_short_or_empty_key_matches_nothing(key: str) -> None:
    for each in (
        row(businessKey=KEY, title=title_for(KEY)),
        row(businessKey="x" * 64, title="Approve ()"),
        row(),
    ):
        assert not matches(each, key)


@pytest.mark.parametrize(
    ("stamp", "value"),
    [
        ("2026-01-31 20:00:01", "documented"),
        ("2026-02-01 10:00:00", "documented"),  # 14 hours ahead
        ("2026-01-31 06:00:00", "documented"),  # 14 hours behind
        ("2026-02-01 10:00:01", "implausible"),
        ("2026-01-31 05:59:59", "implausible"),
        ("0001-01-01 00:00:00", "implausible"),
        ("1970-01-01 08:00:00", "implausible"),
        ("9999-12-31 23:59:59", "implausible"),
        ("-", "unreadable"),
        ("2026/01/31 20:00:01", "unreadable"),
        (" 2026-01-31 20:00:01", "unreadable"),
        ("2026-01-31 20:00:01 ", "unreadable"),
        ("2026-01-31T20:00:01", "unreadable"),
        ("2026-1-31 20:00:01", "unreadable"),
        ("2026-02-30 20:00:01", "unreadable"),
        ("1769889601000", "unreadable"),
        ("\u0662026-01-31 20:00:01", "unreadable"),
    ],
)
def test_start_time_is_documented_implausible_or_unreadable(stamp: str, value: str) -> None:
    good = "2026-01-31 20:00:00"
    assert timestamp_findings.assess(stamp, NOW) == value
    for answer, of_row in ((stamp, stamp), (stamp, good), (good, stamp), ("", stamp)):
        finding = timestamp_findings.start_time_finding(
            row(startTime=answer), row(startTime=of_row), NOW, SEEN
        )
        assert (finding.value, finding.fine) == (value, value == "documented")
        assert finding.fine or repr(stamp) in finding.sentence
        assert finding.fine or "AmbiguousStartError instead of being resumed" in finding.sentence


def test_start_time_is_unknown_without_a_row() -> None:
    good = row(startTime="2026-01-31 20:00:00")
    for in_row in (None, row(), row(startTime="")):
        finding = timestamp_findings.start_time_finding(good, in_row, NOW, SEEN)
        assert (finding.value, finding.fine) == (None, None)
    assert timestamp_findings.start_time_finding(row(startTime="-"), None, NOW, SEEN).value == "unreadable"
    assert timestamp_findings.start_time_finding(row(), row(), NOW, SEEN).value == "absent"
    assert timestamp_findings.start_time_finding(row(), None, NOW, SEEN).value is None


@pytest.mark.parametrize(
    ("shown", "meaning"),
    [
        (KEY.upper(), "This provider recognises its generated keys in this form"),
        (f"ASTRO:{KEY}", "This provider recognises its generated keys in this form"),
        (KEY[:16], "fails with AmbiguousStartError"),
        (KEY[:15], "may start a second instance"),
        (f"ASTRO:{KEY}"[:50], "fails with AmbiguousStartError"),
        (OTHER[::-1], "may start a second instance"),
    ],
)
def test_consequence_of_a_changed_key(shown: str, meaning: str) -> None:
    """The consequence matches the behaviour of the search for a lost start."""
    finding = key_findings.long_key_finding(KEY, row(), row(businessKey=shown), SEEN)
    assert meaning in finding.sentence
    known = KeyForms([KEY], KeyForm.of(KEY, shown))
    assert KeyForms([KEY]).resembles(shown) is ("second instance" not in meaning)
    assert known.sent(shown) == KEY or "recognises its generated keys" not in meaning
