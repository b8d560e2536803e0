"""What a watch keeps over a restart: whole, or nothing."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_astrobpm.bpm.places import digest_of
from airflow_provider_astrobpm.triggers import memory
from airflow_provider_astrobpm.triggers.memory import WatchMemory
from tests.support.stores import AssetStateStore

NAME = "astro_bpm.w"


def marks(count: int) -> set[str]:
    return {f"00{digest_of(str(number))}" for number in range(count)}


def write(store: AssetStateStore | None, wanted: set[str]) -> WatchMemory:
    kept = WatchMemory(NAME, store)
    assert asyncio.run(kept.read()) is None
    asyncio.run(kept.write(wanted))
    return kept


@pytest.mark.parametrize("count", [0, 3, memory.MANY + 1])
def test_what_was_written_is_read_by_another_one(count: int) -> None:
    store = AssetStateStore()
    write(store, marks(count))
    assert asyncio.run(WatchMemory(NAME, store).read()) == marks(count)


def test_without_a_store_only_by_itself() -> None:
    kept = write(None, marks(3))
    assert asyncio.run(kept.read()) == marks(3)
    assert asyncio.run(WatchMemory(NAME, None).read()) is None


@pytest.mark.parametrize("lost", [f"{NAME}.4.2", NAME])
def test_where_a_value_is_lost_nothing_is_known(lost: str) -> None:
    store = AssetStateStore()
    write(store, marks(memory.MANY + 1))
    del store.values[lost]
    assert asyncio.run(WatchMemory(NAME, store).read()) is None
