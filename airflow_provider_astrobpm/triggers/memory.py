"""What a watch keeps over a restart of its triggerer: the marks of what it has reported, in the state store of its asset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_astrobpm.bpm import cursor

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet


class Store(Protocol):
    """The part of Airflow's ``AssetStateStoreAccessors`` that is used here."""

    async def aget(self, key: str) -> Any:
        """Return a value; ``None`` if there is none."""

    async def aset(self, key: str, value: Any) -> None:
        """Write a value."""

    async def adelete(self, key: str) -> None:
        """Delete a value, if there is one."""


class WatchMemory:
    """The memory of a watch.

    :param name: the name of the watch in the store.
    :param store: the store; ``None`` where Airflow has none, then nothing outlives this object.
    """

    def __init__(self, name: str, store: Store | None) -> None:
        self._name = name
        self._store = store
        self._stored: dict[str, Any] = {}

    async def read(self) -> set[str] | None:
        """Return the marks that were written last, by whomever; ``None`` if none ever were."""
        if self._store is not None:
            head = await self._store.aget(self._name)
            self._stored = {self._name: head}
            for key in cursor.keys(self._name, head) or ():
                self._stored[key] = await self._store.aget(key)
        keys = cursor.keys(self._name, self._stored.get(self._name))
        return None if keys is None else cursor.marks_in(self._stored[key] for key in keys)

    async def write(self, marks: AbstractSet[str]) -> None:
        """Write the marks, in as few values as have changed."""
        for key, value in [*cursor.changes(self._name, marks, self._stored)]:
            if value is None:
                if self._store is not None:
                    await self._store.adelete(key)
                del self._stored[key]
            else:
                if self._store is not None:
                    await self._store.aset(key, value)
                self._stored[key] = value
