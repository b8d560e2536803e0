"""A coroutine in the loop of a separate thread: its result, its errors, and signals in the waiting thread."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from airflow_provider_astrobpm.task_base import thread_loop

VARIABLE: ContextVar[str] = ContextVar("variable", default="unset")


class TimeIsUp(BaseException):
    """Like Airflow's own exception for time-outs, it is not an ``Exception``."""


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_returns_the_result_from_another_thread() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return threading.get_ident()

    assert thread_loop.run_in_thread_loop(work) != threading.get_ident()


def test_raises_the_error() -> None:
    async def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        thread_loop.run_in_thread_loop(work)


def test_runs_inside_another_event_loop() -> None:
    async def work() -> int:
        return 1

    async def main() -> int:
        return thread_loop.run_in_thread_loop(work)

    assert asyncio.run(main()) == 1


def test_has_the_context_variables_of_its_caller() -> None:
    async def work() -> str:
        return VARIABLE.get()

    VARIABLE.set("set")
    assert thread_loop.run_in_thread_loop(work) == "set"


@pytest.mark.parametrize("how", ["at once", "after a while", "with an error of its own"])
def test_signal_cancels_it_and_is_raised_after_its_end(how: str) -> None:
    ended = []

    def time_is_up(_number: int, _frame: object) -> None:
        raise TimeIsUp

    async def work() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        try:
            await asyncio.sleep(60)
        finally:
            if how == "after a while":
                await asyncio.sleep(0.01)
            ended.append(how)
            if how == "with an error of its own":
                raise ValueError("no")

    before = signal.signal(signal.SIGUSR1, time_is_up)
    try:
        with pytest.raises(TimeIsUp):
            thread_loop.run_in_thread_loop(work)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ended == [how]
