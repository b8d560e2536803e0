"""A clear discards the records of a task, unless it asks to keep them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import airflow as installed
import pytest

from airflow_provider_astrobpm.task_base.clearing import BOX

if TYPE_CHECKING:
    from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
    from tests.next.conftest import Airflow, Run

pytestmark = pytest.mark.next

EACH = {"fails": 1, "fails_as_batch": 2}
"""The number of instances that a run starts."""
WITH_OWN_KEYS = {"fails_with_own_keys": 1, "fails_as_batch_with_own_keys": 2}


def until_failed(run: Run, each: int) -> list[str]:
    """Wait until a run has failed, and return the ids of the instances that it has left open."""
    run.until_state("failed", "approve")
    run.until("the run has ended", lambda: run.airflow.call("GET", run.path)["end_date"])
    left = [instance["id"] for instance in run.still_open]
    assert len(left) == each
    return left


def approve_the_rest(run: Run) -> None:
    """Approve everything that is open, and wait for the success of the task."""
    run.until("people can act", lambda: all(instance["outcomes"] for instance in run.still_open) or None)
    run.approve()
    run.until_state("success", "approve")


@pytest.mark.parametrize("dag_id", EACH)
@pytest.mark.parametrize("how", ["kept", "whole run", "discarded"])
def test_a_failed_wait_resumes_after_a_clear_only_if_its_state_is_kept(
    dag_id: str, how: str, runs: dict[str, Run]
) -> None:
    """A clear of the whole run keeps the state."""
    run, each, keep = runs[f"{dag_id}, {how}"], EACH[dag_id], how != "discarded"
    before = until_failed(run, each)
    assert f'tick \\"{BOX}\\"' in run.log("approve")
    if how == "whole run":
        run.airflow.call("POST", f"{run.path}/clear", {"dry_run": False, "only_failed": False})
    else:
        run.clear(run.task("approve"), **({"keep_task_state": True} if keep else {}))
    run.until_state("deferred", "approve")
    after = [instance["id"] for instance in run.still_open]
    assert len(after) == each
    assert (after == before) is keep
    if not keep:
        ends = ["Terminated"] * each
        assert [instance["state"] for instance in run.instances if instance["closed"]] == ends
    approve_the_rest(run)
    assert len(run.instances) == (each if keep else 2 * each)


@pytest.mark.parametrize("dag_id", WITH_OWN_KEYS)
def test_instances_with_own_keys_stay_open_after_a_clear_that_discards_the_state(
    dag_id: str, runs: dict[str, Run]
) -> None:
    run, each = runs[dag_id], WITH_OWN_KEYS[dag_id]
    before = until_failed(run, each)
    run.clear(run.task("approve"))
    run.until_state("deferred", "approve")
    assert len(run.instances) == 2 * each
    assert set(before) < {instance["id"] for instance in run.still_open}
    approve_the_rest(run)


def test_a_start_in_doubt_stays_in_doubt_until_a_clear_keeps_the_state(
    airflow: Airflow, outage: EmulatorControl
) -> None:
    """The lists show no business keys, so a search proves nothing."""
    outage.switch(business_keys_in_rows=False)
    outage.start("PublishApproval")
    outage.fault("start", "drop_before")
    run = airflow.run("in_doubt", control=outage)
    until_failed(run, 0)
    for clears in range(2):
        run.clear(run.task("approve"))
        tries = clears + 2
        run.until("the next try has failed", partial(_has_failed, run, tries))
        assert run.log("approve").count('"exc_type":"AmbiguousStartError"') == tries
        assert outage.counts()["start"] == 1
    run.clear(run.task("approve"), keep_task_state=True)
    run.until("an instance waits for people", lambda: len(run.waiting_for_people) == 1 or None)
    assert outage.counts()["start"] == 2
    approve_the_rest(run)


def _has_failed(run: Run, tries: int) -> bool | None:
    task = run.task("approve")
    return (task["state"], task["try_number"]) == ("failed", tries) or None


def test_a_task_cleared_on_a_worker_counts_as_cleared(airflow: Airflow) -> None:
    """The kill terminates its instance. The next try belongs to a new generation, so the key ends in another number."""
    run = airflow.run("on_worker")
    run.until("its instance waits for people", lambda: len(run.waiting_for_people) == 1 or None)
    run.clear(run.task("approve"))
    run.until("another one waits for people", lambda: len(run.instances) == 2 or None)
    run.until("people can act", lambda: run.waiting_for_people or None)
    first, second = run.instances
    assert (first["state"], second["closed"]) == ("Terminated", False)
    assert [each["business_key"].rpartition("-")[2] for each in (first, second)] == ["1", "2"]
    approve_the_rest(run)


def test_the_check_box_has_the_label_that_errors_name() -> None:
    """In the English user interface of the installed Airflow."""
    words = Path(installed.__file__).parent / "ui" / "dist" / "i18n" / "locales" / "en" / "dags.json"
    assert json.loads(words.read_text())["runAndTaskActions"]["options"]["keepTaskState"] == BOX
