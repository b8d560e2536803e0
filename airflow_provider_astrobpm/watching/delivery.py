"""Detects when Airflow takes an event from a trigger.

A trigger yields an event into a queue of its process. About once a second Airflow takes what is in the queue and sends it to the
process that writes it to the database. That process answers later requests of the trigger only after that. Airflow does not notify
the trigger when it takes an event. But to send the payload it converts it to plain JSON with pydantic, so a payload that is a
pydantic model can notice it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable  # noqa: TC003 - pydantic reads the annotations
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, model_serializer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# After this many seconds an event counts as delivered, in case a later Airflow treats payloads differently. Airflow takes no events
# while its database hangs, and a crash loses an event that counted as delivered too early, so this is longer than such a hang.
DELIVERY_TIMEOUT_SECONDS = 1800.0


class TrackedPayload(BaseModel):
    """A payload that calls ``on_delivery`` when Airflow takes it, and is sent as ``plain``."""

    plain: dict[str, Any]
    on_delivery: Callable[[], None]

    @model_serializer
    def _serialize(self) -> dict[str, Any]:
        self.on_delivery()
        return self.plain

    def __repr__(self) -> str:
        return repr(self.plain)


class DeliveryTracker:
    """The events of one poll, and which of them Airflow has taken."""

    def __init__(self) -> None:
        self._open: set[str] = set()
        self._delivered: set[str] = set()
        self._news = asyncio.Event()

    def payload(self, key: str, plain: dict[str, Any]) -> TrackedPayload:
        """Return the payload of an event that a key identifies here."""
        self._open.add(key)
        return TrackedPayload(plain=plain, on_delivery=lambda: self._record(key))

    async def delivered(self) -> AsyncIterator[set[str]]:
        """Yield the keys of the events that were taken since the last time, until none is left."""
        while self._open:
            # Not with ``wait_for``, which may lose a cancellation before Python 3.12.
            alarm = asyncio.get_running_loop().call_later(DELIVERY_TIMEOUT_SECONDS, self._record, *self._open)
            try:
                await self._news.wait()
            finally:
                alarm.cancel()
            self._news.clear()
            delivered, self._delivered = self._delivered, set()
            self._open -= delivered
            yield delivered

    def _record(self, *entry_keys: str) -> None:
        self._delivered.update(entry_keys)
        self._news.set()
