"""A moment on two clocks: deadlines are on the wall clock, which people and NTP may set; stretches are on a steady one."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import NamedTuple


class Moment(NamedTuple):
    """One moment, as both clocks show it."""

    wall: float
    """Seconds since the epoch. A deadline is a time of this clock: restarts do not extend it."""
    steady: float
    """Seconds of a clock that nobody sets, from whatever moment on. Its differences are how long something has lasted."""

    def wall_time_of(self, steady: float) -> float:
        """Return what the wall clock, as it is set now, showed at a moment of the steady clock."""
        return self.wall - (self.steady - steady)


def now() -> Moment:
    """Return this moment."""
    return Moment(time.time(), time.monotonic())


def utc(seconds: float) -> str:
    """Return a time in words, from seconds since the epoch."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
