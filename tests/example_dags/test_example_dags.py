"""Every example DAG, run by ``dag.test()`` on a real database, with a simulated person at the emulator."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import airflow
import pytest
from packaging.version import Version

from airflow_provider_astrobpm._airflow.version_compat import has_reschedules
from airflow_provider_astrobpm.client.errors import RefusedError, ServerError
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl

FOLDER = Path(__file__).parent.parent.parent / "example_dags"

pytestmark = [
    pytest.mark.usefixtures("airflow_database"),
    pytest.mark.filterwarnings("ignore"),  # Airflow and its libraries emit their own warnings here
]


def load(name: str) -> Any:
    """Return the DAG of an example file."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)()


def run(dag: Any, **options: Any) -> tuple[str, dict[str, str]]:
    """Run a DAG, and return its state and the state of each task."""
    dag_run = dag.test(**options)
    tasks = {
        f"{ti.task_id}[{ti.map_index}]" if ti.map_index >= 0 else ti.task_id: str(ti.state)
        for ti in dag_run.get_task_instances()
    }
    return str(dag_run.state), tasks


@contextmanager
def person(emulator: EmulatorControl, act: Callable[[dict[str, Any]], object]) -> Iterator[list[str]]:
    """While the block runs, act on each instance that waits for a person."""
    done: list[str] = []
    over = Event()

    def watch() -> None:
        while not over.wait(0.1):
            for instance in emulator.instances(state="Waiting for user interaction"):
                if instance["id"] not in done:
                    act(instance)
                    done.append(instance["id"])

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield done
        finally:
            over.set()
            watching.result(30)


@pytest.mark.parametrize(
    ("outcome", "ran", "not_run"), [("approve", "publish", "roll_back"), ("reject", "roll_back", "publish")]
)
def test_approval_gate(outcome: str, ran: str, not_run: str, emulator: EmulatorControl) -> None:
    dag = load("approval_gate")
    dag.get_task("request_approval").poll_interval = 1
    with person(emulator, lambda instance: emulator.act(instance["id"], outcome)):
        state, tasks = run(dag)
    assert (state, tasks[ran], tasks[not_run]) == ("success", "success", "skipped")
    (instance,) = emulator.instances()
    assert instance["variables"]["dataset"] == "sales_daily"
    assert instance["title"].startswith("Publish sales_daily of ")
    assert "{{" not in instance["title"]


@pytest.mark.parametrize("end", ["Broken", "Terminated"])
def test_approval_gate_stays_shut_if_the_instance_fails(end: str, emulator: EmulatorControl) -> None:
    dag = load("approval_gate")
    dag.get_task("request_approval").poll_interval = 1
    with person(emulator, lambda instance: emulator.move(instance["id"], state=end)):
        state, tasks = run(dag)
    assert (state, tasks["request_approval"], tasks["publish"]) == ("failed", "failed", "upstream_failed")
    assert tasks["roll_back"] == "success"


@pytest.mark.long
def test_nightly_launch(emulator: EmulatorControl) -> None:
    dag = load("nightly_launch")
    state, tasks = run(dag)
    assert state == "success"
    assert [tasks[f"launch[{index}]"] for index in range(3)] == ["success"] * 3
    assert {instance["variables"]["ledger"] for instance in emulator.instances()} == {"EU", "US", "CN"}
    assert all(instance["variables"]["business_date"] for instance in emulator.instances())


class TestMaintenanceWindow:
    @pytest.fixture
    def instances(self, emulator: EmulatorControl) -> tuple[str, str, str]:
        """Return two running instances and one that a person has suspended."""
        running, another, held = (emulator.start("SupplierOnboarding")["id"] for _ in range(3))
        emulator.move(held, state="Suspended")
        return running, another, held

    def test_suspends_running_instances_and_resumes_them(
        self, emulator: EmulatorControl, instances: tuple[str, str, str]
    ) -> None:
        state, tasks = run(load("maintenance_window"))
        assert (state, tasks["work"], tasks["window_closed"]) == ("success", "success", "success")
        acted = [
            (entry["path"].rsplit("/", 1)[1], entry["detail"])
            for entry in emulator.requests()
            if entry["kind"] == "action"
        ]
        running = set(instances[:2])
        assert {one for one, action in acted if action == "suspend"} == running
        assert {one for one, action in acted if action == "resume"} == running
        assert [emulator.instance(one)["suspended"] for one in instances] == [False, False, False]
        assert emulator.instance(instances[2])["state"] == "Suspended"

    def test_resumes_instances_even_if_the_work_fails(
        self, emulator: EmulatorControl, instances: tuple[str, str, str]
    ) -> None:
        dag = load("maintenance_window")

        def fail() -> None:
            raise RuntimeError("the work failed")

        dag.get_task("work").python_callable = fail
        state, tasks = run(dag)
        assert (state, tasks["work"], tasks["window_closed"]) == ("failed", "failed", "upstream_failed")
        assert [emulator.instance(one)["suspended"] for one in instances] == [False, False, False]
        assert emulator.instance(instances[2])["state"] == "Suspended"

    def test_without_running_instances(self, emulator: EmulatorControl) -> None:
        state, tasks = run(load("maintenance_window"))
        assert (state, tasks["work"], tasks["window_closed"]) == ("success", "success", "success")
        assert emulator.counts()["action"] == 0


def test_gate_on_instance(emulator: EmulatorControl) -> None:
    dag = load("gate_on_instance")
    dag.get_task("onboarded").poke_interval = 0.5

    def start_later() -> None:
        deadline = time.monotonic() + 60
        while not emulator.counts()["query"]:  # the gate polls before there is an instance
            assert time.monotonic() < deadline
        emulator.start("SupplierOnboarding", business_key="supplier-Globex")

    with (
        ThreadPoolExecutor(1) as pool,
        person(emulator, lambda one: emulator.act(one["id"], "complete")),
    ):
        starting = pool.submit(start_later)
        state, tasks = run(dag, run_conf={"supplier": "Globex"})
        starting.result(0)
    assert (state, tasks) == ("success", {"onboarded": "success", "load_supplier": "success"})


def load_batch_launch() -> Any:
    dag = load("batch_launch")
    reconcile = dag.get_task("reconcile")
    reconcile.poll_interval = 1
    if Version(airflow.__version__) < Version("3.1"):  # there a trigger within dag.test() cannot read XComs
        reconcile.deferrable = False
    return dag


def test_batch_launch(emulator: EmulatorControl) -> None:
    dag = load_batch_launch()
    state, tasks = run(dag, run_conf={"accounts": 150})
    assert (state, tasks) == (
        "success",
        {"accounts": "success", "reconcile": "success", "publish": "success"},
    )
    ledgers = sorted(instance["variables"]["ledger"] for instance in emulator.instances())
    assert ledgers == sorted(f"account-{number}" for number in range(150))
    assert emulator.counts()["start"] == 150


def test_batch_launch_stays_shut_if_too_many_fail(emulator: EmulatorControl) -> None:
    dag = load_batch_launch()
    reconcile = dag.get_task("reconcile")
    reconcile.retries, reconcile.bpm_name = 0, "AlwaysBroken"
    state, tasks = run(dag, run_conf={"accounts": 3})
    assert (state, tasks["reconcile"], tasks["publish"]) == ("failed", "failed", "upstream_failed")
    assert {instance["state"] for instance in emulator.instances()} == {"Broken"}


@pytest.mark.parametrize(
    ("outcome", "state", "published"),
    [("approve", "success", "success"), ("reject", "failed", "upstream_failed")],
)
def test_taskflow_gate(outcome: str, state: str, published: str, emulator: EmulatorControl) -> None:
    dag = load("taskflow_gate")
    dag.get_task("approval").poll_interval = 1
    with person(emulator, lambda instance: emulator.act(instance["id"], outcome)):
        ended, tasks = run(dag)
    assert (ended, tasks["publish"]) == (state, published)
    (instance,) = emulator.instances()
    assert (instance["variables"]["dataset"], instance["variables"]["row_count"]) == ("sales_daily", 18204)


def test_gate_through_outages(emulator: EmulatorControl) -> None:
    dag = load("gate_through_outages")
    task = dag.get_task("approval")
    task.poll_interval, task.retries = 1, 0
    with person(emulator, lambda instance: emulator.act(instance["id"], "approve")):
        assert run(dag)[0] == "success"
    assert run(dag, run_conf={"dataset": "no_such"}) == (
        "failed",
        {"approval": "failed", "publish": "upstream_failed"},
    )
    assert [each["variables"]["dataset"] for each in emulator.instances()] == ["sales_daily"]


@pytest.mark.skipif(not has_reschedules(), reason="chains of policies need Airflow 3.4")
def test_gate_through_outages_asks_both_policies() -> None:
    policy = load("gate_through_outages").get_task("approval").retry_policy
    errors = (
        ServerError("it is down"),
        RefusedError("no"),
        ConnectionError("it is down"),
        KeyError("no_such"),
    )
    actions = [policy.evaluate(error, 1, 3).action.value for error in (*errors, RuntimeError("other"))]
    assert actions == ["reschedule", "fail", "reschedule", "fail", "default"]


def test_incident_on_failure(emulator: EmulatorControl) -> None:
    dag = load("incident_on_failure")
    reconcile = dag.get_task("reconcile")
    reconcile.poll_interval, reconcile.retries = 1, 0
    state, _ = run(dag)
    assert state == "success"
    assert {instance["name"] for instance in emulator.instances()} == {"NightlyReconciliation"}
    reconcile.bpm_name = "AlwaysBroken"
    state, _ = run(dag)
    assert state == "failed"
    (incident,) = (one for one in emulator.instances() if one["name"] == "IncidentReview")
    assert incident["title"] == "incident_on_failure has failed"
    assert incident["variables"]["source"] == "incident_on_failure"
    assert incident["business_key"].startswith("incident.incident_on_failure.")


def test_every_example_has_a_test() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == {
        "approval_gate",
        "batch_launch",
        "nightly_launch",
        "maintenance_window",
        "gate_on_instance",
        "incident_on_failure",
        "taskflow_gate",
        "gate_through_outages",
        # In tests/deployment, because dag.test() runs no watcher, and has no page on which a person could answer:
        "onboarded_suppliers",
        "two_approvals",
    }
