"""Notify open pages of changes: after a request that changed something, and when a step runs out.

The notifier checks for changes only when it is woken or something is due, so an idle page costs almost nothing. All open
pages share each check, so a hundred of them cost hardly more than one.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from airflow_provider_astrobpm.emulator.emulator_state import Emulator

MIN_NOTICE_GAP_SECONDS = 0.05
"""The checks are at least this far apart, so many requests at once cost one check."""
MAX_NOTICE_GAP_SECONDS = 60.0
"""Pages are notified at least this often, because the ages on them change. Ages are written in minutes."""


def fingerprint(emulator: Emulator) -> tuple[object, ...]:
    """Return a value that changes if and only if the page may have changed."""
    engine = emulator.engine
    instances = engine.instances()
    # Numbers are never reused and histories only grow, so two changes cannot cancel out.
    newest = instances[-1].number if instances else 0
    events = sum(len(instance.history) for instance in instances)
    definitions = tuple(engine.catalogue)
    return engine, engine.switches, emulator.clock.ahead, definitions, newest, len(instances), events


class ChangeNotifier:
    """Notify the subscribers of one emulator about its changes."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._fingerprint: tuple[object, ...] | None = None
        self._due = math.inf

    async def follow(self, at_least_every: float = MAX_NOTICE_GAP_SECONDS) -> AsyncGenerator[None, None]:
        """Yield immediately, and then whenever a page should be updated. The generator never ends.

        :param at_least_every: seconds after which it yields even if nothing changed.
        """
        woken = asyncio.Event()

        def wake() -> None:
            self._fingerprint = None
            woken.set()

        self._emulator.listeners.add(wake)
        self._fingerprint = None  # without followers, changes were not reported
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
            await _next_slot()  # one check covers all changes until then
            left = self._due - self._emulator.clock()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(woken.wait(), None if math.isinf(left) else max(left, 0.001))

    def _current(self) -> tuple[object, ...]:
        """Return the current fingerprint; the last one if nothing can have changed since."""
        if self._fingerprint is None or self._due <= self._emulator.clock():
            self._fingerprint = fingerprint(self._emulator)
            self._due = self._emulator.engine.next_due()
        return self._fingerprint


async def _next_slot() -> None:
    """Wait for the next moment at which all followers check, so that they share one check."""
    now = asyncio.get_running_loop().time()
    await asyncio.sleep(MIN_NOTICE_GAP_SECONDS - now % MIN_NOTICE_GAP_SECONDS)
