"""A clock that can be put forward, so that hours of waiting pass in one call."""

from __future__ import annotations

import math
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class VirtualClock:
    """The real time plus what was added to it.

    :param source: returns the real time in seconds since the epoch.
    """

    def __init__(self, source: Callable[[], float] = time.time) -> None:
        self._source = source
        self._ahead = 0.0

    def __call__(self) -> float:
        """Return the time in seconds since the epoch."""
        return self._source() + self._ahead

    @property
    def ahead(self) -> float:
        """By how many seconds the clock was put forward."""
        return self._ahead

    def advance(self, seconds: float) -> None:
        """Put the clock forward.

        :raises ValueError: if ``seconds`` is negative or no finite number.
        """
        if not math.isfinite(seconds) or seconds < 0:
            raise ValueError(f"a clock goes forward by seconds of 0 or more, not {seconds!r}")
        self._ahead += seconds

    def reset(self) -> None:
        """Show the real time again."""
        self._ahead = 0.0


def timestamp(moment: float | None, utc_offset: float = 0.0) -> str:
    """Write a moment as Astro Zero does: ``YYYY-MM-DD HH:MM:SS`` without a zone, empty for none.

    :param moment: seconds since the epoch.
    :param utc_offset: hours that the server's zone is ahead of UTC; which zone the real one uses is undocumented.
    """
    if moment is None:
        return ""
    zone = timezone(timedelta(hours=utc_offset))
    return datetime.fromtimestamp(moment, zone).strftime("%Y-%m-%d %H:%M:%S")
