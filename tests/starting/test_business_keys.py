"""Tests of the business keys of a task: readable, short, unique, and recognised again."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.starting.business_keys import (
    MAX_KEY_LENGTH,
    MAX_TITLE_LENGTH,
    BatchKey,
    Region,
    TaskIdentity,
    region_of,
)

TASK = TaskIdentity("orders", "scheduled__2026-11-24T00:00:00+00:00", "approve")
NAMES = st.text(min_size=1, max_size=250)
REGIONS = st.none() | st.builds(Region, st.uuids().map(str), st.integers(0, 1023))
IDENTITIES = st.builds(TaskIdentity, NAMES, NAMES, NAMES, st.integers(-1, 1023), REGIONS)
REGION = "01a22064-3a54-7e6c-8d88-3d22bab58d7d"
FORK = "01a22064-4d94-7b8e-b0ef-9d7314a03f65"


def test_a_key_is_readable() -> None:
    assert re.fullmatch(r"orders\.approve\.scheduled__2026-11-24T0-[a-z2-7]{16}-1", TASK.key(1))


def test_keys_never_change() -> None:
    """Later versions must find the instances of this one."""
    assert TASK.key(1) == "orders.approve.scheduled__2026-11-24T0-zld2ojgxmkbhmtqy-1"
    assert TaskIdentity("d", "r", "t", 3).key(2, 2) == "d.t.3.r-7cv35cxdzj37fbpp-2.2"


def test_each_iteration_of_a_loop_has_its_own_keys() -> None:
    first, second, again = (
        TaskIdentity("orders", "manual__1", "review.approve", -1, Region(*region))
        for region in ((REGION, 0), (REGION, 1), (FORK, 1))
    )
    assert first.key(1) == "orders.review.approve.loop0.manual__1-mezfpra6jes27dbb-1"
    assert second.key(1) == "orders.review.approve.loop1.manual__1-fbcgzyrfqflxefpt-1"
    assert again.key(1) == "orders.review.approve.loop1.manual__1-b6e4ahzjmo4bekds-1"
    mapped = TaskIdentity("orders", "manual__1", "review.approve", 3, Region(REGION, 3))
    assert mapped.key(1) == "orders.review.approve.3.manual__1-tctlvouoat5ay7z2-1"
    batch = second.batch_key(BatchKey(1, 815, "k3xq"))
    assert batch == "orders.review.approve.loop-fbcgzyrfqflxefpt-1-815-k3xq"


def in_loop(depth: int) -> Any:
    """Return a task in a group in a loop, or in a nested group."""
    group = SimpleNamespace(max_iterations=3, parent_group=SimpleNamespace(parent_group=None))
    for _ in range(depth):
        group = SimpleNamespace(parent_group=group)
    return SimpleNamespace(task_group=group)


OUTSIDE = SimpleNamespace(task_group=SimpleNamespace(parent_group=None))


@pytest.mark.parametrize(
    ("fields", "context", "region"),
    [
        ({"map_index": -1}, {}, None),
        ({"map_index": None}, {}, None),
        ({"map_index": -1, "region_id": None, "region_index": None}, {}, None),
        ({"map_index": -1, "region_id": UUID(int=0), "region_index": -1}, {}, None),
        ({"map_index": 2, "region_id": UUID(int=0), "region_index": 2}, {}, None),
        ({"map_index": 2, "region_id": UUID(REGION), "region_index": 2}, {}, None),
        ({"map_index": 2, "region_id": UUID(REGION), "region_index": 2, "task": OUTSIDE}, {}, None),
        ({"map_index": 0, "region_id": REGION, "region_index": 0}, {"loop": None}, None),
        ({"map_index": -1, "region_id": UUID(REGION), "region_index": 1}, {"loop": object()}, (REGION, 1)),
        ({"map_index": -1, "region_id": REGION, "region_index": 0}, {}, (REGION, 0)),
        ({"map_index": None, "region_id": REGION, "region_index": 0}, {}, (REGION, 0)),
        ({"map_index": 2, "region_id": UUID(REGION), "region_index": 2}, {"loop": ()}, (REGION, 2)),
        ({"map_index": 2, "region_id": REGION, "region_index": 2, "task": in_loop(0)}, {}, (REGION, 2)),
        ({"map_index": 2, "region_id": REGION, "region_index": 2, "task": in_loop(2)}, {}, (REGION, 2)),
    ],
)
def test_only_looped_tasks_have_a_region(
    fields: dict[str, Any], context: dict[str, Any], region: tuple[str, int] | None
) -> None:
    """The region that Airflow 3.4 gives a mapped task outside of loops must not change its keys."""
    assert region_of(SimpleNamespace(**fields), context) == region


@given(task=IDENTITIES, generation=st.integers(-99, 9999), launch=st.integers(1, 99))
def test_a_key_is_short_plain_and_can_be_read_back(task: TaskIdentity, generation: int, launch: int) -> None:
    key = task.key(generation, launch)
    assert len(key) <= MAX_KEY_LENGTH
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", key)
    assert task.read(key) == (generation, launch)


@given(task=IDENTITIES, other=IDENTITIES, generation=st.integers(1, 99))
def test_a_task_does_not_recognise_the_key_of_another(
    task: TaskIdentity, other: TaskIdentity, generation: int
) -> None:
    assert (other.read(task.key(generation)) is not None) == (task == other)


@pytest.mark.parametrize(
    "key", [None, "", "k", TASK.prefix, f"{TASK.prefix}x", f"{TASK.prefix}1.", f"{TASK.key(1)} 2"]
)
def test_does_not_recognise_other_keys(key: str | None) -> None:
    assert TASK.read(key) is None


BATCH_KEYS = st.builds(
    BatchKey,
    st.integers(-9, 999),
    st.integers(1, 9_999_999),
    st.from_regex(r"\A[a-z2-7]{4}\Z"),
    st.integers(1, 99),
)


@pytest.mark.parametrize(
    "change", [str.upper, str.title, "  {}  ".format, "ASTRO:{}".format, "T1-{} ".format]
)
def test_recognises_a_key_in_another_case_padded_or_prefixed(change: Callable[[str], str]) -> None:
    assert TASK.read(change(TASK.key(12, 3))) == (12, 3)
    key = BatchKey(1, 815, "k3xq", 2)
    assert TASK.read_batch(change(TASK.batch_key(key))) == key


@pytest.mark.parametrize("added", ["a", "a" * 16, "a" * 30 + "."])
def test_resembles_itself_behind_a_prefix_that_looks_like_its_own_beginning(added: str) -> None:
    """The server may put anything in front of a key."""
    task = TaskIdentity("a" * 20, "r", "approve")
    for key in (task.key(1), task.key(1)[:30]):
        assert task.resembles(added + key)
    assert task.read(added + task.key(1)) == (1, 1)


@given(task=IDENTITIES, other=IDENTITIES, length=st.integers(0, 64))
def test_a_cut_off_key_resembles_the_keys_of_its_task(
    task: TaskIdentity, other: TaskIdentity, length: int
) -> None:
    cut = task.key(7)[:length]
    if task.read(cut) is None:
        assert task.resembles(cut) is (length >= 16)
    if len(cut) > len(task.prefix) - 2 and task != other:
        assert not other.resembles(cut)
    batch_key = task.batch_key(BatchKey(1, 2, "abcd"))[:-2]
    assert task.resembles_batch(batch_key)


def test_keys_of_a_batch_never_change() -> None:
    """Later versions must find the instances of this one."""
    key = TASK.batch_key(BatchKey(1, 815, "k3xq"))
    assert key == "orders.approve.scheduled__-zld2ojgxmkbhmtqy-1-815-k3xq"
    assert TASK.batch_key(BatchKey(2, 7, "aaaa", 3)).endswith("-2-7-aaaa.3")


@given(task=IDENTITIES, key=BATCH_KEYS)
def test_the_key_of_a_launch_is_short_plain_and_can_be_read_back(task: TaskIdentity, key: BatchKey) -> None:
    written = task.batch_key(key)
    assert len(written) <= MAX_KEY_LENGTH
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", written)
    assert task.read_batch(written) == key
    assert task.read(written) is None
    assert task.read_batch(task.key(1)) is None


@given(task=IDENTITIES, other=IDENTITIES, key=BATCH_KEYS)
def test_a_batch_does_not_recognise_the_key_of_another(
    task: TaskIdentity, other: TaskIdentity, key: BatchKey
) -> None:
    assert (other.read_batch(task.batch_key(key)) is not None) == (task == other)


class TestTitle:
    """The title that people read in their to-do lists."""

    def test_names_dag_task_and_run(self) -> None:
        run = "(run scheduled__2026-11-24T00:00:00+00:00)"
        assert TASK.title() == f"orders.approve {run}"
        assert TASK.title(815) == f"orders.approve #815 {run}"
        mapped = TaskIdentity("orders", "r", "approve", 3)
        assert mapped.title() == "orders.approve.3 (run r)"
        assert (
            TaskIdentity("orders", "r", "approve", -1, Region(REGION, 1)).title()
            == "orders.approve.loop1 (run r)"
        )

    @given(task=IDENTITIES, number=st.none() | st.integers(1, 10_000))
    def test_is_never_long_and_always_ends_with_the_run(self, task: TaskIdentity, number: int | None) -> None:
        title = task.title(number)
        assert len(title) <= MAX_TITLE_LENGTH
        assert f"(run {task.run_id[:50]}" in title
        if number is not None:
            assert f" #{number} (run " in title


@pytest.mark.parametrize("digits", [10, 5000])
def test_a_number_that_is_too_long_is_not_read_and_leaves_a_doubt(digits: int) -> None:
    key, batch_key = f"{TASK.prefix}{'1' * digits}", f"{TASK.batch_prefix}1-{'1' * digits}-abcd"
    assert TASK.read(key) is None
    assert TASK.resembles(key)
    assert TASK.read_batch(batch_key) is None
    assert TASK.resembles_batch(batch_key)
