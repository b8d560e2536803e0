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
"""Seconds between two looks at least: many requests at once cost one."""
AT_LEAST_EVERY = 60.0
"""Seconds: ages change without anything else, and are written in minutes."""


def seen(emulator: Emulator) -> tuple[object, ...]:
    """Return a value that differs from an earlier one if and only if the page may look different."""
    engine = emulator.engine
    instances = engine.instances()
    # Numbers never come twice and histories only grow, so no two changes can make up for each other.
    newest = instances[-1].number if instances else 0
    events = sum(len(instance.history) for instance in instances)
    world = (engine, engine.switches, emulator.clock.ahead, tuple(engine.catalogue))
    return (*world, newest, len(instances), events)


async def changes(emulator: Emulator, at_least_every: float = AT_LEAST_EVERY) -> AsyncGenerator[None, None]:
    """Yield at once, and then whenever somebody who looks at an emulator should look again; without end.

    :param at_least_every: seconds after which it is time though nothing has changed.
    """
    woken = asyncio.Event()
    emulator.listeners.add(woken.set)
    try:
        while True:
            before = seen(emulator)
            yield
            await asyncio.sleep(GAP)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(_changed(emulator, before, woken), at_least_every)
    finally:
        emulator.listeners.discard(woken.set)


async def _changed(emulator: Emulator, before: tuple[object, ...], woken: asyncio.Event) -> None:
    while True:
        woken.clear()
        if seen(emulator) != before:
            return
        await asyncio.sleep(GAP)  # whatever comes meanwhile is seen in one look
        left = emulator.engine.next_due() - emulator.clock()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(woken.wait(), None if math.isinf(left) else max(left, 0.001))
