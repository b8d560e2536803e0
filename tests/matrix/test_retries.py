"""What a retry knows of the try before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.matrix.rows import FAILS, RESUMES, TERMINATES
from tests.matrix.runs import LATE, Begin, begins
from tests.support.deployed import seconds_of

if TYPE_CHECKING:
    from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
    from tests.matrix.runs import Run

pytestmark = pytest.mark.matrix

Observe = Callable[[str, Any], None]


def outcome(run: Run) -> str:
    """Return whether the second try resumes the only instance, or fails."""

    def there() -> str | None:
        task = run.one()
        if task["try_number"] == 2 and task["state"] == "running" and "Adopted" in run.log():
            return RESUMES
        return FAILS if task["state"] == "failed" else None

    return run.until("the second try resumes or fails", there)


@begins(run=Begin("dies_alone"))
def test_killed_process(runs: dict[str, Run], observe: Observe) -> None:
    run = runs["run"]
    found = outcome(run)
    assert run.one()["try_number"] == (1 if found == FAILS else 2)
    (instance,) = run.still_open
    if found == RESUMES:
        run.until_asked(tries=2)
        run.decide()
        assert run.until_ended() == "success"
        assert [each["id"] for each in run.instances] == [instance["id"]]
    observe("killed", found)


@begins(run=Begin("dies_in_the_wait_own_key"))
def test_own_key(runs: dict[str, Run], observe: Observe) -> None:
    run = runs["run"]
    found = outcome(run)
    assert len(run.instances) == 1
    if found == RESUMES:
        run.until_asked(tries=2)
        run.decide()
        assert run.until_ended() == "success"
    else:
        assert "AmbiguousStartError" in run.log()
    observe("own key", found)


@begins(run=Begin("dies_before_the_answer_own_key"))
def test_own_key_if_the_answer_was_lost(runs: dict[str, Run], observe: Observe) -> None:
    run = runs["run"]
    found = outcome(run)
    assert len(run.instances) == 1
    assert "AmbiguousStartError" in run.log()
    observe("own key, lost answer", found)


@begins(run=Begin("dies_late_in_the_wait"))
def test_deadline(runs: dict[str, Run], observe: Observe) -> None:
    """The first try dies halfway to its deadline."""
    run = runs["run"]
    assert run.until_task("failed") == "failed"
    (instance,) = run.instances
    seconds = seconds_of(run.one()["end_date"]) - instance["started"]
    assert seconds > 2 * LATE - 2
    observe("deadline", "is kept" if seconds < 3 * LATE else "begins again")


@begins(run=Begin("retries_change"))
def test_retries_change(runs: dict[str, Run], observe: Observe) -> None:
    run = runs["run"]

    def there() -> str | None:
        states = [each["state"] for each in run.instances]
        if len(states) == 2:
            return TERMINATES if states[0] == "Terminated" else f"leaves {states[0]}"
        return RESUMES if "Adopted" in run.log() else None

    found = run.until("the second try begins", there)
    run.until_asked(tries=2, instances=2 if found == TERMINATES else 1)
    run.decide()
    assert run.until_ended() == "success"
    observe("retries change", found)


def with_instance(control: EmulatorControl) -> dict[str, Any]:
    return {"instance_id": control.start("PublishApproval")["id"]}


@begins(run=Begin("dies_after_its_action", prepare=with_instance))
def test_task_ended_the_instance_itself(runs: dict[str, Run], observe: Observe) -> None:
    run = runs["run"]
    found = run.until_task("success", "failed")
    assert run.one()["try_number"] == 2
    assert ("InstanceClosedError" in run.log()) is (found == "failed")
    observe("closed", found)


@begins(run=Begin("policy"))
def test_retry_policy(runs: dict[str, Run], observe: Observe, facts: dict[str, Any]) -> None:
    found = runs["run"].until_task("failed", "up_for_retry")
    observe("policy", [facts["policy"], found])


@begins(run=Begin("outage", prepare=lambda control: control.outage()))
def test_outage(runs: dict[str, Run], observe: Observe) -> None:
    observe("outage", runs["run"].until_task("up_for_retry", "up_for_reschedule", "failed"))
