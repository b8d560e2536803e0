"""Ages as they are given, and which start times they admit."""

from __future__ import annotations

from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_astrobpm.client.ages import AgeLimits, parse_age

UTC = timezone.utc
NOW = datetime(2026, 3, 10, 12, 0, 0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("15m", 900),
        ("2h", 7200),
        ("7d", 604_800),
        ("2w", 1_209_600),
        ("1d12h", 129_600),
        (" 1H ", 3600),
    ],
)
def test_parse_age(text: str, seconds: float) -> None:
    assert parse_age(text, "--older-than") == seconds


@pytest.mark.parametrize(
    "text", ["", "2", "h", "2 h", "-2h", "1.5h", "12h1d", "2h2h", "2y", "9" * 20 + "d", "٢h"]
)
def test_invalid_age_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="--older-than must be an age such as"):
        parse_age(text, "--older-than")


@pytest.mark.parametrize(
    ("start", "older", "younger", "admitted"),
    [
        ("2026-03-10 09:59:59", 7200, None, True),
        ("2026-03-10 10:00:00", 7200, None, False),  # just as old is not older
        ("2026-03-10 10:00:00", None, 7200, False),  # nor younger
        ("2026-03-10 10:00:01", None, 7200, True),
        ("2026-03-10 11:00:00", 1800, 7200, True),
        ("2026-03-10 11:45:00", 1800, 7200, False),
        ("2026-03-10 13:00:00", None, 60, True),  # the clocks differ
        (None, 60, None, None),
        ("yesterday", 60, None, None),
        ("2026-03-10T09:00:00", 60, None, None),
    ],
)
def test_age_limits_admit_instances_by_start_time(
    start: str | None, older: float | None, younger: float | None, admitted: bool | None
) -> None:
    assert AgeLimits(UTC, older, younger).includes(start, NOW) is admitted


@pytest.mark.parametrize(
    ("minutes", "admitted"),
    [(50, True), (70, None), (130, False)],  # it started 60 or 120 minutes ago
)
def test_age_is_unknown_in_an_hour_that_occurs_twice(minutes: int, admitted: bool | None) -> None:
    # On 25 October 2026 clocks in Berlin go from 03:00 back to 02:00; 02:30 is 00:30 and 01:30 UTC.
    now = datetime(2026, 10, 25, 2, 30, tzinfo=UTC).timestamp()
    limits = AgeLimits(ZoneInfo("Europe/Berlin"), older_than=minutes * 60)
    assert limits.includes("2026-10-25 02:30:00", now) is admitted


def test_age_uses_the_time_zone() -> None:
    limits = AgeLimits(ZoneInfo("Asia/Shanghai"), older_than=3600)
    assert limits.includes("2026-03-10 18:59:59", NOW) is True
    assert limits.includes("2026-03-10 19:00:01", NOW) is False
