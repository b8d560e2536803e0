"""Reads what a wait needs before it can poll, such as its connection or its batch's instance ids, and retries failed reads."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from airflow_provider_astrobpm.waiting.wait import BaseWait

T = TypeVar("T")


async def read_with_retries(
    read: Callable[[], Awaitable[T]], what: str, *, awaited: BaseWait[Any], connection: str, log: Any
) -> T:
    """Read something, and retry for as long as the wait tolerates failed polls.

    :param read: reads it.
    :param what: what it reads, such as ``the connection``.
    :param awaited: the wait, which records the failures.
    :param connection: the connection id.
    :param log: the trigger's log, which gets a line when reads start to fail.
    :raises AstroZeroError: the error that ended the wait, if reads failed for too long or the deadline passed.
    """
    from airflow_provider_astrobpm.client.moment import Moment  # noqa: PLC0415
    from airflow_provider_astrobpm.waiting import lookup  # noqa: PLC0415

    steady = asyncio.get_running_loop().time  # the poller's clock
    while True:
        try:
            return await read()
        except Exception as error:  # noqa: BLE001 - a secrets backend may raise anything
            failure = error
        pause = lookup.record_failed_read(
            awaited,
            what,
            failure,
            connection=connection,
            now=Moment(time.time(), steady()),
            jitter=random.random(),  # noqa: S311
        )
        for note in awaited.notes:
            note.write_to(log)
        awaited.notes.clear()
        if isinstance(awaited.ending, Exception):
            raise awaited.ending from failure
        await asyncio.sleep(pause)
