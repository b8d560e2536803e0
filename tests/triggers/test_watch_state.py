"""The stored state of a watch: complete, or nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from airflow_provider_astrobpm.triggers import watch_state
from airflow_provider_astrobpm.triggers.watch_state import WatchState
from airflow_provider_astrobpm.watching.targets import instance_digest
from tests.support.stores import AssetStateStore

NAME = "astro_bpm.w"


def entry_keys(count: int) -> set[str]:
    return {f"00{instance_digest(str(number))}" for number in range(count)}


def write(store: AssetStateStore | None, wanted: set[str]) -> WatchState:
    kept = WatchState(NAME, store)
    assert asyncio.run(kept.read()) is None
    asyncio.run(kept.write(wanted))
    return kept


@pytest.mark.parametrize("count", [0, 3, watch_state.MAX_KEYS_SORTED_INLINE + 1])
def test_another_object_reads_what_was_written(count: int) -> None:
    store = AssetStateStore()
    write(store, entry_keys(count))
    assert asyncio.run(WatchState(NAME, store).read()) == entry_keys(count)


@pytest.mark.parametrize("count", [3, watch_state.MAX_KEYS_SORTED_INLINE + 1])
def test_additions_are_what_another_object_has_written_since(count: int) -> None:
    store = AssetStateStore()
    before, now = entry_keys(3), entry_keys(count) | {f"00{instance_digest('another')}"}

    async def main() -> list[set[str]]:
        kept, other = WatchState(NAME, store), WatchState(NAME, store)
        found = [await kept.read_additions()]
        await kept.write(before)
        found.append(await kept.read_additions())
        await other.read()
        await other.write(now - {min(before)})
        return [*found, await kept.read_additions(), await kept.read_additions()]

    assert asyncio.run(main()) == [set(), set(), now - before, set()]


def test_a_lost_value_adds_nothing() -> None:
    store = AssetStateStore()
    kept = write(store, entry_keys(3))
    store.values.clear()
    assert asyncio.run(kept.read_additions()) == set()


def test_without_a_store_the_object_remembers() -> None:
    kept = write(None, entry_keys(3))
    assert asyncio.run(kept.read()) == entry_keys(3)
    assert asyncio.run(WatchState(NAME, None).read()) is None


@pytest.mark.parametrize("lost", [f"{NAME}.4.2", NAME])
def test_a_lost_value_makes_the_state_unknown(lost: str) -> None:
    store = AssetStateStore()
    write(store, entry_keys(watch_state.MAX_KEYS_SORTED_INLINE + 1))
    del store.values[lost]
    assert asyncio.run(WatchState(NAME, store).read()) is None


@pytest.mark.parametrize(
    "damaged", ["00abc", "zzabcdefgh", "00abcdefg\xe9", "00abcdefgh\n", 7, ["00abcdefgh"]]
)
def test_a_damaged_value_makes_the_state_unknown(damaged: Any) -> None:
    store = AssetStateStore()
    write(store, entry_keys(3))
    store.values[f"{NAME}.1.0"] = json.dumps(damaged)
    kept = WatchState(NAME, store)
    assert asyncio.run(kept.read()) is None
    asyncio.run(kept.write(entry_keys(2)))
    assert asyncio.run(WatchState(NAME, store).read()) == entry_keys(2)
