"""What the timestamps of instances prove. They carry no zone, and their format and truth are undocumented.

A timestamp counts only in the documented format, ``YYYY-MM-DD HH:MM:SS``, and if it is plausible. Anything else says
nothing, so nothing is ever taken for old because of it.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ZONES = timedelta(hours=14)  # no zone is further from UTC
EARLIEST = datetime(2015, 1, 1)  # noqa: DTZ001 - naive like the timestamps; before that the product did not exist
_FORMAT = re.compile(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}", re.ASCII)


class Placement(Enum):
    """Whether an instance was started before a moment."""

    BEFORE = "before"
    SINCE = "since"
    UNKNOWN = "unknown"


def read(stamp: str | None) -> datetime | None:
    """Return a timestamp as a naive ``datetime``, plausible or not; ``None`` for any other format."""
    if stamp is None or not _FORMAT.fullmatch(stamp):
        return None
    try:
        return datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007 - its zone is undocumented
    except ValueError:
        return None


def parse(stamp: str | None) -> datetime | None:
    """Return a timestamp as a naive ``datetime``; ``None`` for any other format, and for an implausible time."""
    moment = read(stamp)
    return moment if moment is not None and moment >= EARLIEST else None


def is_clock_credible(stamps: Iterable[str | None], now: float) -> bool:
    """Return whether the server's clock is known to be right, to within the width of all zones.

    It is where something was started lately: what starts now then shows a time that is not long ago either.

    :param stamps: the start times of all instances in some lists.
    :param now: the time, in seconds since the epoch.
    """
    return any(_is_recent(stamp, now) for stamp in stamps)


def _is_recent(stamp: str | None, now: float) -> bool:
    parsed = parse(stamp)
    return parsed is not None and abs(parsed - _naive_utc(now)) <= ZONES


def place(stamp: str | None, moment: float, now: float, *, clock_is_credible: bool) -> Placement:
    """Return whether an instance was started before a moment.

    :param stamp: its start time, as sent.
    :param moment: the moment, in seconds since the epoch.
    :param now: the time, in seconds since the epoch.
    :param clock_is_credible: whether the server's clock is known to be right.
    """
    parsed = parse(stamp)
    if parsed is None or parsed > _naive_utc(now) + ZONES:
        return Placement.UNKNOWN
    if parsed >= _naive_utc(moment) - ZONES:
        return Placement.SINCE
    return Placement.BEFORE if clock_is_credible else Placement.UNKNOWN


def _naive_utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc).replace(tzinfo=None)
