"""Reads what a wait needs before it can poll, with the patience of the wait: its connection, the instances of its batch."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from airflow_provider_astrobpm.bpm.wait import AnyWait

T = TypeVar("T")


async def read_with_retries(
    read: Callable[[], Awaitable[T]], what: str, *, awaited: AnyWait[Any], connection: str, log: Any
) -> T:
    """Return what is read, and read again for as long as the wait bears with polls that fail.

    :param read: reads it.
    :param what: what it is, such as ``the connection``.
    :param awaited: the wait, in whose books failures are counted.
    :param connection: the connection id.
    :param log: the log of the trigger, which gets a line when reading begins to fail.
    :raises AstroZeroError: the end of the wait, where its patience or its time is over.
    """
    from airflow_provider_astrobpm.bpm import lookup  # noqa: PLC0415
    from airflow_provider_astrobpm.bpm.moment import Moment  # noqa: PLC0415

    steady = asyncio.get_running_loop().time  # the poller's clock
    while True:
        began = steady()
        try:
            return await read()
        except Exception as error:  # noqa: BLE001 - a secrets backend may raise anything
            failure = error
        pause = lookup.failed(
            awaited,
            what,
            failure,
            connection=connection,
            began=began,
            now=Moment(time.time(), steady()),
            jitter=random.random(),  # noqa: S311
        )
        for note in awaited.notes:
            note.write_to(log)
        awaited.notes.clear()
        if isinstance(awaited.ending, Exception):
            raise awaited.ending from failure
        await asyncio.sleep(pause)
