"""A worker and a triggerer are killed at work, and each of 200 tasks ends correctly with its one instance."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.support.deployed import seconds_of

if TYPE_CHECKING:
    from local_stack import Child
    from tests.ha.conftest import Airflow

pytestmark = pytest.mark.ha

MAPPED = 5  # tasks of a run, as in the DAG file
APPROVED_RUNS = 39
TASKS = (APPROVED_RUNS + 1) * MAPPED
PATIENCE = 300.0  # seconds until all tasks must have done something
START_DELAY = 20.0  # seconds; a client waits longer for a response


def kill_a_worker_amid_its_starts(airflow: Airflow) -> set[str]:
    """Kill a worker whose tasks have all started their instances, but have no response yet; return these tasks."""
    airflow.control.fault("start", "delay", times=TASKS, seconds=START_DELAY, work_done=True)

    def all_amid_their_starts() -> tuple[Child, set[str]] | None:
        started = airflow.instances()
        running = airflow.tasks("running")
        for worker in airflow.workers:
            pids = {process.pid for process in worker.members()}
            its = {title for title, task in running.items() if task["pid"] in pids}
            if len(its) == airflow.slots and its <= started.keys():
                return worker, its
        return None

    worker, killed = airflow.until("a worker's tasks have all sent their starts", all_amid_their_starts)
    airflow.kill(worker)
    airflow.control.clear_faults()
    assert killed <= airflow.tasks("running").keys(), "the kill came too late"
    return killed


def kill_the_busier_triggerer(airflow: Airflow) -> tuple[int, int]:
    """Kill the triggerer with most of the waits; return its id and the number of its waits."""
    held = Counter(task["trigger"]["triggerer_id"] for task in airflow.tasks("deferred").values())
    ((triggerer, waits),) = held.most_common(1)
    airflow.kill(airflow.triggerers[triggerer])
    return triggerer, waits


def until_all_wait(airflow: Airflow, *, without: int | None = None) -> None:
    """Wait until a triggerer holds the wait of each task.

    :param without: a triggerer that does not count.
    """

    def held() -> bool | None:
        if airflow.count("deferred") < TASKS:
            assert airflow.count("success", "failed") == 0
            return None
        holders = [(task["trigger"] or {}).get("triggerer_id") for task in airflow.tasks("deferred").values()]
        return not {None, without} & set(holders) or None

    airflow.until("a triggerer holds every wait", held, PATIENCE)


def test_200_waits_survive_a_worker_and_a_triggerer(
    airflow: Airflow, measured: Callable[[str, float], None]
) -> None:
    control = airflow.control
    began = time.monotonic()

    def note(what: str) -> None:
        nonlocal began
        measured(what, time.monotonic() - began)
        began = time.monotonic()

    # Those that will be rejected are not retried, so they wait before anything is killed.
    airflow.run("rejections", "rejected")
    airflow.until("the tasks to be rejected wait", lambda: airflow.count("deferred") == MAPPED or None)
    note("until the first run waits")
    for number in range(APPROVED_RUNS):
        airflow.run("approvals", f"approved-{number}")

    enough = TASKS // 4
    airflow.until("many have started", lambda: len(control.instances()) >= enough or None, PATIENCE)
    killed = kill_a_worker_amid_its_starts(airflow)
    airflow.start_worker()
    note("until a worker was killed")
    until_all_wait(airflow)
    note("until all tasks wait")
    tries = {title: task["try_number"] for title, task in airflow.tasks("deferred").items()}
    assert min(tries[title] for title in killed) > 1

    triggerer, held = kill_the_busier_triggerer(airflow)
    assert held >= TASKS // 2
    airflow.start_triggerer()
    until_all_wait(airflow, without=triggerer)
    note(f"until {held} waits of a killed triggerer went on")

    instances = airflow.instances()
    assert {title: len(found) for title, found in instances.items()} == dict.fromkeys(airflow.tasks(), 1)
    assert len(instances) == TASKS
    assert len({instance["business_key"] for (instance,) in instances.values()} - {""}) == TASKS
    assert airflow.count("deferred") == TASKS
    for title, (instance,) in instances.items():
        control.act(instance["id"], "reject" if title.startswith("rejected ") else "approve")

    airflow.until(
        "all tasks have ended", lambda: airflow.count("success", "failed") == TASKS or None, PATIENCE
    )
    note("until all tasks have ended")
    tasks, instances = airflow.tasks(), airflow.instances()
    assert sum(len(found) for found in instances.values()) == TASKS
    counts = control.counts()
    assert (counts["action"], counts["delete"]) == (0, 0)
    for title, task in tasks.items():
        (instance,) = instances[title]
        assert (instance["state"], instance["closed"]) == ("Completed OK", True)
        assert seconds_of(task["end_date"]) >= instance["ended"]
        if title.startswith("rejected "):
            assert (task["state"], instance["bp_status"]) == ("failed", "Rejected")
        else:
            assert (task["state"], instance["bp_status"]) == ("success", "Approved")
            returned = airflow.returned(task)
            assert (returned["id"], returned["bp_status"]) == (instance["id"], "Approved")
            assert returned["business_key"] == instance["business_key"]
