"""Runs a coroutine for a task, in an event loop in a separate thread.

The thread of the task only waits. Airflow's signals for a time-out and for a kill arrive in that thread. In an event loop
their exceptions would be raised anywhere, and some would be lost. The thread of the task may also run a loop already.
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

CANCELLATION_SECONDS = 10.0  # for a cancelled coroutine to end


def run_in_thread_loop(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine, and return its result or raise its error.

    An exception that is raised in this thread meanwhile cancels the coroutine, and is raised after the coroutine has ended.

    :param work: returns the coroutine.
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
        except BaseException as error:  # noqa: BLE001 - it is raised in the waiting thread
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
    """Cancel the coroutine if it still runs, and wait until it has ended."""
    if not outcome.done():
        loop, task = began.result(CANCELLATION_SECONDS)
        with suppress(RuntimeError):  # it has just ended
            loop.call_soon_threadsafe(task.cancel)
    thread.join(CANCELLATION_SECONDS)
