"""What a line of Airflow has, and what the provider does where it lacks it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from airflow_lines import ROOT
from local_stack import DATABASE_VARIABLE
from tests.matrix.conftest import INCIDENTS
from tests.matrix.runs import Begin, begins

if TYPE_CHECKING:
    from tests.matrix.conftest import LineAirflow
    from tests.matrix.runs import Run

pytestmark = pytest.mark.matrix

Observe = Callable[[str, Any], None]
ENOUGH_SECONDS = 45.0  # for ``dag.test()`` of a batch that takes a second
RUN_BATCH = """
import sys
sys.path.insert(0, {folder!r})
from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmBatchTrigger
from stories import in_one_process

run_trigger = AstroZeroBpmBatchTrigger.run

async def shown(trigger):
    print("the trigger runs", flush=True)
    async for event in run_trigger(trigger):
        yield event

AstroZeroBpmBatchTrigger.run = shown
run = in_one_process.test(run_conf={{}})
print("the run ended as", getattr(run.state, "value", run.state))
"""


def test_pythons(facts: dict[str, Any], observe: Observe) -> None:
    """Airflow's metadata lists them, and one of them runs these tasks."""
    declared = facts["pythons"]
    assert facts["python"].rpartition(".")[0] in declared
    observe("pythons", f"{declared[0]} to {declared[-1]}")


def test_record(facts: dict[str, Any], observe: Observe) -> None:
    observe("record", facts["record"])


def test_queue_of_a_watcher(facts: dict[str, Any], observe: Observe) -> None:
    observe("queue", facts["queue"])


def test_legacy_names(facts: dict[str, Any], observe: Observe) -> None:
    observe("metrics", facts["metrics"])


def test_command_line(airflow: LineAirflow, observe: Observe) -> None:
    instance = airflow.control.start("PublishApproval")
    shown = []
    for command in (["python", "-m", "airflow_provider_astrobpm"], ["airflow", "astro-zero"]):
        done = airflow.command(*command, "list", "--output", "json")
        if done.returncode != 0:
            assert "invalid choice" in done.stderr
        shown.append(done.returncode == 0 and instance["id"] in done.stdout)
    observe("command", shown)


def test_form(airflow: LineAirflow, observe: Observe) -> None:
    hooks = airflow.call("GET", "/ui/connections/hook_meta")
    (ours,) = [each for each in hooks if each["connection_type"] == "astro_zero"]
    observe("form", "access_token" in (ours["extra_fields"] or {}))


def test_example_with_approvals(airflow: LineAirflow, observe: Observe) -> None:
    """Not in the DAGs folder: the DAG processor of Airflow 3.0 imports what a file imports, and ends with this error."""
    done = airflow.command("python", str(ROOT / "example_dags" / "two_approvals.py"))
    assert done.returncode == 0 or "needs Airflow 3.1" in done.stderr
    observe("approvals", done.returncode == 0)


@begins(late=Begin("late"))
def test_notifier_for_a_deadline(
    airflow: LineAirflow, runs: dict[str, Run], facts: dict[str, Any], observe: Observe
) -> None:
    run = runs["late"]
    run.until_asked()
    reported = airflow.servers[INCIDENTS].control
    if facts["alerts"] == "airflow.sdk":
        run.until("both alerts have started a process", lambda: len(reported.instances()) >= 2 or None)
    run.decide()
    assert run.until_ended() == "success"
    observe("alerts", [facts["alerts"], sorted(each["title"] for each in reported.instances())])


@begins(loop=Begin("loop_of_one", {"dies_in": 1}, since="3.4"))
def test_task_loops(airflow: LineAirflow, runs: dict[str, Run], observe: Observe) -> None:
    error = airflow.refused().get("loops.py")
    if error is not None:
        assert "has no attribute 'loop'" in error
        observe("loops", False)
        return
    run = runs["loop"]
    run.until_iteration(0, started=1)
    run.decide()
    run.until_iteration(1, started=2)
    assert {task["try_number"] for task in run.iteration(1)} == {2}
    assert run.one("publish")["state"] is None
    shown = {key: run.value(key, task=run.iteration(1)[0]) for key in ("instance_id", "business_key")}
    (own,) = run.still_open
    assert shown == {"instance_id": own["id"], "business_key": own["business_key"]}
    assert own["business_key"].startswith("loop_of_one.review.approve.loop1.")
    run.decide()
    run.until_task("success", task_id="publish")
    returned = [run.value(task=run.iteration(n)[0])["id"] for n in (0, 1)]
    observe("loops", returned == [instance["id"] for instance in run.instances])


def test_deferred_batch_in_one_process(airflow: LineAirflow, observe: Observe) -> None:
    """Where the trigger cannot read XComs, it retries the reads, and the run does not end."""
    code = RUN_BATCH.format(folder=airflow.deployment.environment["AIRFLOW__CORE__DAGS_FOLDER"])
    # In the database of the deployment, its scheduler would run the task, too.
    own = {DATABASE_VARIABLE: f"sqlite:///{airflow.home / 'alone.db'}"}
    for prepare in (["db", "migrate"], ["dags", "reserialize"]):
        assert airflow.command("airflow", *prepare, variables=own).returncode == 0
    try:
        shown = airflow.command("python", "-c", code, seconds=ENOUGH_SECONDS, variables=own).stdout
    except subprocess.TimeoutExpired as expired:
        shown = (expired.stdout or b"").decode()
    assert "the trigger runs" in shown, shown[-3000:]
    observe("dag.test", "the run ended as success" in shown)
