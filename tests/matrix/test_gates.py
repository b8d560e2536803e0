"""Gates open and fail, lost answers are found, a user ends a task: the promises, on each line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.matrix.runs import Begin, begins

if TYPE_CHECKING:
    from tests.matrix.conftest import LineAirflow
    from tests.matrix.runs import Run

pytestmark = [pytest.mark.matrix, pytest.mark.smoke]

Observe = Callable[[str, Any], None]


@begins(gate=Begin("gate"))
def test_gate_opens(runs: dict[str, Run], observe: Observe) -> None:
    run = runs["gate"]
    run.until_deferred()
    run.until_asked()
    assert run.one("publish")["state"] is None
    assert run.run_id not in run.airflow.working_tasks()
    run.decide("approve")
    assert run.until_ended() == "success"
    (instance,) = run.instances
    assert run.value(task=run.one())["id"] == instance["id"]
    observe("gate opens", run.one("publish")["state"])


@begins(gate=Begin("gate"))
def test_gate_fails(runs: dict[str, Run], observe: Observe) -> None:
    run = runs["gate"]
    run.until_asked()
    run.decide("reject")
    run.until_ended()
    observe("gate fails", [run.one()["state"], run.one("publish")["state"]])


@begins(lost=Begin("dies_before_the_answer"))
def test_start_whose_answer_was_lost(runs: dict[str, Run], observe: Observe) -> None:
    run = runs["lost"]
    run.until_asked(tries=2)
    run.decide()
    state = run.until_ended()
    observe("lost answer", [len(run.instances), state])
    assert run.value(task=run.one())["id"] == run.instances[0]["id"]


@begins(ended=Begin("waits_deferred"), bystander=Begin("waits_deferred"))
def test_user_ends_a_deferred_task(runs: dict[str, Run], observe: Observe, airflow: LineAirflow) -> None:
    run, bystander = runs["ended"], runs["bystander"]
    bystander.until_deferred()
    triggerer = run.until_deferred()
    run.until_asked()
    run.mark("failed")
    run.until("its instance is closed", lambda: not run.still_open or None)
    run.until_logged(triggerer, "completed")
    observe("user", [run.instances[0]["state"], run.logged(triggerer, "killed") is not None])
    bystander.until_asked()
    assert bystander.one()["state"] == "deferred"
    bystander.decide()
    assert bystander.until_ended() == "success"
    assert not airflow.unexpectedly_ended()
