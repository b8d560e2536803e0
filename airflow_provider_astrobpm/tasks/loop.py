"""Runs a coroutine for a task, in an event loop in a thread of its own.

The task's own thread only waits. That is the thread in which Airflow's signals arrive, for a time-out and for a kill, and
within an event loop they would be raised anywhere, and lost in places. There may also be a loop in it already.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

LONGEST_END = 10.0  # seconds for a coroutine that is cancelled to come to its end


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end, and return its result or raise its error.

    What is raised in this thread meanwhile cancels it, and is raised when it has ended.

    :param work: makes the coroutine.
    """
    began: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = Future()
    outcome: Future[T] = Future()

    async def main() -> T:
        task = asyncio.ensure_future(work())
        began.set_result((asyncio.get_running_loop(), task))
        return await task

    def target() -> None:
        try:
            result = asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    thread = threading.Thread(target=copy_context().run, args=(target,), name="astro-zero-loop", daemon=True)
    try:
        thread.start()
        return outcome.result()
    finally:
        if thread.ident is not None:
            _end(thread, began, outcome)


def _end(
    thread: threading.Thread,
    began: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]],
    outcome: Future[T],
) -> None:
    """Cancel what is still under way, and wait until nothing is."""
    if not outcome.done():
        loop, task = began.result(LONGEST_END)
        with suppress(RuntimeError):  # it has ended in this moment
            loop.call_soon_threadsafe(task.cancel)
    thread.join(LONGEST_END)
