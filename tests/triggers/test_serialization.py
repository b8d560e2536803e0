"""The stored form of a trigger: through Airflow's serializer and back, without secrets, readable by later versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.models.trigger import Trigger

from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator
from airflow_provider_astrobpm.sensors.bpm import AstroZeroBpmInstanceSensor
from airflow_provider_astrobpm.triggers.base import WaitingTrigger
from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmBatchTrigger, AstroZeroBpmInstanceTrigger

try:
    from airflow.sdk.serde import serialize
    from airflow.serialization.decoders import smart_decode_trigger_kwargs as decode
except ImportError:  # before Airflow 3.2 the arguments are passed unchanged, and the database serializes them

    def serialize(value: Any) -> Any:  # type: ignore[no-redef]
        return value

    decode = serialize

STORED = sorted((Path(__file__).parent / "serialized").glob("*.json"))
COMMON: dict[str, Any] = {
    "astro_zero_conn_id": "my_conn",
    "states": ["Completed OK"],
    "bp_statuses": ["Onboarded"],
    "failed_states": ["Paused"],
    "failed_bp_statuses": ["Rejected"],
    "on_suspended": "fail",
    "poll_interval": 30.0,
    "deadline": 1795393267.48,
    "deadline_argument": "execution_timeout",
    "max_poll_failure_time": 900.0,
    "terminate_on_kill": True,
}
BATCH: dict[str, Any] = {
    **COMMON,
    "task_key": {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": -1},
    "batch_key": "dag.task.run-zld2ojgxmkbhmtqy-1-",
    "may_fail": 3,
}
FULL: dict[str, Any] = {
    **COMMON,
    "instance_id": "002N000000Sy2NphoRbU",
    "business_key": "supplier-ACME",
    "bpm_name": "SupplierOnboarding",
    "seen": {
        "id": "002N000000Sy2NphoRbU",
        "name": "SupplierOnboarding",
        "state": "Running",
        "suspended": False,
    },
}
TRIGGERS: dict[str, Any] = {
    f"airflow_provider_astrobpm.triggers.bpm.{kind.__name__}": kind
    for kind in (AstroZeroBpmBatchTrigger, AstroZeroBpmInstanceTrigger)
}


def through_airflow(trigger: WaitingTrigger) -> WaitingTrigger:
    """Return the trigger that a triggerer creates from what the worker sends and the database stores."""
    path, arguments = trigger.serialize()
    sent = json.loads(json.dumps(serialize(arguments)))
    stored = Trigger(classpath=path, kwargs=sent)
    arguments = {name: decode(value) for name, value in stored.kwargs.items()}  # type: ignore[no-untyped-call]
    made: WaitingTrigger = TRIGGERS[path](**arguments)
    return made


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (AstroZeroBpmInstanceTrigger, FULL),
        (AstroZeroBpmInstanceTrigger, {"astro_zero_conn_id": "my_conn", "instance_id": "1"}),
        (AstroZeroBpmInstanceTrigger, {"astro_zero_conn_id": "c", "business_key": "k"}),
        (AstroZeroBpmBatchTrigger, BATCH),
    ],
    ids=["full", "id", "key", "batch"],
)
def test_a_trigger_survives_the_round_trip(kind: Any, arguments: dict[str, Any]) -> None:
    trigger = kind(**arguments)
    assert through_airflow(trigger).serialize() == trigger.serialize()


@pytest.mark.parametrize(
    ("kind", "arguments"), [(AstroZeroBpmInstanceTrigger, FULL), (AstroZeroBpmBatchTrigger, BATCH)]
)
def test_every_argument_is_stored(kind: Any, arguments: dict[str, Any]) -> None:
    assert kind(**arguments).serialize()[1] == arguments


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_reads_what_an_earlier_version_stored(path: Path) -> None:
    stored = json.loads(path.read_text(encoding="utf-8"))
    path_now, arguments = TRIGGERS[stored["classpath"]](**stored["kwargs"]).serialize()
    assert path_now == stored["classpath"]
    assert {name: arguments[name] for name in stored["kwargs"]} == stored["kwargs"]


def test_stored_fixtures_exist() -> None:
    assert STORED


def test_no_secret_is_stored(
    emulator: EmulatorControl, emulator_server: EmulatorServer, make_runner: Any
) -> None:
    runner = make_runner()
    instance = emulator.start("PublishApproval")
    tasks = (
        lambda: AstroZeroStartBpmInstanceOperator(
            task_id="task", bpm_name="PublishApproval", deferrable=True, poll_interval=1, timeout=0.1
        ),
        lambda: AstroZeroBpmInstanceSensor(
            task_id="task", instance_id=instance["id"], deferrable=True, poke_interval=1, timeout=0.1
        ),
    )
    for task in tasks:
        runner.end_of(task)
    assert len(runner.deferrals) == 2
    for deferral in runner.deferrals:
        stored = json.dumps([deferral.trigger.serialize(), deferral.kwargs, runner.event])
        assert emulator_server.settings.client_secret not in stored
        assert "token" not in stored
        assert emulator_server.settings.client_secret not in repr(deferral.trigger)
