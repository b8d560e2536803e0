"""A clock that can be advanced, so that hours of waiting pass in one call."""

from __future__ import annotations

import math
import time
from datetime import datetime, timedelta, timezone


class VirtualClock:
    """The real time plus an offset, ``ahead``, in seconds."""

    ahead = 0.0

    def __call__(self) -> float:
        """Return the time in seconds since the epoch."""
        return time.time() + self.ahead

    def advance(self, seconds: float) -> None:
        """Advance the clock.

        :raises ValueError: if ``seconds`` is negative or not finite.
        """
        if not math.isfinite(seconds) or seconds < 0:
            raise ValueError(f"seconds must be 0 or more, not {seconds!r}")
        self.ahead += seconds


def timestamp(moment: float | None, utc_offset: float = 0.0) -> str:
    """Format a moment as Astro Zero does: ``YYYY-MM-DD HH:MM:SS`` without a zone; empty for ``None``.

    :param moment: seconds since the epoch.
    :param utc_offset: hours by which the server's zone is ahead of UTC. The zone of the real server is undocumented.
    """
    if moment is None:
        return ""
    zone = timezone(timedelta(hours=utc_offset))
    return datetime.fromtimestamp(moment, zone).strftime("%Y-%m-%d %H:%M:%S")
