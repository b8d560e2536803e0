"""Tests of the result of a batch: which launches count as failures, their order, and how many may fail."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.batches.batch_input import AuthorFields
from airflow_provider_astrobpm.batches.batch_results import (
    FAILURES,
    OUTCOMES,
    RESULT_COLUMNS,
    BatchResult,
    LaunchOutcome,
    LaunchResult,
    allowed_failures,
    build_result,
    result_columns,
)
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.waiting.batch_wait import BatchWaitResult

Make = Callable[..., BpmInstance]


@pytest.mark.parametrize(
    ("may_fail", "total", "most"),
    [(0, 10_000, 0), (7, 10, 7), (1, 0, 1), (0.0, 100, 0), (0.01, 99, 0), (0.01, 100, 1), (0.29, 100, 29)],
)
def test_allowed_failures(may_fail: float, total: int, most: int) -> None:
    assert allowed_failures(may_fail, total) == most


@given(st.integers(0, 10_000), st.integers(0, 99))
def test_allowed_failures_take_a_fraction_as_written(total: int, percent: int) -> None:
    assert allowed_failures(percent / 100, total) == percent * total // 100


def test_each_launch_has_one_outcome(make: Make) -> None:
    ids = ["1", "2", None, None, "5", "6"]
    seen = {one: make(one) for one in ("1", "2", "5")}
    end = BatchWaitResult(2, {"2": "it broke"}, ("5",))
    assert sorted(build_result(ids, {3: "no such BPM"}, end, seen)) == [
        LaunchResult(1, "succeeded", None, "1", seen["1"]),
        LaunchResult(2, "failed", "it broke", "2", seen["2"]),
        LaunchResult(3, "refused", "no such BPM"),
        LaunchResult(4, "not_started"),
        LaunchResult(5, "open", None, "5", seen["5"]),
        LaunchResult(6, "succeeded", None, "6"),
    ]


def test_without_a_wait_launches_are_only_started(make: Make) -> None:
    result = build_result(["1", None], {2: "no"}, None, {"1": make("1", state="Broken")})
    assert [(end.number, end.outcome) for end in result] == [(2, "refused"), (1, "started")]
    assert result.numbers("started") == [1]
    assert result.numbers("failed") == []


def ends(**counts: int) -> list[LaunchResult]:
    """Make a number of launches of each outcome, the last outcome first."""
    outcomes: list[LaunchOutcome] = [one for one in reversed(OUTCOMES) for _ in range(counts.get(one, 0))]
    return [
        LaunchResult(number, one, f"reason {number}", f"id-{number}")
        for number, one in enumerate(outcomes, 1)
    ]


def test_failures_come_first_and_launches_keep_their_order() -> None:
    result = BatchResult(ends(**dict.fromkeys(OUTCOMES, 2)))
    assert [end.outcome for end in result] == [one for one in OUTCOMES for _ in range(2)]
    assert [end.number for end in result] == [11, 12, 9, 10, 7, 8, 5, 6, 3, 4, 1, 2]
    assert result.failures == 4
    assert result.counts == dict.fromkeys(OUTCOMES, 2)
    assert next(iter(result.counts)) == "succeeded"


@pytest.mark.parametrize(
    ("may_fail", "fails"), [(0, True), (2, True), (3, False), (4, False), (0.02, True), (0.03, False)]
)
def test_fails_if_more_than_max_failures_failed(may_fail: float, fails: bool) -> None:
    result = BatchResult(ends(succeeded=97, failed=2, refused=1))
    assert (result.failure(may_fail) is not None) is fails


def test_open_and_unstarted_launches_are_no_failures() -> None:
    assert BatchResult(ends(succeeded=1, open=5, not_started=5, started=5)).failure(0) is None


def test_the_error_names_each_reason_once_with_the_first_launches() -> None:
    few = BatchResult(ends(succeeded=8, failed=1, refused=1)).failure(1)
    assert str(few) == (
        "2 of 10 launches failed, and at most 1 may ('max_failures'): launch 10 (instance 'id-10'): reason 10; "
        "launch 9 (instance 'id-9'): reason 9."
    )
    bare = BatchResult([LaunchResult(1, "refused")]).failure(0)
    assert str(bare).endswith("may ('max_failures'): launch 1: .")
    alike = BatchResult(LaunchResult(n, "refused", "no such BPM.") for n in range(1, 10_001)).failure(0.5)
    assert str(alike) == (
        "10000 of 10000 launches failed, and at most 0.5 may ('max_failures'): "
        "launch 1, 2, 3 and 9997 more: no such BPM."
    )
    assert str(BatchResult(ends(failed=100)).failure(0)).endswith(": reason 5; and 95 more reasons.")


def test_describes_the_result_in_one_line() -> None:
    assert str(BatchResult(ends(succeeded=9, refused=1, not_started=2))) == (
        "12 launches: 9 succeeded, 2 not started, 1 refused"
    )
    assert str(BatchResult([])) == "0 launches: none"


def test_a_result_row_has_plain_values(make: Make) -> None:
    zone = timezone(timedelta(hours=8))
    instance = make(
        "7", name="Approval", bp_status="Approved", start_time="2026-01-01 10:00:00", business_key="k"
    )
    row = LaunchResult(3, "succeeded", None, "7", instance).as_dict(url="https://x/7", timezone=zone)
    assert tuple(row) == RESULT_COLUMNS
    expected: dict[str, Any] = {
        "number": 3,
        "id": 3,
        "title": None,
        "outcome": "succeeded",
        "reason": None,
        "business_key": "k",
        "bpm_name": "Approval",
        "instance_id": "7",
        "state": instance.state,
        "bp_status": "Approved",
        "start_time": "2026-01-01 10:00:00",
        "end_time": None,
        "start_time_utc": "2026-01-01T02:00:00+00:00",
        "end_time_utc": None,
        "url": "https://x/7",
    }
    assert row == expected
    refused = LaunchResult(4, "refused", "no such BPM").as_dict(url=None, timezone=None)
    assert {key: value for key, value in refused.items() if value is not None} == {
        "number": 4,
        "id": 4,
        "outcome": "refused",
        "reason": "no such BPM",
    }


def test_a_launch_whose_instance_was_never_seen_has_its_link() -> None:
    row = LaunchResult(3, "succeeded", None, "7").as_dict(url="https://x/7", timezone=None)
    assert (row["instance_id"], row["state"], row["url"]) == ("7", None, "https://x/7")


def test_the_variables_have_a_column_only_if_they_are_asked_for() -> None:
    assert result_columns(with_variables=False) == RESULT_COLUMNS
    assert result_columns(with_variables=True) == (*RESULT_COLUMNS, "variables")


def test_a_result_row_repeats_the_fields_of_the_author(make: Make) -> None:
    author_fields = [AuthorFields("A17", "Mine", {"n": 1}), AuthorFields(9, None, {})]
    result = build_result(["1", None], {2: "no"}, None, {"1": make("1", title="Theirs")}, author_fields)
    refused, started = (end.as_dict(url=None, timezone=None) for end in result)
    assert tuple(started) == result_columns(with_variables=True)
    assert (started["id"], started["title"], started["variables"]) == ("A17", "Mine", {"n": 1})
    assert (refused["id"], refused["title"], refused["variables"]) == (9, None, {})
    theirs = build_result(["1"], {}, None, {"1": make("1", title="Theirs")}, [AuthorFields(1)])
    assert next(iter(theirs)).as_dict(url=None, timezone=None)["title"] == "Theirs"


def test_the_error_names_the_id_of_the_author() -> None:
    result = build_result(
        ["1", None],
        {2: "no"},
        BatchWaitResult(0, {"1": "it broke"}, ()),
        {},
        [AuthorFields("A17"), AuthorFields(5)],
    )
    assert "launch 1 (id 'A17', instance '1'): it broke; launch 2: no" in str(result.failure(0))


def test_the_failures_are_outcomes() -> None:
    assert set(FAILURES) < set(OUTCOMES)
