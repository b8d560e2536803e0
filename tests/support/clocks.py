"""A clock for tests that do not wait."""

from __future__ import annotations

import asyncio


class ManualClock:
    """A clock that stands still until a test sets it or code sleeps on it.

    :param now: the seconds that it shows first.
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = self.began = now
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Advance the clock at once."""
        self.slept.append(seconds)
        self.now += seconds

    async def asleep(self, seconds: float) -> None:
        """Advance the clock after other coroutines had a turn. Those that sleep at the same time share the seconds."""
        self.slept.append(seconds)
        until = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, until)
