"""The stored state of a watch: the entry keys of what it has reported, in its asset's state store, to survive restarts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_astrobpm.client.drivers import in_thread
from airflow_provider_astrobpm.watching import state_codec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet


MAX_KEYS_SORTED_INLINE = 10_000  # which takes some milliseconds; more entry keys are sorted in a thread


class AssetStateStore(Protocol):
    """The part of Airflow's ``AssetStateStoreAccessors`` that this module uses."""

    async def aget(self, key: str) -> Any:
        """Return a value; ``None`` if there is none."""

    async def aset(self, key: str, value: Any) -> None:
        """Write a value."""

    async def adelete(self, key: str) -> None:
        """Delete a value, if it exists."""


class WatchState:
    """Reads and writes the entry keys of a watch.

    :param name: the name of the watch in the store.
    :param store: the store; ``None`` if Airflow has none, in which case the state lasts as long as this object.
    """

    def __init__(self, name: str, store: AssetStateStore | None) -> None:
        self._name = name
        self._store = store
        self._stored: dict[str, Any] = {}

    async def read(self) -> set[str] | None:
        """Return the entry keys that any triggerer wrote last; ``None`` if there are none or some are lost."""
        if self._store is not None:
            stored = {self._name: await self._store.aget(self._name)}
            for key in state_codec.shard_keys(self._name, stored[self._name]) or ():
                stored[key] = await self._store.aget(key)
            self._stored = stored
        keys = state_codec.shard_keys(self._name, self._stored.get(self._name))
        # Do not take a lost value for an empty one: all entries of its shard would be reported again.
        return None if keys is None else state_codec.decode_shards(self._stored.get(key) for key in keys)

    async def read_additions(self) -> set[str]:
        """Return the entry keys that another triggerer has added since this object read or wrote them last."""
        before = self._stored
        await self.read()
        return self._in_changed_shards(self._stored, before) - self._in_changed_shards(before, self._stored)

    def _in_changed_shards(self, stored: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
        keys = state_codec.shard_keys(self._name, stored.get(self._name)) or ()
        shards = (stored.get(key) for key in keys if stored.get(key) != other.get(key))
        return state_codec.decode_shards(shards) or set()

    async def write(self, entry_keys: AbstractSet[str]) -> None:
        """Write the entry keys, changing as few values as possible."""
        changes = partial(state_codec.state_changes, self._name, frozenset(entry_keys), dict(self._stored))
        found = await in_thread(list, changes()) if len(entry_keys) > MAX_KEYS_SORTED_INLINE else [*changes()]
        for key, value in found:
            if value is None:
                if self._store is not None:
                    await self._store.adelete(key)
                del self._stored[key]
            else:
                if self._store is not None:
                    await self._store.aset(key, value)
                self._stored[key] = value
