"""Listings are filtered, and ordered even if the server does not order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_astrobpm.client import ages, listing
from airflow_provider_astrobpm.client.errors import KeysNotShownError
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.listing import ListingFilter, sort_instances
from airflow_provider_astrobpm.client.operations import Operation

Make = Callable[..., BpmInstance]
NOW = datetime(2026, 11, 28, 12, tzinfo=timezone.utc).timestamp()


def ids(rows: list[BpmInstance]) -> list[str]:
    return [row.id for row in rows]


STAMPS = {
    "a": "2026-11-28 09:00:00",
    "b": None,
    "c": "2026-11-28 11:00:00",
    "d": "0001-01-01 00:00:00",
    "e": "2026/11/28 12:00:00",
    "f": "2026-11-28 10:00:00",
}


@pytest.mark.parametrize(
    ("field", "direction", "expected"),
    [
        ("startTime", "desc", "cfabde"),
        ("startTime", "asc", "afcbde"),
        (None, "desc", "abcdef"),
        ("owner", "desc", "abcdef"),
        ("id", "desc", "fedcba"),
        ("endTime", "desc", "abcdef"),
    ],
)
def test_times_are_sorted_and_rows_without_a_credible_time_come_last(
    field: str | None, direction: Any, expected: str, make: Make
) -> None:
    rows = [make(one, start_time=stamp) for one, stamp in STAMPS.items()]
    assert "".join(ids(sort_instances(rows, field, direction))) == expected


@pytest.mark.parametrize(("direction", "expected"), [("asc", "bca"), ("desc", "cba")])
def test_texts_are_sorted_stably_by_their_characters(direction: Any, expected: str, make: Make) -> None:
    rows = [make("a", title=None), make("b", title="One"), make("c", title="Two")]
    assert "".join(ids(sort_instances(rows, "title", direction))) == expected
    same = [make(one, title="One") for one in "cab"]
    assert ids(sort_instances(same, "title", direction)) == list("cab")


def server(*rows: BpmInstance) -> Callable[[Operation[Any]], Any]:
    return lambda operation: [row for row in rows if row.state == dict(operation.query)["states"]]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, "abc"),
        ({"suspended": True}, "bc"),
        ({"suspended": False}, "a"),
        ({"bpm_name": "Other"}, "c"),
        ({"business_key": "k"}, "b"),
    ],
)
def test_listing_applies_the_filter(wanted: dict[str, Any], expected: str, make: Make, stage: Any) -> None:
    rows = [
        make("a"),
        make("b", suspended=True, business_key="k"),
        make("c", state="Suspended", name="Other"),
    ]
    flow = listing.instances(
        ["Running", "Suspended"], wanted=ListingFilter(**wanted), order_field="id", order_type="asc"
    )
    assert "".join(ids(stage(server(*rows)).run(flow).instances)) == expected


def test_age_filter_leaves_out_instances_without_a_credible_start(make: Make, stage: Any) -> None:
    rows = [make(one, start_time=stamp) for one, stamp in STAMPS.items()]
    limits = ages.limits(90 * 60, None, timezone=timezone.utc, connection="c")
    listed = stage(server(*rows)).run(
        listing.instances(["Running"], wanted=ListingFilter(ages=limits, now=NOW))
    )
    assert ids(listed.instances) == ["f", "a"]
    assert listed.of_unknown_age == 3


@pytest.mark.parametrize("name", [None, "Approval"])
def test_every_state_is_checked_for_business_keys(name: str | None, make: Make, stage: Any) -> None:
    wanted = ListingFilter(business_key="k", bpm_name=name)
    scene = stage(server(make("a")))
    with pytest.raises(KeysNotShownError):
        scene.run(listing.instances(["Running"], wanted=wanted))
    assert len(scene.asked) == len(set(scene.asked)) == 12
    scene = stage(server(make("a"), make("b", state="Completed OK", business_key="other")))
    assert scene.run(listing.instances(["Running"], wanted=wanted)).instances == []
    scene = stage(server())
    assert scene.run(listing.instances(["Running"], wanted=wanted)).instances == []
    assert scene.asked == ["Running"]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7d", 604800), ("1d12h", 129600), (timedelta(hours=1), 3600), (90, 90), (0.5, 0.5)],
)
def test_age_as_text_timedelta_or_seconds(value: Any, seconds: float) -> None:
    assert ages.age_seconds(value, "older_than") == seconds


@pytest.mark.parametrize("value", ["a week", "", -1, True, None, [7]])
def test_invalid_ages_raise(value: Any) -> None:
    with pytest.raises(ValueError, match="older_than must be"):
        ages.age_seconds(value, "older_than")


@pytest.mark.parametrize(
    ("wanted", "row", "matches"),
    [
        (ListingFilter(), {}, True),
        (ListingFilter(states=frozenset({"Running"})), {}, True),
        (ListingFilter(states=frozenset({"Running"})), {"suspended": True}, True),
        (ListingFilter(states=frozenset({"Suspended"})), {"suspended": True}, True),
        (ListingFilter(states=frozenset({"Suspended"})), {"suspended": False}, False),
        (ListingFilter(states=frozenset({"Waiting for user interaction"})), {}, False),
        (ListingFilter(bpm_name="Approval"), {}, True),
        (ListingFilter(bpm_name="approval"), {}, False),
        (ListingFilter(business_key="k"), {"business_key": "k"}, True),
        (ListingFilter(business_key="k"), {"business_key": "kk"}, False),
        (ListingFilter(business_key="k"), {}, False),
        (
            ListingFilter(ages=ages.AgeLimits(timezone.utc, older_than=60), now=NOW),
            {"start_time": "2026-11-28 11:00:00"},
            True,
        ),
        (
            ListingFilter(ages=ages.AgeLimits(timezone.utc, older_than=60), now=NOW),
            {"start_time": "2026-11-28 11:59:30"},
            False,
        ),
        (ListingFilter(ages=ages.AgeLimits(timezone.utc, older_than=60), now=NOW), {}, None),
        (
            ListingFilter(bpm_name="Other", ages=ages.AgeLimits(timezone.utc, older_than=60), now=NOW),
            {},
            False,
        ),
    ],
)
def test_filter_matches(wanted: ListingFilter, row: dict[str, Any], matches: bool | None, make: Make) -> None:
    assert wanted.matches(make("a", name="Approval", **row)) is matches
