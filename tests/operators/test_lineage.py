"""The facets that OpenLineage's provider extracts from a task that has ended."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.utils.state import TaskInstanceState

from airflow_provider_astrobpm.client.errors import AstroZeroError
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroDeleteBpmInstanceOperator,
    AstroZeroQueryBpmInstancesOperator,
    AstroZeroSetBpmVariablesOperator,
    AstroZeroStartBpmBatchOperator,
    AstroZeroStartBpmInstanceOperator,
    AstroZeroSuspendBpmInstanceOperator,
)
from airflow_provider_astrobpm.sensors.bpm import AstroZeroBpmInstanceSensor
from airflow_provider_astrobpm.task_base import openlineage
from tests.support.task_instance import FakeTaskInstance

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # older releases warn about their own modules
    from airflow.providers.openlineage.extractors.manager import ExtractorManager
    from openlineage.client.serde import Serde

    from airflow_provider_astrobpm.task_base import openlineage_facets

ROOT = Path(__file__).parent.parent.parent
BPM = "SupplierOnboarding"
LINK = "https://{host}/instances/{instance_id}"


@pytest.fixture(autouse=True)
def _connection(
    emulator: EmulatorControl, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    del emulator
    connection = {**json.loads(emulator_server.connection_json()), "extra": {"instance_url": LINK}}
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))
    yield
    openlineage.is_installed.cache_clear()


def facets_of(task: Any, state: TaskInstanceState = TaskInstanceState.SUCCESS) -> dict[str, Any]:
    """Return the run facets that OpenLineage's provider sends for a task, without the fields that all facets have."""
    metadata = ExtractorManager().extract_metadata(  # type: ignore[no-untyped-call]
        dagrun=SimpleNamespace(run_id="run"),
        task=task,
        task_instance_state=state,
        task_instance=FakeTaskInstance(),
    )
    reported = {name: json.loads(Serde.to_json(facet)) for name, facet in metadata.run_facets.items()}
    for facet in reported.values():
        assert facet.pop("_producer").startswith("https://")
        assert facet.pop("_schemaURL").endswith("#/$defs/RunFacet")
    return reported


def run(task: Any, ti: FakeTaskInstance | None = None) -> Any:
    return task.execute({"ti": ti or FakeTaskInstance()})


def start(**arguments: Any) -> AstroZeroStartBpmInstanceOperator:
    return AstroZeroStartBpmInstanceOperator(
        task_id="task", **{"bpm_name": BPM, "poll_interval": 1, **arguments}
    )


def place(server: EmulatorServer) -> str:
    return server.url.removeprefix("http://")


def test_start_reports_its_instance(emulator: EmulatorControl, emulator_server: EmulatorServer) -> None:
    task = start(wait_for_completion=False)
    result = run(task)
    host = place(emulator_server)
    assert facets_of(task) == {
        "astroBpm_instance": {
            "host": host,
            "instanceId": result["id"],
            "bpmName": BPM,
            "version": result["version"],
            "state": result["state"],
            "businessStatus": result["bp_status"],
            "businessKey": result["business_key"],
            "url": f"https://{host}/instances/{result['id']}",
        }
    }
    assert emulator.instance(result["id"])


def end_of(task: Any, resumed: Any, fire: Callable[[Any], Any], move: Callable[[], object]) -> Any:
    """Let a task defer, run its trigger, and return the result of the operator that resumes it."""
    ti = FakeTaskInstance()
    with pytest.raises(TaskDeferred) as deferred:
        run(task, ti)
    move()
    event = fire(deferred.value.trigger)
    return resumed.resume_execution("execute_complete", {"event": event}, {"ti": ti})


@pytest.mark.parametrize(("state", "status"), [("Completed OK", "Approved"), ("Terminated", "Rejected")])
def test_deferred_start_reports_the_final_state(
    state: str, status: str, emulator: EmulatorControl, fire: Any
) -> None:
    def move() -> None:
        emulator.move(emulator.instances()[0]["id"], state=state, bp_status=status)

    resumed = start(deferrable=True)
    ends = TaskInstanceState.SUCCESS
    try:
        end_of(start(deferrable=True), resumed, fire, move)
    except AstroZeroError:
        ends = TaskInstanceState.FAILED
    assert (ends is TaskInstanceState.FAILED) == (state == "Terminated")
    reported = facets_of(resumed, ends)["astroBpm_instance"]
    assert (reported["state"], reported["businessStatus"]) == (state, status)
    assert reported["instanceId"] == emulator.instances()[0]["id"]


def test_failed_resume_without_a_poll_reports_the_instance_id(emulator: EmulatorControl) -> None:
    ti = FakeTaskInstance()
    with pytest.raises(TaskDeferred):
        run(start(deferrable=True), ti)
    resumed = start(deferrable=True)
    with pytest.raises(AstroZeroError):
        resumed.resume_execution("execute_complete", {"event": {"unknown": 1}}, {"ti": ti})  # type: ignore[typeddict-item]
    reported = facets_of(resumed, TaskInstanceState.FAILED)["astroBpm_instance"]
    assert (reported["instanceId"], reported["bpmName"]) == (emulator.instances()[0]["id"], BPM)
    assert "state" not in reported


@pytest.mark.parametrize("deferrable", [True, False])
def test_sensor_reports_its_instance(deferrable: bool, emulator: EmulatorControl) -> None:
    instance_id = emulator.start(BPM)["id"]
    emulator.move(instance_id, state="Terminated")
    task = AstroZeroBpmInstanceSensor(task_id="task", instance_id=instance_id, deferrable=deferrable)
    with pytest.raises(AstroZeroError):
        run(task)
    reported = facets_of(task, TaskInstanceState.FAILED)["astroBpm_instance"]
    assert (reported["instanceId"], reported["state"]) == (instance_id, "Terminated")


def test_change_operators_report_their_instance(emulator: EmulatorControl) -> None:
    instance_id = emulator.start(BPM)["id"]
    suspend = AstroZeroSuspendBpmInstanceOperator(task_id="task", instance_id=instance_id)
    variables = AstroZeroSetBpmVariablesOperator(
        task_id="task", instance_id=instance_id, variables={"remark": "x"}
    )
    delete = AstroZeroDeleteBpmInstanceOperator(task_id="task", instance_id=instance_id)
    for task in (suspend, variables, delete):
        run(task)
        assert facets_of(task)["astroBpm_instance"]["instanceId"] == instance_id
    assert facets_of(suspend)["astroBpm_instance"]["bpmName"] == BPM


@pytest.mark.parametrize("instance_id", ["", None, 5.5])
def test_bad_id_raises_the_usual_error(instance_id: Any) -> None:
    with pytest.raises(ValueError, match="instance_id"):
        run(AstroZeroSuspendBpmInstanceOperator(task_id="task", instance_id=instance_id))


def test_query_reports_counts_and_the_first_ids(emulator: EmulatorControl) -> None:
    ids = [emulator.start(BPM)["id"] for _ in range(25)]
    task = AstroZeroQueryBpmInstancesOperator(task_id="task", bpm_name=BPM)
    run(task)
    reported = facets_of(task)["astroBpm_instances"]
    assert (reported["total"], sum(reported["counts"].values())) == (25, 25)
    assert len(reported["instanceIds"]) == 20
    assert set(reported["instanceIds"]) <= set(ids)


def test_batch_reports_outcome_counts(emulator: EmulatorControl) -> None:
    task = AstroZeroStartBpmBatchOperator(
        task_id="task",
        launches=[{"bpm_name": BPM}, {"bpm_name": "NoSuchBpm"}, {"bpm_name": BPM}],
        max_failures=1,
        wait_for_completion=False,
    )
    run(task)
    reported = facets_of(task)["astroBpm_instances"]
    assert (reported["total"], reported["counts"]) == (3, {"refused": 1, "started": 2})
    assert set(reported["instanceIds"]) == {each["id"] for each in emulator.instances()}


def test_task_that_failed_early_reports_nothing() -> None:
    task = start(bpm_name="NoSuchBpm")
    with pytest.raises(AstroZeroError):
        run(task)
    assert facets_of(task, TaskInstanceState.FAILED) == {}


def test_without_the_openlineage_provider_nothing_is_kept_or_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [
        each for each in sys.modules if each.startswith(("airflow.providers.openlineage", "openlineage"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "airflow_provider_astrobpm.task_base.openlineage_facets", raising=False)
    monkeypatch.setitem(sys.modules, "airflow.providers.openlineage", None)
    monkeypatch.setitem(sys.modules, "openlineage", None)
    openlineage.is_installed.cache_clear()
    task = start(wait_for_completion=False)
    run(task)
    assert not task._run_facets
    assert "airflow_provider_astrobpm.task_base.openlineage_facets" not in sys.modules


def test_no_secret_is_reported(emulator_server: EmulatorServer) -> None:
    task = start(wait_for_completion=False)
    run(task)
    said = json.dumps(facets_of(task)) + repr(task._run_facets)
    assert emulator_server.settings.client_secret not in said
    assert emulator_server.settings.client_id not in said


DAG_FILE = """
from airflow.sdk import DAG
from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator

with DAG("one", schedule=None) as dag:
    AstroZeroStartBpmInstanceOperator(task_id="start", bpm_name="SupplierOnboarding", wait_for_completion=False)

if __name__ == "__main__":
    assert dag.test().state == "success"
"""


@pytest.mark.usefixtures("airflow_database")
def test_events_of_a_real_run_have_the_facet(tmp_path: Path, emulator: EmulatorControl) -> None:
    events = tmp_path / "events.jsonl"
    transport = {"type": "file", "log_file_path": str(events), "append": True}
    file = tmp_path / "one.py"
    file.write_text(DAG_FILE)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(file)],
        env=os.environ
        | {
            "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path),
            "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
        },
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    reported = [json.loads(line) for line in events.read_text().splitlines()]
    sent = [
        event["run"]["facets"]["astroBpm_instance"]
        for event in reported
        if event["eventType"] == "COMPLETE" and "astroBpm_instance" in event["run"].get("facets", {})
    ]
    assert [facet["instanceId"] for facet in sent] == [each["id"] for each in emulator.instances()]


@pytest.mark.parametrize(
    ("facet", "fields"),
    [
        (openlineage.INSTANCE, attrs.fields(openlineage_facets.AstroBpmInstanceRunFacet)),
        (openlineage.INSTANCES, attrs.fields(openlineage_facets.AstroBpmInstancesRunFacet)),
    ],
)
def test_documentation_names_every_field(facet: str, fields: tuple[attrs.Attribute[Any], ...]) -> None:
    page = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    (row,) = (line for line in page.splitlines() if line.startswith(f"| `{facet}` |"))
    documented = row.strip("| ").split("|")[-1]
    own = {field.name for field in fields if not field.name.startswith("_")}
    assert set(re.findall(r"`(\w+)`", documented)) == own
