"""The record that the tries of a task share: one that is damaged is an error, and decides nothing."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_astrobpm.batches.batch_record import BatchRecord
from airflow_provider_astrobpm.client.errors import AstroZeroError
from airflow_provider_astrobpm.starting.decision import StartRecord
from airflow_provider_astrobpm.task_base.task_state_record import STORE_KEYS, TaskStateRecord
from tests.support.stores import TaskStateStore
from tests.support.task_instance import FakeTaskInstance


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("kind", [StartRecord, BatchRecord])
@pytest.mark.parametrize(
    "damaged",
    [
        {},
        [],
        {"generation": "1"},
        {"generation": 1, "since": float("nan")},
        {"generation": 1, "since": -1.0},
        {"generation": 1, "deadline": 1e300},
        {"generation": 1, "deadline": float("inf")},
        {"generation": nested(100_000)},
        {"generation": 1, "x": nested(100_000)},
    ],
)
def test_a_damaged_record_is_an_error(kind: Any, damaged: Any) -> None:
    ti = FakeTaskInstance(store=TaskStateStore({STORE_KEYS[kind]: damaged}))
    with pytest.raises(AstroZeroError, match="record of an earlier try .* cannot be read"):
        TaskStateRecord(ti.context, kind).read()


@pytest.mark.parametrize("met", ["zz", "-ff", "", "FF", "f\n", "f" * 20_000])
def test_damaged_marks_of_launches_are_an_error(met: str) -> None:
    ti = FakeTaskInstance(store=TaskStateStore({STORE_KEYS[BatchRecord]: {"generation": 1, "met": met}}))
    with pytest.raises(AstroZeroError, match="cannot be read"):
        TaskStateRecord(ti.context, BatchRecord).read()


def test_as_many_launches_as_a_record_marks_are_read_again() -> None:
    record = BatchRecord(generation=1).failed(unfinished=True, met=range(59_999))
    store = TaskStateStore({STORE_KEYS[BatchRecord]: {"generation": 1, "met": record.met}})
    found = TaskStateRecord(FakeTaskInstance(store=store).context, BatchRecord).read()
    assert found is not None
    assert found.satisfied_launches() == frozenset(range(59_999))


def test_a_text_that_cannot_be_stored_again_is_cleaned() -> None:
    written = {"generation": 1, "instance_id": "002N\ud800"}
    ti = FakeTaskInstance(store=TaskStateStore({STORE_KEYS[StartRecord]: written}))
    found = TaskStateRecord(ti.context, StartRecord).read()
    assert found == StartRecord(generation=1, instance_id="002N\ufffd")
