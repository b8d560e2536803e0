"""When there is something new to see: after a request that has changed something, and when a step runs out.

It looks only when it is woken or something is due, so a page on which nothing happens costs next to nothing.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from airflow_provider_astrobpm.emulator.world import Emulator

GAP = 0.05
"""Seconds between two notices at least: many changes at once are one."""
AT_LEAST_EVERY = 60.0
"""Seconds after which there is a notice though nothing has changed: ages are written in minutes."""


def seen(emulator: Emulator) -> tuple[object, ...]:
    """Return a value that differs from an earlier one if and only if the page may look different."""
    engine = emulator.engine
    instances = engine.instances()
    # Numbers never come twice and histories only grow, so no two changes can make up for each other.
    newest = instances[-1].number if instances else 0
    events = sum(len(instance.history) for instance in instances)
    world = (engine, engine.switches, emulator.clock.ahead, tuple(engine.catalogue))
    return (*world, newest, len(instances), events)


class Changes:
    """Tells those who look at an emulator when to look again.

    :param emulator: whose listeners are told of every request that may have changed something.
    """

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._closed = False

    def close(self) -> None:
        """End every :meth:`follow`."""
        self._closed = True
        self._emulator.tell_listeners()

    async def follow(self) -> AsyncGenerator[None, None]:
        """Yield at once, after every change, and at least once a minute, until this is closed."""
        woken = asyncio.Event()
        self._emulator.listeners.add(woken.set)
        try:
            while not self._closed:
                before = seen(self._emulator)
                yield
                await asyncio.sleep(GAP)
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._changed(before, woken), AT_LEAST_EVERY)
        finally:
            self._emulator.listeners.discard(woken.set)

    async def _changed(self, before: tuple[object, ...], woken: asyncio.Event) -> None:
        while not self._closed:
            woken.clear()
            if seen(self._emulator) != before:
                return
            left = self._emulator.engine.next_due() - self._emulator.clock()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(woken.wait(), None if math.isinf(left) else max(left, 0.001))
