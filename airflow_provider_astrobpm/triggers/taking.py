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

# Seconds after which an event counts as taken, should Airflow do something else with payloads one day. While its database
# hangs it takes nothing, and what counts as taken too early is lost to a crash: so this is longer than it may hang.
WITHIN = 1800.0


class Payload(BaseModel):
    """A payload that tells when it is taken.

    :param plain: what is sent in its place.
    :param on_taken: is called when it is taken.
    """

    plain: dict[str, Any]
    _on_taken: Callable[[], None] = PrivateAttr()

    def __init__(self, plain: dict[str, Any], on_taken: Callable[[], None]) -> None:
        super().__init__(plain=plain)
        self._on_taken = on_taken

    @model_serializer
    def _serialize(self) -> dict[str, Any]:
        self._on_taken()
        return self.plain

    def __repr__(self) -> str:
        return repr(self.plain)


class Taking:
    """The events that one look has brought, and which of them Airflow has taken."""

    def __init__(self) -> None:
        self._open: set[str] = set()
        self._taken: set[str] = set()
        self._news = asyncio.Event()

    def payload(self, mark: str, plain: dict[str, Any]) -> Payload:
        """Return the payload of an event.

        :param mark: its sign here.
        :param plain: what it carries.
        """
        self._open.add(mark)
        return Payload(plain, lambda: self._take(mark))

    async def taken(self) -> AsyncIterator[set[str]]:
        """Yield the signs of those that were taken, as soon as some were, until none is left."""
        while self._open:
            # Not by ``wait_for``: before Python 3.12 it may lose a cancellation.
            alarm = asyncio.get_running_loop().call_later(WITHIN, self._take, *self._open)
            try:
                await self._news.wait()
            finally:
                alarm.cancel()
            self._news.clear()
            taken, self._taken = self._taken, set()
            self._open -= taken
            yield taken

    def _take(self, *marks: str) -> None:
        self._taken.update(marks)
        self._news.set()
