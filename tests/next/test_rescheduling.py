"""An outage reschedules a task: it uses up no retry, calls no callback, and leaves the task with one instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
    from tests.next.conftest import Airflow, Run

pytestmark = pytest.mark.next

EACH = {"outage": 1, "outage_on_worker": 1, "outage_of_batch": 2}
"""The number of instances that a run starts."""
RESCHEDULED = "Retry policy rescheduled the task"


def until_rescheduled(run: Run, times: int) -> None:
    """Wait until a run was rescheduled that many times."""
    run.until(
        f"it was rescheduled {times} times",
        lambda: run.log("approve").count(RESCHEDULED) >= times or None,
    )


def check_is_one_quiet_try(run: Run) -> None:
    """Check that the task has used up no retry, and that no person was told and nothing was killed."""
    assert run.task("approve")["try_number"] == 1
    log = run.log("approve")
    assert "A callback was called" not in log
    assert "on_kill was called" not in log


@pytest.mark.parametrize("dag_id", EACH)
def test_outages_during_start_and_wait_use_up_no_retry(
    dag_id: str, airflow: Airflow, outage: EmulatorControl
) -> None:
    each = EACH[dag_id]
    outage.outage()
    run = airflow.run(dag_id, outage)
    until_rescheduled(run, 2)
    assert run.instances == []
    outage.outage(on=False)
    run.until("its instances wait for people", lambda: len(run.waiting_for_people) == each or None)
    before = [instance["id"] for instance in run.instances]
    # The wait fails, because its polls fail for longer than it tolerates.
    rescheduled = run.log("approve").count(RESCHEDULED)
    outage.outage(mode="503")
    until_rescheduled(run, rescheduled + 2)
    outage.outage(on=False)
    run.approve()
    run.until_state("success", "approve")
    check_is_one_quiet_try(run)
    assert [instance["id"] for instance in run.instances] == before
    assert [instance["state"] for instance in run.instances] == ["Completed OK"] * each


@pytest.mark.parametrize("is_started", [True, False], ids=["started", "not started"])
@pytest.mark.parametrize("dag_id", ["outage", "outage_of_batch"])
def test_a_start_in_doubt_is_rescheduled_and_has_one_instance(
    dag_id: str, is_started: bool, airflow: Airflow, outage: EmulatorControl
) -> None:
    """The answers to the starts are lost, and so is every answer to the searches, until the outage is over."""
    each = EACH[dag_id]
    outage.fault("start", "drop_after" if is_started else "drop_before", times=each)
    outage.fault("query", "status", status=503, times=1000)
    run = airflow.run(dag_id, outage)
    until_rescheduled(run, 1)
    assert "AmbiguousStartError: an outage uses up no retry" in run.log("approve")
    assert len(run.instances) == (each if is_started else 0)
    outage.clear_faults()
    run.until("its instances wait for people", lambda: len(run.waiting_for_people) == each or None)
    run.approve()
    run.until_state("success", "approve")
    check_is_one_quiet_try(run)
    assert len(run.instances) == each
    assert outage.counts()["start"] == (each if is_started else 2 * each)


def test_an_outage_uses_up_retries_past_its_limit(airflow: Airflow, outage: EmulatorControl) -> None:
    outage.outage()
    run = airflow.run("outage_too_long", outage)
    run.until_state("failed", "approve")
    assert run.task("approve")["try_number"] == 2
    # Airflow reports the failure first, and calls the callback then.
    run.until("both callbacks", lambda: run.log("approve").count("A callback was called") == 2 or None)
    log = run.log("approve")
    assert log.count(RESCHEDULED) == 2, "each try has its own limit"
    assert log.count("Reschedule limit reached, applying the standard retry logic") == 2
