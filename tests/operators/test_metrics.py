"""The metrics of starts, adoptions, starts in doubt and kills."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from airflow_provider_astrobpm._airflow import stats, user_action
from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.client.metrics import BufferedMeter
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroStartBpmBatchOperator,
    AstroZeroStartBpmInstanceOperator,
)
from airflow_provider_astrobpm.triggers import base
from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmInstanceTrigger
from tests.support.task_instance import FakeTaskInstance

BPM = "SupplierOnboarding"


@pytest.fixture
def tally(
    monkeypatch: pytest.MonkeyPatch, emulator: EmulatorControl, emulator_server: EmulatorServer
) -> BufferedMeter:
    """The metrics, including those of the separate meter of a kill; with a connection whose starts are visible at once."""
    del emulator
    counted = BufferedMeter()

    def hand_over(other: BufferedMeter) -> None:
        for (name, tags), amount in other.take()[0].items():
            counted.count(name, amount, **dict(tags))

    monkeypatch.setattr(stats, "meter", lambda: counted)
    monkeypatch.setattr(stats, "flush_buffer", hand_over)
    connection = {**json.loads(emulator_server.connection_json()), "extra": {"start_grace": 0.1}}
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))
    return counted


def of_starts(tally: BufferedMeter) -> dict[str, int]:
    """Return the metrics of starts, and the numbers of sent starts and terminations."""
    wanted = {"starts", "adoptions", "ambiguous_starts", "kills", "requests.start", "requests.terminate"}
    counted = {".".join((name, *dict(tags).values())): n for (name, tags), n in tally.take()[0].items()}
    return {name: n for name, n in counted.items() if name in wanted}


def try_it(ti: FakeTaskInstance, operator: Any) -> Any:
    ti.begin_try()
    return operator.execute({"ti": ti})


def start(**arguments: Any) -> AstroZeroStartBpmInstanceOperator:
    return AstroZeroStartBpmInstanceOperator(
        task_id="start", retries=5, **{"bpm_name": BPM, "wait_for_completion": False, **arguments}
    )


def start_batch(count: int, **arguments: Any) -> AstroZeroStartBpmBatchOperator:
    return AstroZeroStartBpmBatchOperator(
        task_id="start",
        launches=[{"bpm_name": BPM}] * count,
        retries=5,
        **{"wait_for_completion": False, **arguments},
    )


def test_counts_a_start(tally: BufferedMeter) -> None:
    try_it(FakeTaskInstance("start", try_number=0, retries=5), start())
    assert of_starts(tally) == {"starts": 1, "requests.start": 1}


def test_counts_an_adoption(tally: BufferedMeter) -> None:
    ti = FakeTaskInstance("start", try_number=0, retries=5)
    try_it(ti, start())
    tally.take()
    try_it(ti, start())
    assert of_starts(tally) == {"adoptions": 1}


def test_counts_a_recovered_start_as_started(tally: BufferedMeter, emulator: EmulatorControl) -> None:
    emulator.fault("start", "drop_after")
    try_it(FakeTaskInstance("start", try_number=0, retries=5), start())
    assert of_starts(tally) == {"ambiguous_starts": 1, "starts": 1, "requests.start": 1}


def test_counts_a_start_in_doubt_and_its_adoption(tally: BufferedMeter, emulator: EmulatorControl) -> None:
    ti = FakeTaskInstance("start", try_number=0, retries=5)
    emulator.fault("start", "drop_after")
    emulator.fault("query", "status", status=403, times=100)
    with pytest.raises(errors.AmbiguousStartError):
        try_it(ti, start())
    assert of_starts(tally) == {"ambiguous_starts": 1, "requests.start": 1}
    emulator.clear_faults()
    try_it(ti, start())
    assert of_starts(tally) == {"adoptions": 1}


def test_does_not_count_a_refused_start(tally: BufferedMeter) -> None:
    with pytest.raises(errors.RefusedError):
        try_it(FakeTaskInstance("start", try_number=0, retries=5), start(bpm_name="NoSuchBpm"))
    assert of_starts(tally) == {"requests.start": 1}


def test_counts_starts_of_a_hook_without_a_task(tally: BufferedMeter, emulator: EmulatorControl) -> None:
    hook = start().hook
    hook.start_instance(BPM)
    assert of_starts(tally) == {"starts": 1, "requests.start": 1}
    emulator.fault("start", "drop_after")
    with pytest.raises(errors.AmbiguousStartError):
        hook.start_instance(BPM)
    assert of_starts(tally) == {"ambiguous_starts": 1, "requests.start": 1}


def test_counts_starts_and_adoptions_of_a_batch(tally: BufferedMeter) -> None:
    ti = FakeTaskInstance("start", try_number=0, retries=5)
    try_it(ti, start_batch(3))
    assert of_starts(tally) == {"starts": 3, "requests.start": 3}
    try_it(ti, start_batch(5))
    assert of_starts(tally) == {"adoptions": 3, "starts": 2, "requests.start": 2}


def test_counts_a_kill_on_a_worker(tally: BufferedMeter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_action, "task_state", lambda _task: "failed")
    operator = start(wait_for_completion=True, deferrable=False, timeout=0.001)
    ti = FakeTaskInstance("start", try_number=0, retries=5)
    push = ti.xcom_push

    def pushed(key: str, value: Any) -> None:
        push(key, value)
        if key == "instance_id":
            operator.on_kill()

    ti.xcom_push = pushed  # type: ignore[method-assign]
    with pytest.raises(errors.AstroZeroError):
        try_it(ti, operator)
    assert of_starts(tally) == {
        "starts": 1,
        "kills": 1,
        "requests.start": 1,
        "requests.terminate": 1,
    }


@pytest.mark.parametrize("state", ["failed", "deferred"])
def test_counts_a_kill_of_a_deferred_task_but_no_triggerer_restart(
    state: str, tally: BufferedMeter, emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance_id = emulator.start(BPM)["id"]
    monkeypatch.setattr(user_action, "task_state", lambda _task: state)
    monkeypatch.setattr(
        user_action, "published_xcom", lambda _task, _key: instance_id if state == "deferred" else None
    )
    trigger = AstroZeroBpmInstanceTrigger(
        astro_zero_conn_id="astro_zero_default", instance_id=instance_id, terminate_on_kill=True
    )
    trigger.task_instance = FakeTaskInstance("start", try_number=0, retries=5)  # type: ignore[assignment]

    async def killed() -> None:
        await trigger.on_kill()
        await asyncio.gather(*base.RUNNING_KILLS)

    asyncio.run(killed())
    assert of_starts(tally) == ({"kills": 1, "requests.terminate": 1} if state == "failed" else {})
