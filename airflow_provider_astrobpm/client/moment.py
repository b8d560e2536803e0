"""A moment on two clocks. Deadlines use the wall clock, which people and NTP may set; durations use a monotonic clock."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import NamedTuple


class Moment(NamedTuple):
    """One moment on both clocks."""

    wall: float
    """Seconds since the epoch. Deadlines are on this clock, so a restart does not extend them."""
    steady: float
    """Seconds on a monotonic clock. Differences between two readings are durations."""

    def wall_time_of(self, steady: float) -> float:
        """Convert a reading of the monotonic clock to wall time, by the present setting of the wall clock."""
        return self.wall - (self.steady - steady)


def now() -> Moment:
    """Return the present moment."""
    return Moment(time.time(), time.monotonic())


def utc(seconds: float) -> str:
    """Format seconds since the epoch, such as ``2026-01-31 12:00:00 UTC``."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
