"""What a timestamp proves and what it does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.client import timestamps
from airflow_provider_astrobpm.client.timestamps import Placement

NOW = datetime(2026, 11, 28, 12, tzinfo=timezone.utc)


@pytest.fixture(params=["UTC", "Asia/Shanghai"])
def _local_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give this machine a time zone."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("stamp", "is_read"),
    [
        ("2026-11-28 12:00:00", True),
        ("2015-01-01 00:00:00", True),
        ("2014-12-31 23:59:59", False),
        ("0001-01-01 00:00:00", False),
        ("1970-01-01 08:00:00", False),
        (" 2026-11-28 12:00:00", False),
        ("2026-11-28 12:00:00 ", False),
        ("2026-11-28T12:00:00", False),
        ("2026/11/28 12:00:00", False),
        ("2026-11-28 12:00:00.000", False),
        ("2026-02-30 12:00:00", False),
        ("2026-11-28 24:00:00", False),
        ("٢٠٢٦-11-28 12:00:00", False),
        ("1795867200000", False),
        ("-", False),
        ("", False),
        (None, False),
    ],
)
def test_parse_accepts_only_plausible_times_in_the_documented_format(
    stamp: str | None, is_read: bool
) -> None:
    assert (timestamps.parse(stamp) is not None) is is_read


@pytest.mark.usefixtures("_local_zone")
@pytest.mark.parametrize(
    ("hours", "is_credible"), [(0, True), (-14, True), (14, True), (-14.1, False), (14.1, False)]
)
def test_recent_start_makes_the_clock_credible(hours: float, is_credible: bool) -> None:
    stamp = f"{NOW + timedelta(hours=hours):%Y-%m-%d %H:%M:%S}"
    assert timestamps.is_clock_credible([None, "-", stamp], NOW.timestamp()) is is_credible


@given(
    offset=st.floats(-14, 14),
    skew=st.floats(-1000, 1000),
    age=st.floats(0, 100),
    other_age=st.floats(0, 100),
    start_age=st.floats(0, 100),
)
def test_instance_is_never_placed_before_its_own_start(
    offset: float, skew: float, age: float, other_age: float, start_age: float
) -> None:
    """For any time zone and any error of the server's clock. Ages and offsets are in hours."""
    shown = NOW + timedelta(hours=offset + skew)
    posted = NOW - timedelta(hours=max(age, start_age))
    mine, other = (f"{shown - timedelta(hours=hours):%Y-%m-%d %H:%M:%S}" for hours in (age, other_age))
    credible = timestamps.is_clock_credible([mine, other], NOW.timestamp())
    placed = timestamps.place(mine, posted.timestamp() - 1, NOW.timestamp(), clock_is_credible=credible)
    assert placed is not Placement.BEFORE


@pytest.mark.parametrize(
    ("stamp", "credible", "placed"),
    [
        ("2026-11-27 11:00:00", True, Placement.BEFORE),
        ("2026-11-27 11:00:00", False, Placement.UNKNOWN),
        ("2026-11-27 23:00:00", True, Placement.SINCE),
        ("2026-11-27 23:00:00", False, Placement.SINCE),
        ("2026-11-29 03:00:00", True, Placement.UNKNOWN),
        ("1970-01-01 08:00:00", True, Placement.UNKNOWN),
        (None, True, Placement.UNKNOWN),
    ],
)
def test_place_follows_the_table(stamp: str | None, credible: bool, placed: Placement) -> None:
    now = NOW.timestamp()
    assert timestamps.place(stamp, now - 60, now, clock_is_credible=credible) is placed


@pytest.mark.parametrize(
    ("stamp", "placed"),
    [
        ("2026-01-09 14:00:00", Placement.SINCE),  # now, in the zone that is furthest ahead
        ("2026-01-09 14:00:01", Placement.UNKNOWN),
        ("2026-01-07 10:00:00", Placement.SINCE),  # the moment, in the zone that is furthest behind
        ("2026-01-07 09:59:59", Placement.BEFORE),
    ],
)
def test_no_time_zone_is_further_off_than_fourteen_hours(stamp: str, placed: Placement) -> None:
    now = 1767916800.0  # 2026-01-09 00:00:00 UTC
    assert timestamps.place(stamp, now - 86_400, now, clock_is_credible=True) is placed
