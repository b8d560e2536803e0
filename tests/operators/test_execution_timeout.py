"""``execution_timeout`` on real Airflow, with its alarm: it ends a wait in every mode, with ``on_timeout``."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import airflow
import pytest
from packaging.version import Version

from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer

DAGS = Path(__file__).parent / "dags" / "limits.py"
BPM, KEY = "SupplierOnboarding", "order-4711"
MODES = [
    "start_on_worker",
    "start_deferred",
    "decorated_on_worker",
    "decorated_deferred",
    "batch_on_worker",
    "batch_deferred",
    "sensor_poke",
    "sensor_reschedule",
    "sensor_deferred",
]
ON_WORKER = ["start_on_worker", "decorated_on_worker", "batch_on_worker", "sensor_poke"]
ENDS = {"leave": (False, False), "suspend": (False, True), "terminate": (True, False)}

pytestmark = [
    pytest.mark.usefixtures("airflow_database"),
    pytest.mark.filterwarnings("ignore"),  # Airflow and its libraries emit their own warnings here
]


@pytest.fixture
def run(
    emulator: EmulatorControl,
    emulator_server: EmulatorServer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Callable[[str], tuple[str, str]]:
    """Run a DAG of ``dags/``, and return how its task ended and what was logged."""
    connection = {**json.loads(emulator_server.connection_json()), "extra": {"max_attempts": 1}}
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))
    bundle = {
        "name": "limits",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(DAGS.parent)},
    }
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))
    spec = importlib.util.spec_from_file_location("limits", DAGS)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(dag_id: str) -> tuple[str, str]:
        if dag_id.startswith("batch_deferred") and Version(airflow.__version__) < Version("3.1"):
            pytest.skip("there a trigger within dag.test() cannot read XComs")
        if dag_id.startswith("sensor"):
            emulator.start(BPM, business_key=KEY)
        (ti,) = module.DAGS[dag_id].test().get_task_instances()
        out, err = capfd.readouterr()
        return str(ti.state), out + err

    return run


@pytest.mark.parametrize(
    ("mode", "on_timeout"),
    [*((mode, "terminate") for mode in MODES), ("start_on_worker", "leave"), ("start_deferred", "suspend")],
)
def test_ends_the_wait(mode: str, on_timeout: str, run: Any, emulator: EmulatorControl) -> None:
    state, log = run(f"{mode}_{on_timeout}")
    assert state == "failed"
    assert "('execution_timeout')" in log
    assert "AirflowTaskTimeout" not in log, "the deadline of the wait came first"
    for one in emulator.instances():
        assert (one["closed"], one["suspended"]) == ENDS[on_timeout]
    assert len(emulator.instances()) == (3 if mode.startswith("batch") else 1)


@pytest.mark.parametrize("mode", ON_WORKER)
def test_ends_a_wait_whose_poll_hangs(mode: str, run: Any, emulator: EmulatorControl) -> None:
    """Airflow's alarm interrupts a poll, and counts as the deadline."""
    finding = 12 if mode.startswith("sensor") else 0  # lists of its first poll
    emulator.fault("query", "delay", seconds=6, times=1, skip=finding + 1)
    emulator.fault("get", "delay", seconds=6, times=1, skip=1)
    state, log = run(f"{mode}_terminate")
    assert state == "failed"
    assert "('execution_timeout')" in log
    assert [one["closed"] for one in emulator.instances()] == [True] * len(emulator.instances())


@pytest.mark.parametrize("mode", ON_WORKER)
def test_does_not_interrupt_the_action_of_on_timeout(mode: str, run: Any, emulator: EmulatorControl) -> None:
    """Airflow's alarm interrupts the action of ``on_timeout``, which is then repeated."""
    emulator.fault("action", "delay", seconds=6, times=1)
    state, log = run(f"{mode}_terminate")
    assert state == "failed"
    assert "('execution_timeout')" in log
    assert [one["closed"] for one in emulator.instances()] == [True] * len(emulator.instances())


@pytest.mark.parametrize("on_timeout", ENDS)
@pytest.mark.parametrize("where", ["on_worker", "deferred"])
def test_ends_a_batch_that_is_still_starting(
    where: str, on_timeout: str, run: Any, emulator: EmulatorControl
) -> None:
    emulator.fault("start", "delay", seconds=6, times=1, skip=2)
    state, log = run(f"batch_{where}_{on_timeout}")
    assert state == "failed"
    assert "AirflowTaskTimeout" in log
    assert "A retry starts only the launches of this batch that are not open" in log
    acts = "applying 'on_timeout' to the open instances" in log
    assert acts is (on_timeout != "leave")
    started = emulator.instances()[:2]
    assert [(one["closed"], one["suspended"]) for one in started] == [ENDS[on_timeout]] * 2
