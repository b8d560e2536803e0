"""What the timestamps of instances prove. They have no time zone, and their format and accuracy are undocumented.

A timestamp counts only if it has the documented format, ``YYYY-MM-DD HH:MM:SS``, and is plausible. Any other timestamp
proves nothing, so it never makes an instance count as old.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ZONES = timedelta(hours=14)  # the largest offset from UTC of any time zone
EARLIEST = datetime(2015, 1, 1)  # noqa: DTZ001 - naive like the timestamps; the product did not exist earlier
_FORMAT = re.compile(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}", re.ASCII)


class Placement(Enum):
    """Whether an instance was started before a moment."""

    BEFORE = "before"
    SINCE = "since"
    UNKNOWN = "unknown"


def read(stamp: str | None) -> datetime | None:
    """Parse a timestamp to a naive ``datetime``, plausible or not. Return ``None`` for any other format."""
    if stamp is None or not _FORMAT.fullmatch(stamp):
        return None
    try:
        return datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007 - its zone is undocumented
    except ValueError:
        return None


def parse(stamp: str | None) -> datetime | None:
    """Parse a timestamp to a naive ``datetime``. Return ``None`` for any other format and for an implausible time."""
    moment = read(stamp)
    return moment if moment is not None and moment >= EARLIEST else None


def is_clock_credible(stamps: Iterable[str | None], now: float) -> bool:
    """Return whether the server's clock is known to be right, up to the largest offset of a time zone.

    It is known to be right if a list shows a recent start: an instance started at that time shows a time close to it.

    :param stamps: the start times of all instances in some lists.
    :param now: in seconds since the epoch.
    """
    starts = (start for stamp in stamps if (start := parse(stamp)) is not None)
    return any(abs(start - _naive_utc(now)) <= ZONES for start in starts)


def place(stamp: str | None, moment: float, now: float, *, clock_is_credible: bool) -> Placement:
    """Return whether an instance was started before or after a moment, or that this is unknown.

    :param stamp: its start time, as sent.
    :param moment: in seconds since the epoch, as ``now`` is.
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
