"""A triggerer that freezes and comes back, and a watcher without a triggerer. These disturb every wait, so they come last."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.matrix.conftest import WATCHED
from tests.matrix.runs import Begin, begins

if TYPE_CHECKING:
    from tests.matrix.conftest import LineAirflow
    from tests.matrix.runs import Run

pytestmark = pytest.mark.matrix

Observe = Callable[[str, Any], None]
PROCESS = "SupplierOnboarding"
POLLED = 12  # requests after which a watch has certainly seen what had ended before


@begins(run=Begin("waits_deferred"))
def test_triggerer_that_comes_back(airflow: LineAirflow, runs: dict[str, Run], observe: Observe) -> None:
    run, frozen = runs["run"], airflow.triggerer
    first = run.until_deferred()
    run.until_asked()
    airflow.freeze(frozen, "all")
    airflow.start_triggerer()
    run.until_deferred(by_other_than=first)
    frozen.signal(signal.SIGCONT)
    run.until_logged(first, "completed")
    polls = run.own.counts()["query"]
    run.until("the other one polls", lambda: run.own.counts()["query"] > polls + 5 or None)
    (instance,) = run.still_open
    assert run.own.counts()["action"] == 0
    killed = run.logged(first, "killed") is not None
    run.own.act(instance["id"], "approve")
    assert run.until_ended() == "success"
    assert len(run.instances) == 1
    observe("taken over", ["waits", killed])


def test_watcher_without_a_triggerer(airflow: LineAirflow, observe: Observe) -> None:
    zero = airflow.servers[WATCHED].control

    def reported() -> list[str]:
        events = airflow.call("GET", "/api/v2/assets/events?limit=100")["asset_events"]
        return [each["extra"]["payload"]["id"] for each in events]

    def end_one() -> str:
        instance_id: str = zero.start(PROCESS)["id"]
        zero.move(instance_id, state="Completed OK")
        return instance_id

    def until_watched() -> None:
        known = zero.counts()["query"]
        airflow.until("a watch polls", lambda: zero.counts()["query"] > known + POLLED or None)

    airflow.settle()
    until_watched()
    first = end_one()
    airflow.until("an event is reported", lambda: first in reported() or None)
    airflow.triggerer.stop()
    second = end_one()
    airflow.settle()
    until_watched()
    third = end_one()
    airflow.until("another event is reported", lambda: third in reported() or None)
    observe("watcher", second in reported())
