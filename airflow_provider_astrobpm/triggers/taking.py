"""When Airflow takes an event from a trigger.

A trigger yields an event into a queue of its process. About every second Airflow takes what is there and sends it to the
process that writes it down, which answers whatever the trigger asks after that only then. Of the moment between, a trigger
is told nothing. But Airflow has to turn the payload into plain JSON, by pydantic, to send it; so a payload that is a
pydantic model learns of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable  # noqa: TC003 - pydantic reads the annotations
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, PrivateAttr, model_serializer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Seconds after which an event counts as delivered, should Airflow do something else with payloads one day. While its database
# hangs it takes nothing, and what counts as delivered too early is lost to a crash: so this is longer than it may hang.
DELIVERY_TIMEOUT_SECONDS = 1800.0


class TrackedPayload(BaseModel):
    """A payload that tells when it is delivered.

    :param plain: what is sent in its place.
    :param on_delivery: is called when it is delivered.
    """

    plain: dict[str, Any]
    _on_delivery: Callable[[], None] = PrivateAttr()

    def __init__(self, plain: dict[str, Any], on_delivery: Callable[[], None]) -> None:
        super().__init__(plain=plain)
        self._on_delivery = on_delivery

    @model_serializer
    def _serialize(self) -> dict[str, Any]:
        self._on_delivery()
        return self.plain

    def __repr__(self) -> str:
        return repr(self.plain)


class DeliveryTracker:
    """The events that one look has brought, and which of them Airflow has delivered."""

    def __init__(self) -> None:
        self._open: set[str] = set()
        self._delivered: set[str] = set()
        self._news = asyncio.Event()

    def payload(self, mark: str, plain: dict[str, Any]) -> TrackedPayload:
        """Return the payload of an event.

        :param mark: its sign here.
        :param plain: what it carries.
        """
        self._open.add(mark)
        return TrackedPayload(plain, lambda: self._take(mark))

    async def delivered(self) -> AsyncIterator[set[str]]:
        """Yield the signs of those that were delivered, as soon as some were, until none is left."""
        while self._open:
            # Not by ``wait_for``: before Python 3.12 it may lose a cancellation.
            alarm = asyncio.get_running_loop().call_later(DELIVERY_TIMEOUT_SECONDS, self._take, *self._open)
            try:
                await self._news.wait()
            finally:
                alarm.cancel()
            self._news.clear()
            delivered, self._delivered = self._delivered, set()
            self._open -= delivered
            yield delivered

    def _take(self, *marks: str) -> None:
        self._delivered.update(marks)
        self._news.set()
