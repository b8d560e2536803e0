"""The stored state of a watch: complete, in few writes, and safe in a crash at any point."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_astrobpm.watching import state_codec
from airflow_provider_astrobpm.watching.targets import WatchTargets, instance_digest

NAME = "astro_bpm.w"
LARGEST_VALUE = 65_535  # bytes that Airflow's store takes by default


def entry_keys(count: int, first: int = 0) -> set[str]:
    return {f"00{instance_digest(str(number))}" for number in range(first, first + count)}


def write(store: dict[str, Any], wanted: set[str]) -> list[str]:
    """Write the entry keys, and return the store keys that were written."""
    written = []
    for key, value in [*state_codec.state_changes(NAME, wanted, dict(store))]:
        written.append(key)
        if value is None:
            del store[key]
        else:
            store[key] = value
    return written


def read(store: dict[str, Any]) -> set[str] | None:
    keys = state_codec.shard_keys(NAME, store.get(NAME))
    return None if keys is None else state_codec.decode_shards(store.get(key) for key in keys)


def test_a_store_without_a_head_is_empty() -> None:
    assert read({}) is None


@pytest.mark.parametrize(
    "head",
    [
        None,
        "1",
        {"version": 2, "shards": 1},
        {"version": 1},
        {"shards": 1},
        [],
        {"version": 1, "shards": 0},
        {"version": 1, "shards": -1},
        {"version": 1, "shards": 10**15},
        {"version": 1, "shards": True},
        {"version": 1, "shards": 1.0},
    ],
)
def test_a_store_with_a_foreign_head_is_empty(head: Any) -> None:
    store = {NAME: head}
    assert read(store) is None
    write(store, entry_keys(3))
    assert read(store) == entry_keys(3)


@pytest.mark.parametrize("count", [0, 1, 100, 4000, 4001, 50_000])
def test_reads_what_was_written(count: int) -> None:
    store: dict[str, Any] = {}
    wanted = entry_keys(count)
    assert write(store, wanted)[-1] == NAME  # the head comes last
    assert read(store) == wanted
    assert write(store, wanted) == []
    assert max(len(json.dumps(value)) for value in store.values()) <= LARGEST_VALUE


def test_one_more_entry_writes_one_value() -> None:
    store: dict[str, Any] = {}
    write(store, entry_keys(20_000))
    assert len(store) == 9
    assert len(write(store, entry_keys(20_001))) == 1
    assert read(store) == entry_keys(20_001)


def test_resharding_deletes_old_shards() -> None:
    store: dict[str, Any] = {}
    write(store, entry_keys(4000))
    assert set(store) == {NAME, f"{NAME}.1.0"}
    write(store, entry_keys(4001))
    assert set(store) == {NAME, f"{NAME}.2.0", f"{NAME}.2.1"}
    write(store, entry_keys(10))
    assert set(store) == {NAME, f"{NAME}.2.0", f"{NAME}.2.1"}
    assert read(store) == entry_keys(10)


@pytest.mark.parametrize(("before", "after"), [(None, 5), (4000, 4001), (4001, 20_000), (20_000, 20_001)])
def test_a_crash_at_any_point_loses_nothing(before: int | None, after: int) -> None:
    whole: dict[str, Any] = {}
    if before is not None:
        write(whole, entry_keys(before))
    steps = [*state_codec.state_changes(NAME, entry_keys(after), dict(whole))]
    for done in range(len(steps) + 1):
        store = dict(whole)
        for key, value in steps[:done]:
            if value is None:
                del store[key]
            else:
                store[key] = value
        known = read(store)
        if before is None:
            assert known is None or done == len(steps)
        else:
            assert known is not None
            assert entry_keys(before) <= known <= entry_keys(after)


def test_different_watches_have_different_names() -> None:
    names = {
        state_codec.state_name(connection, WatchTargets.of(name, entered, statuses))
        for connection in ("a", "b")
        for name in ("Order", "Invoice")
        for entered, statuses in [
            (None, None),
            (["Running"], None),
            (None, ["Running"]),
            (["Running"], ["x"]),
        ]
    }
    assert len(names) == 16
    assert state_codec.state_name(
        "a", WatchTargets.of("Order", ["Running", "New"], None)
    ) == state_codec.state_name("a", WatchTargets.of("Order", ["New", "Running"], None))
