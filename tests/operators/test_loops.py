"""Tasks of a loop (Airflow 3.4) against the emulator: each iteration has its own instances.

Airflow is played here; ``tests/next`` has a real one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroStartBpmBatchOperator,
    AstroZeroStartBpmInstanceOperator,
)
from airflow_provider_astrobpm.starting.business_keys import BatchKey, Region, TaskIdentity
from tests.support.task_instance import FakeTaskInstance

BPM, RETRIES = "SupplierOnboarding", 3
REGION, FORK = UUID("01a22064-3a54-7e6c-8d88-3d22bab58d7d"), UUID("01a22064-4d94-7b8e-b0ef-9d7314a03f65")

Kind = Callable[[], Any]


def start() -> AstroZeroStartBpmInstanceOperator:
    return AstroZeroStartBpmInstanceOperator(
        task_id="approve", bpm_name=BPM, retries=RETRIES, deferrable=True
    )


def batch() -> AstroZeroStartBpmBatchOperator:
    return AstroZeroStartBpmBatchOperator(
        task_id="approve", launches=[{"bpm_name": BPM}], retries=RETRIES, deferrable=True
    )


both = pytest.mark.parametrize("make", [start, batch], ids=["one", "a batch"])


class Iteration(FakeTaskInstance):
    """A task instance of a loop, or a mapped one. It has no task state store, so only its key counts."""

    def __init__(self, region_id: UUID, region_index: int, *, map_index: int = -1) -> None:
        super().__init__("review.approve", retries=RETRIES)
        self.region_id, self.region_index, self.map_index = region_id, region_index, map_index

    def waits_after(self, make: Kind, try_number: int) -> TaskDeferred:
        """Run a try until it is deferred."""
        self.try_number = try_number
        self.xcoms.clear()
        context: Any = {"ti": self, **({"loop": object()} if self.map_index < 0 else {})}
        with pytest.raises(TaskDeferred) as deferred:
            make().execute(context)
        return deferred.value


@pytest.fixture(autouse=True)
def short_grace(
    emulator: EmulatorControl, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    del emulator  # it sets its own connection first
    connection = {**json.loads(emulator_server.connection_json()), "extra": {"start_grace": 0.2}}
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))


def approve(emulator: EmulatorControl) -> None:
    (waiting,) = [one for one in emulator.instances() if one["outcomes"]]
    emulator.act(waiting["id"], "complete")
    emulator.advance(2)


@both
@pytest.mark.parametrize("later", [(REGION, 1), (FORK, 0)], ids=["the next", "again after a clear"])
def test_retry_of_an_iteration_adopts_only_its_own_instance(
    make: Kind, later: tuple[UUID, int], emulator: EmulatorControl
) -> None:
    """Its first try died before its start; the instance of the previous iteration was approved."""
    Iteration(REGION, 0).waits_after(make, 1)
    approve(emulator)
    second = Iteration(*later)
    second.waits_after(make, 2)
    closed = [one["closed"] for one in emulator.instances()]
    assert closed == [True, False]
    second.waits_after(make, 3)
    assert len(emulator.instances()) == 2, "its own retry adopts its own instance"


@both
def test_clear_of_an_iteration_terminates_only_its_own_instance(
    make: Kind, emulator: EmulatorControl
) -> None:
    Iteration(REGION, 0).waits_after(make, 1)
    second = Iteration(REGION, 1)
    second.max_tries = 1 + RETRIES  # cleared after its first try
    second.waits_after(make, 2)
    assert [one["closed"] for one in emulator.instances()] == [False, False]


@both
def test_mapped_task_outside_of_loops_ignores_its_region(make: Kind, emulator: EmulatorControl) -> None:
    """Airflow 3.3 may have mapped it, and a clear may map it again."""
    Iteration(UUID(int=0), 3, map_index=3).waits_after(make, 1)
    Iteration(REGION, 3, map_index=3).waits_after(make, 2)
    (only,) = emulator.instances()
    keys = TaskIdentity("dag", "run", "review.approve", 3)
    assert only["business_key"] == keys.key(1) or keys.read_batch(only["business_key"])


def test_business_keys_name_the_iteration(emulator: EmulatorControl) -> None:
    Iteration(REGION, 1).waits_after(start, 1)
    keys = TaskIdentity("dag", "run", "review.approve", -1, Region(str(REGION), 1))
    assert [one["business_key"] for one in emulator.instances()] == [keys.key(1)]
    Iteration(REGION, 1).waits_after(batch, 1)
    assert isinstance(keys.read_batch(emulator.instances()[-1]["business_key"]), BatchKey)


def test_batch_trigger_arguments_have_no_region() -> None:
    """Triggerers are not updated at the same time as workers, and get the region from Airflow."""
    trigger = Iteration(REGION, 1).waits_after(batch, 1).trigger
    task_key = trigger.serialize()[1]["task_key"]
    assert task_key == {"dag_id": "dag", "run_id": "run", "task_id": "review.approve", "map_index": -1}
