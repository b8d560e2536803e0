"""The business keys of a task: readable, short, its own, and to be read back."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.bpm.identity import LONGEST_KEY, BatchKey, TaskIdentity

TASK = TaskIdentity("orders", "scheduled__2026-11-24T00:00:00+00:00", "approve")
NAMES = st.text(min_size=1, max_size=250)
IDENTITIES = st.builds(TaskIdentity, NAMES, NAMES, NAMES, st.integers(-1, 1023))


def test_a_key_tells_people_what_it_belongs_to() -> None:
    assert re.fullmatch(r"orders\.approve\.scheduled__2026-11-24T0-[a-z2-7]{16}-1", TASK.key(1))


def test_it_never_changes() -> None:
    """An instance that a version has started must be found by later ones."""
    assert TASK.key(1) == "orders.approve.scheduled__2026-11-24T0-zld2ojgxmkbhmtqy-1"
    assert TaskIdentity("d", "r", "t", 3).key(2, 2) == "d.t.3.r-7cv35cxdzj37fbpp-2.2"


@given(task=IDENTITIES, generation=st.integers(-99, 9999), launch=st.integers(1, 99))
def test_a_key_is_short_plain_and_can_be_read_back(task: TaskIdentity, generation: int, launch: int) -> None:
    key = task.key(generation, launch)
    assert len(key) <= LONGEST_KEY
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", key)
    assert task.read(key) == (generation, launch)


@given(task=IDENTITIES, other=IDENTITIES, generation=st.integers(1, 99))
def test_no_task_takes_the_key_of_another_for_its_own(
    task: TaskIdentity, other: TaskIdentity, generation: int
) -> None:
    assert (other.read(task.key(generation)) is not None) == (task == other)


@pytest.mark.parametrize(
    "key", [None, "", "k", TASK.prefix, f"{TASK.prefix}x", f"{TASK.prefix}1.", f"{TASK.key(1)} 2"]
)
def test_what_is_no_key_of_the_task(key: str | None) -> None:
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
def test_a_key_in_another_case_padded_or_behind_a_prefix_is_recognised(change: Callable[[str], str]) -> None:
    assert TASK.read(change(TASK.key(12, 3))) == (12, 3)
    key = BatchKey(1, 815, "k3xq", 2)
    assert TASK.read_batch(change(TASK.batch_key(key))) == key


@given(task=IDENTITIES, other=IDENTITIES, length=st.integers(0, 64))
def test_a_key_that_was_cut_off_resembles_those_of_its_task(
    task: TaskIdentity, other: TaskIdentity, length: int
) -> None:
    cut = task.key(7)[:length]
    if task.read(cut) is None:
        assert task.resembles(cut) is (length >= 16)
    if len(cut) > len(task.prefix) - 2 and task != other:
        assert not other.resembles(cut)
    batch_key = task.batch_key(BatchKey(1, 2, "abcd"))[:-2]
    assert task.resembles_batch(batch_key)


def test_the_keys_of_a_batch_never_change_either() -> None:
    """An instance that a version has started must be found by later ones."""
    key = TASK.batch_key(BatchKey(1, 815, "k3xq"))
    assert key == "orders.approve.scheduled__-zld2ojgxmkbhmtqy-1-815-k3xq"
    assert TASK.batch_key(BatchKey(2, 7, "aaaa", 3)).endswith("-2-7-aaaa.3")


@given(task=IDENTITIES, key=BATCH_KEYS)
def test_the_key_of_a_launch_is_short_plain_and_can_be_read_back(task: TaskIdentity, key: BatchKey) -> None:
    written = task.batch_key(key)
    assert len(written) <= LONGEST_KEY
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", written)
    assert task.read_batch(written) == key
    assert task.read(written) is None
    assert task.read_batch(task.key(1)) is None


@given(task=IDENTITIES, other=IDENTITIES, key=BATCH_KEYS)
def test_no_batch_takes_the_key_of_another_for_its_own(
    task: TaskIdentity, other: TaskIdentity, key: BatchKey
) -> None:
    assert (other.read_batch(task.batch_key(key)) is not None) == (task == other)
