"""Event loops that do not wait: while nothing is ready, the clock jumps to the next timer.

``SkippingLoop`` talks to real servers. Its time stands still until they have answered. ``VirtualLoop`` has no sockets and no
real clock: hours pass in microseconds, and the same callbacks run in the same order every time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextlib import closing
from selectors import DefaultSelector
from typing import Any, TypeVar

T = TypeVar("T")
Poll = Callable[[float | None], list[Any]]

MAX_ROUNDS_AT_ONE_TIME = 100_000  # more are a loop that never sleeps
CHECK_SECONDS = 0.01  # how soon the loop notices that a server has begun to hold back an answer


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop that skips to its next timer whenever nothing is under way: no request, no thread.

    Real time does not count. So a process that gets little CPU sees the same as any other: however long an answer takes, no
    timer falls due meanwhile. The exception is an answer that a server holds back on purpose, for which a client may time out.
    """

    def __init__(self) -> None:
        self.skipped = 0.0
        """Seconds that have passed, by skips and while answers were held back."""
        self.under_way = 0
        """How many pieces of real work are not finished; while there are any, nothing is skipped."""
        self.held_back = 0
        """How many answers a server holds back on purpose; while there are any, real time counts."""
        self.rounds = 0
        """How often the loop has gone round."""
        self.each_round: Callable[[], None] = lambda: None
        """Is called before each round."""
        self._began = (time.time(), time.monotonic())
        self._end = math.inf
        self._rounds_at_one_time = 0
        super().__init__(_SkippingSelector(self))

    def time(self) -> float:
        """Return the loop's time, which began as that of the monotonic clock."""
        return self._began[1] + self.skipped

    def wall_time(self) -> float:
        """Return the loop's time in seconds since the epoch."""
        return self._began[0] + self.skipped

    def select(self, timeout: float | None, poll: Poll) -> list[Any]:
        """Return the events that are ready, or skip to the next timer.

        :param timeout: seconds until the next timer; ``None`` if there is none.
        :param poll: asks the real selector.
        """
        self.rounds += 1
        self.each_round()
        if timeout is not None and timeout <= 0:
            self._rounds_at_one_time += 1
            if self._rounds_at_one_time > MAX_ROUNDS_AT_ONE_TIME:
                raise RuntimeError("the loop runs round after round, and no time passes")
            return poll(0)
        self._rounds_at_one_time = 0
        if self.under_way:
            return self._await_real_work(poll)
        if events := poll(0):
            return events
        next_timer = self._scheduled[0].when() if self._scheduled else math.inf
        if next_timer > self._end:
            self._skip_to(self._end)
            self.stop()
            return []
        if next_timer == math.inf:
            return poll(None)
        self._skip_to(next_timer)
        return []

    def _await_real_work(self, poll: Poll) -> list[Any]:
        counts, began = bool(self.held_back), time.monotonic()
        events = poll(CHECK_SECONDS)
        if counts:
            self.skipped += time.monotonic() - began
        return events

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> Any:
        def done(_future: Any) -> None:
            self.under_way -= 1

        self.under_way += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(done)
        return future

    def _skip_to(self, time: float) -> None:
        self.skipped += max(0.0, time - self.time())

    _scheduled: list[asyncio.TimerHandle]


class _SkippingSelector(DefaultSelector):
    def __init__(self, loop: SkippingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        return self._loop.select(timeout, super().select)


class VirtualLoop(SkippingLoop):
    """An event loop whose ``time`` is a number that only timers and the test move."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.problems: list[dict[str, Any]] = []
        """What the exception handler got: errors that no code handled."""
        self._clock_resolution = 1e-9
        self.set_exception_handler(lambda _loop, context: self.problems.append(context))

    def time(self) -> float:
        """Return the virtual time."""
        return self.now

    def pass_time(self, seconds: float) -> None:
        """Let this many seconds pass, or fewer if something calls ``stop``."""
        self._end = self.now + seconds
        self.run_forever()
        self._end = math.inf

    def settle(self) -> None:
        """Run everything that can run at this moment."""
        self.pass_time(0)

    def stand_still(self, seconds: float) -> None:
        """Let time pass in which nothing runs, as in a process that is not scheduled."""
        self.now += seconds

    def timers(self) -> list[asyncio.TimerHandle]:
        """Return the timers that are still to come."""
        return [timer for timer in self._scheduled if not timer.cancelled()]

    def select(self, timeout: float | None, poll: Poll) -> list[Any]:
        """Skip to the next timer; no socket is ever ready."""
        del poll
        return super().select(timeout, _poll_nothing)

    def _skip_to(self, time: float) -> None:
        self.now = max(self.now, time)

    def _write_to_self(self) -> None:
        """Do nothing: the loop never blocks, so nothing has to wake it."""


def _poll_nothing(timeout: float | None) -> list[Any]:
    if timeout is None:
        raise RuntimeError("nothing is scheduled, so nothing will ever happen")
    return []


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, and check that it leaves no tasks, timers or errors behind."""
    with closing(VirtualLoop()) as loop:
        try:
            result = loop.run_until_complete(main)
        except BaseException:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.settle()
            raise
        loop.settle()
        assert not asyncio.all_tasks(loop)
        assert not loop.timers()
        assert not loop.problems
        return result
