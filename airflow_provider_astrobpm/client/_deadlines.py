"""Calls functions when their time has come, all in one thread: a timer for each request would cost more than the request."""

from __future__ import annotations

import heapq
import os
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Deadline:
    """A function that is called at a moment, unless it is cancelled before."""

    __slots__ = ("due", "function")

    def __init__(self, due: float, function: Callable[[], None]) -> None:
        self.due = due
        self.function: Callable[[], None] | None = function
        """``None`` once it is cancelled."""

    def cancel(self) -> None:
        """Do not call the function. It may be running already."""
        self.function = None

    def __lt__(self, other: Deadline) -> bool:
        return self.due < other.due


class DeadlineThread:
    """The deadlines of a process, and the thread that keeps them. The thread runs while there are any."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget every deadline, and the thread. For a forked process, which has neither."""
        self._changed = threading.Condition()
        self._heap: list[Deadline] = []
        self._thread: threading.Thread | None = None
        self._wakes_at = 0.0

    def call_after(self, seconds: float, function: Callable[[], None]) -> Deadline:
        """Call a function in a while. It must not raise, and must not block.

        :param seconds: how long to wait.
        """
        made = Deadline(time.monotonic() + seconds, function)
        with self._changed:
            while self._heap and self._heap[0].function is None:
                heapq.heappop(self._heap)
            heapq.heappush(self._heap, made)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="astro-zero-deadlines", daemon=True)
                self._thread.start()
            elif made.due < self._wakes_at:
                self._changed.notify()
        return made

    def rest(self) -> None:
        """Forget what was cancelled, and let the thread end if nothing is left."""
        with self._changed:
            self._heap = [each for each in self._heap if each.function is not None]
            heapq.heapify(self._heap)
            self._changed.notify()

    def _run(self) -> None:
        while (deadline := self._next()) is not None:
            if deadline.function is not None:
                deadline.function()

    def _next(self) -> Deadline | None:
        """Wait until a deadline is due, and remove it; ``None`` if there is no other, and so the thread ends."""
        with self._changed:
            while self._heap:
                self._wakes_at = self._heap[0].due
                seconds = self._wakes_at - time.monotonic()
                if seconds <= 0:
                    return heapq.heappop(self._heap)
                self._changed.wait(seconds)
            self._thread = None
            return None


DEADLINES = DeadlineThread()
os.register_at_fork(after_in_child=DEADLINES.reset)
