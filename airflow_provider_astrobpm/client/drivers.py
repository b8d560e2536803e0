"""Runs the generators of this package: flows, calls, token requests and probes. A generator decides, and its driver does the I/O.

A generator yields what it needs next. The driver gets that, and sends it in or throws its failure in.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from airflow_provider_astrobpm.client.errors import AstroZeroError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

S = TypeVar("S")
T = TypeVar("T")


class _Returned(NamedTuple):
    """The result of a generator. Its ``StopIteration`` cannot be passed out of a thread."""

    result: Any


def _resumed(resume: Callable[[Any], S], value: object) -> S | _Returned:
    try:
        return resume(value)
    except StopIteration as stop:
        return _Returned(stop.value)


def drive(
    steps: Generator[S, Any, T], answer: Callable[[S], Any], failures: type[BaseException] = AstroZeroError
) -> T:
    """Run a generator to its result.

    :param steps: the generator.
    :param answer: does what a step asks for, and returns the reply.
    :param failures: what is thrown into the generator if ``answer`` raises it. Anything else ends the run.
    """
    resume, value = steps.send, None
    while not isinstance(step := _resumed(resume, value), _Returned):
        try:
            resume, value = steps.send, answer(step)
        except failures as failure:
            resume, value = steps.throw, failure
    return step.result  # type: ignore[no-any-return]


async def drive_async(
    steps: Generator[S, Any, T],
    answer: Callable[[S], Awaitable[Any]],
    failures: type[BaseException] = AstroZeroError,
    *,
    is_heavy: Callable[[Any], bool] = lambda _reply: False,
) -> T:
    """Do the same as ``drive`` in an event loop. The generator takes a heavy reply in a thread."""
    resume, value = steps.send, None
    while True:
        if is_heavy(value):
            step = await in_thread(_resumed, resume, value)
        else:
            step = _resumed(resume, value)
        if isinstance(step, _Returned):
            return step.result  # type: ignore[no-any-return]
        try:
            resume, value = steps.send, await answer(step)
        except failures as failure:
            resume, value = steps.throw, failure


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a thread, or here if no thread can be started."""
    future: Future[T] = Future()

    def call() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(function(*arguments))
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            future.set_exception(error)

    try:
        asyncio.get_running_loop().run_in_executor(None, copy_context().run, call)
    except RuntimeError:  # the call is in the queue of the executor, and a thread may even have taken it
        if future.cancel():
            return function(*arguments)
    return await asyncio.wrap_future(future)
