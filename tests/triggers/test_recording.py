"""A failure that was recorded replays to the same error, on a worker and in a triggerer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_astrobpm.client import process_state
from airflow_provider_astrobpm.client.errors import AstroZeroError, WaitFailedError
from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator
from airflow_provider_astrobpm.sensors.bpm import AstroZeroBpmInstanceSensor
from airflow_provider_astrobpm.testing.emulator_fixture import AstroZeroEmulator
from tests.support.echoing import shown_in

DAG_FILE = Path(__file__).parent / "dags" / "recorded.py"
SUPPLIER = "Müller & Söhne 0815-4711"
KEY = "purchase-4711/Anna.Miller"
TITLE = "Purchase for Anna Miller"
VALUE = re.compile(r"'[^']*'|(?<=was lost )\([^;]*\)|\b\w*\d[\w:.]*")
"""What may differ between the two errors: quoted texts, ids, times, lengths, and how a connection was lost."""

OPTIONS: dict[str, Any] = {
    "task_id": "approval",
    "bpm_name": "SupplierOnboarding",
    "business_key": KEY,
    "title": TITLE,
    "variables": {"supplier": SUPPLIER, "amount": 48151623},
    "poll_interval": 1,
    "timeout": 60,
    "max_poll_failure_time": 0.5,
}
EXTRAS: dict[str, Any] = {"max_attempts": 2, "max_wait": 0.01, "start_grace": 0.1, "read_timeout": 1}
Arrange = Callable[[AstroZeroEmulator], object]
FAILURES: dict[str, Arrange] = {
    "refused with a message": lambda emulator: emulator.fault(
        "start", "status", status=400, res_msg=f"{TITLE} is not allowed", times=50
    ),
    "page of a gateway": lambda emulator: emulator.fault("start", "html", status=502, times=50),
    "answer of another form": lambda emulator: emulator.fault("start", "wrong_shape", times=50),
    "no JSON": lambda emulator: emulator.fault("start", "not_json", times=50),
    "connection lost": lambda emulator: emulator.fault("any", "drop_after", times=200, skip=3),
    "no answer": lambda emulator: emulator.fault("start", "delay", seconds=3, times=50),
    "half an answer": lambda emulator: emulator.fault("start", "truncate", times=50),
    "token refused": lambda emulator: emulator.fault("token", "status", status=400, times=50),
    "ends as broken": lambda emulator: emulator.breaks("SupplierOnboarding"),
    "polls fail": lambda emulator: emulator.fault(
        "query", "text", status=503, res_msg=SUPPLIER, times=500, skip=4
    ),
}


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferred"])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_recorded_failure_replays_to_the_same_error(
    failure: str, deferrable: bool, emulator: AstroZeroEmulator, tmp_path: Path, make_runner: Any
) -> None:
    folder = tmp_path / "transcripts"

    def make() -> AstroZeroStartBpmInstanceOperator:
        return AstroZeroStartBpmInstanceOperator(**OPTIONS, deferrable=deferrable)

    emulator.connect(record=str(folder), **EXTRAS)
    FAILURES[failure](emulator)
    recorded = make_runner().end_of(make)
    assert isinstance(recorded, AstroZeroError)
    emulator.reset()
    process_state.reset()

    text = "".join(file.read_text() for file in folder.glob("*.jsonl"))
    assert '"request":' in text
    for value in (SUPPLIER, KEY, TITLE, "SupplierOnboarding", "48151623", "emulator-only-secret", "supplier"):
        assert not shown_in(text, value)

    replay = emulator.replay(folder)
    emulator.connect()
    replayed = make_runner().end_of(make)
    assert replay.differences == []
    assert type(replayed) is type(recorded)
    assert VALUE.sub("…", str(replayed)) == VALUE.sub("…", str(recorded))


ODD: dict[str, Arrange] = {
    "keys are cut": lambda emulator: emulator.switch(key_form="cut_50"),
    "keys in upper case": lambda emulator: emulator.switch(key_form="upper"),
    "keys are padded": lambda emulator: emulator.switch(key_form="padded"),
    "timestamps with slashes": lambda emulator: emulator.switch(start_time_form="slashes"),
    "byte order marks": lambda emulator: emulator.switch(byte_order_mark=True),
    "codes as numbers": lambda emulator: emulator.switch(numeric_codes=True),
    "a gateway in between": lambda emulator: emulator.fault("query", "html", status=503),
}


@pytest.mark.parametrize("oddity", ODD)
def test_a_recorded_search_replays_to_the_same_end(
    oddity: str, emulator: AstroZeroEmulator, tmp_path: Path, make_runner: Any
) -> None:
    """The answer to the start is lost, so the task searches for its instance among those of others."""
    folder = tmp_path / "transcripts"
    options = {name: OPTIONS[name] for name in ("task_id", "bpm_name", "title", "variables")}
    options["wait_for_completion"] = False

    def result() -> Any:
        return make_runner().end_of(lambda: AstroZeroStartBpmInstanceOperator(**options))

    emulator.start("SupplierOnboarding", business_key="another")
    emulator.connect(record=str(folder), **EXTRAS)
    ODD[oddity](emulator)
    emulator.fault("start", "drop_after")
    recorded = result()
    assert emulator.started("SupplierOnboarding")[0]["id"] in str(recorded)
    emulator.reset()
    process_state.reset()
    replay = emulator.replay(folder)
    emulator.connect()
    replayed = result()
    assert replay.differences == []
    assert type(replayed) is type(recorded)
    assert VALUE.sub("…", str(replayed)) == VALUE.sub("…", str(recorded))


def test_sensor_waits_for_the_stand_in_of_a_key_that_it_never_sends(
    emulator: AstroZeroEmulator, tmp_path: Path, make_runner: Any
) -> None:
    folder = tmp_path / "transcripts"
    emulator.connect(record=str(folder))
    emulator.start("SupplierOnboarding", business_key=KEY)
    emulator.breaks("SupplierOnboarding")

    def sensor(key: str) -> AstroZeroBpmInstanceSensor:
        return AstroZeroBpmInstanceSensor(
            task_id="wait", business_key=key, poke_interval=1, deferrable=True, timeout=60
        )

    recorded = make_runner().end_of(lambda: sensor(KEY))
    assert isinstance(recorded, WaitFailedError)
    emulator.reset()
    (stand_in,) = {
        row["businessKey"]
        for file in folder.glob("*.jsonl")
        for line in file.read_text().splitlines()
        for row in json.loads(line).get("answer", {}).get("body", {}).get("result", [])
        if "businessKey" in row
    }
    emulator.replay(folder)
    emulator.connect()
    replayed = make_runner().end_of(lambda: sensor(stand_in.removeprefix("~")))
    assert type(replayed) is type(recorded)
    assert VALUE.sub("…", str(replayed)) == VALUE.sub("…", str(recorded))


@pytest.mark.usefixtures("airflow_database")
@pytest.mark.filterwarnings("ignore")  # Airflow and its dependencies emit unrelated warnings here
@pytest.mark.parametrize("mode", ["worker", "deferred"])
def test_a_recorded_run_of_a_dag_replays_to_the_same_error(
    mode: str, emulator: AstroZeroEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = {
        "name": "recorded",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(DAG_FILE.parent)},
    }
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))
    module = SourceFileLoader("recorded", str(DAG_FILE)).load_module()
    emulator.connect(record=str(tmp_path))
    emulator.breaks("SupplierOnboarding")
    assert emulator.run(module.dags[mode]).state == "failed"
    emulator.reset()
    process_state.reset()
    replay = emulator.replay(tmp_path)
    emulator.connect()
    assert emulator.run(module.dags[mode]).state == "failed"
    assert replay.differences == []
    recorded, replayed = module.errors
    assert isinstance(recorded, WaitFailedError)
    assert isinstance(replayed, WaitFailedError)
    assert VALUE.sub("…", str(replayed)) == VALUE.sub("…", str(recorded))
