"""When there is something new to see: after a request that has changed something, and when a step runs out.

It looks only when it is woken or something is due, so a page on which nothing happens costs next to nothing. All pages
that are open share each look, so a hundred of them cost hardly more than one.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from airflow_provider_astrobpm.emulator.world import Emulator

MIN_NOTICE_GAP_SECONDS = 0.05
"""Seconds between two looks at least: many requests at once cost one."""
MAX_NOTICE_GAP_SECONDS = 60.0
"""Seconds: ages change without anything else, and are written in minutes."""


def fingerprint(emulator: Emulator) -> tuple[object, ...]:
    """Return a value that differs from an earlier one if and only if the page may look different."""
    engine = emulator.engine
    instances = engine.instances()
    # Numbers never come twice and histories only grow, so no two changes can make up for each other.
    newest = instances[-1].number if instances else 0
    events = sum(len(instance.history) for instance in instances)
    world = (engine, engine.switches, emulator.clock.ahead, tuple(engine.catalogue))
    return (*world, newest, len(instances), events)


class ChangeNotifier:
    """The changes of one emulator, for all who follow them."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._fingerprint: tuple[object, ...] | None = None
        self._due = math.inf

    async def follow(self, at_least_every: float = MAX_NOTICE_GAP_SECONDS) -> AsyncGenerator[None, None]:
        """Yield at once, and then whenever somebody who looks at the emulator should look again; without end.

        :param at_least_every: seconds after which it is time though nothing has changed.
        """
        woken = asyncio.Event()

        def wake() -> None:
            self._fingerprint = None
            woken.set()

        self._emulator.listeners.add(wake)
        self._fingerprint = None  # of what happened while nobody followed nothing was told
        try:
            while True:
                before = self._current()
                yield
                await _next_slot()
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._changed(before, woken), at_least_every)
        finally:
            self._emulator.listeners.discard(wake)

    async def _changed(self, before: tuple[object, ...], woken: asyncio.Event) -> None:
        while True:
            woken.clear()
            if self._current() != before:
                return
            await _next_slot()  # whatever comes meanwhile is seen in one look
            left = self._due - self._emulator.clock()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(woken.wait(), None if math.isinf(left) else max(left, 0.001))

    def _current(self) -> tuple[object, ...]:
        """Return what is seen now; what was seen last, if nothing can have changed since."""
        if self._fingerprint is None or self._due <= self._emulator.clock():
            self._fingerprint = fingerprint(self._emulator)
            self._due = self._emulator.engine.next_due()
        return self._fingerprint


async def _next_slot() -> None:
    """Wait for the next of the moments in which all who follow look, so that one look does for all of them."""
    now = asyncio.get_running_loop().time()
    await asyncio.sleep(MIN_NOTICE_GAP_SECONDS - now % MIN_NOTICE_GAP_SECONDS)
