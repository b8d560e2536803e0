"""What a watch keeps over a restart of its triggerer: the marks of what it has reported, in the state store of its asset."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_astrobpm.bpm import cursor

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet


MANY = 10_000  # marks that take some milliseconds to sort; more are sorted in a thread


class Store(Protocol):
    """The part of Airflow's ``AssetStateStoreAccessors`` that is used here."""

    async def aget(self, key: str) -> Any:
        """Return a value; ``None`` if there is none."""

    async def aset(self, key: str, value: Any) -> None:
        """Write a value."""

    async def adelete(self, key: str) -> None:
        """Delete a value, if there is one."""


class WatchState:
    """The memory of a watch.

    :param name: the name of the watch in the store.
    :param store: the store; ``None`` where Airflow has none, then nothing outlives this object.
    """

    def __init__(self, name: str, store: Store | None) -> None:
        self._name = name
        self._store = store
        self._stored: dict[str, Any] = {}

    async def read(self) -> set[str] | None:
        """Return the marks that were written last, by whomever; ``None`` if none ever were, or some of them are lost."""
        if self._store is not None:
            head = await self._store.aget(self._name)
            self._stored = {self._name: head}
            for key in cursor.keys(self._name, head) or ():
                self._stored[key] = await self._store.aget(key)
        keys = cursor.keys(self._name, self._stored.get(self._name))
        # Were it taken for empty, a value that is lost would let its share of all that ever happened happen again.
        if keys is None or not all(isinstance(self._stored.get(key), str) for key in keys):
            return None
        return cursor.marks_in(self._stored[key] for key in keys)

    async def write(self, marks: AbstractSet[str]) -> None:
        """Write the marks, in as few values as have changed."""
        changes = partial(cursor.changes, self._name, frozenset(marks), dict(self._stored))
        found = await asyncio.to_thread(list, changes()) if len(marks) > MANY else [*changes()]
        for key, value in found:
            if value is None:
                if self._store is not None:
                    await self._store.adelete(key)
                del self._stored[key]
            else:
                if self._store is not None:
                    await self._store.aset(key, value)
                self._stored[key] = value
