"""What a clear makes of a task, on each line; on Airflow 3.4 with and without the records of the task."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_astrobpm.task_base.clearing import BOX
from tests.matrix.rows import DISCARDED, HANGS, KEPT, LEAVES, RESUMES, TERMINATES, WHOLE
from tests.matrix.runs import Begin, begins

if TYPE_CHECKING:
    from airflow_lines import Line
    from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
    from tests.matrix.runs import Run

pytestmark = pytest.mark.matrix

Observe = Callable[[str, Any], None]
MISSED = "Detected a task instance without a heartbeat"
ENOUGH_REPORTS = 3  # of it, after which the scheduler does nothing else for a task
CHOICE = "3.4"
"""The first line on which a clear keeps or discards what the task has recorded."""


def clear(run: Run, way: str, line: Line, task_id: str) -> None:
    """Clear a task that has ended, as a person does in one of the ways of the line."""
    if way == WHOLE:
        run.airflow.call("POST", f"{run.path}/clear", {"dry_run": False, "only_failed": False})
        return
    choice = {"keep_task_state": True} if way == KEPT and line.name >= CHOICE else {}
    run.clear_one(run.one(task_id), **choice)


def cleared(run: Run, way: str, line: Line, each: int) -> str:
    """Clear a task whose wait has failed, and return what becomes of its instances.

    :param each: the number of instances that the task has started.
    """
    assert run.until_ended("approve") == "failed"
    assert (f'tick \\"{BOX}\\"' in run.log("approve")) is (line.name >= CHOICE)
    before = [instance["id"] for instance in run.still_open]
    assert len(before) == each
    clear(run, way, line, "approve")
    run.until_task("deferred", task_id="approve")
    known = set(before)
    left = [instance["state"] for instance in run.instances if instance["id"] in known]
    found = RESUMES if len(run.instances) == each else TERMINATES if set(left) == {"Terminated"} else LEAVES
    assert len(run.still_open) == (2 * each if found == LEAVES else each)
    run.until("people can act", lambda: all(one["outcomes"] for one in run.still_open) or None)
    run.decide()
    assert run.until_ended("approve") == "success"
    assert len(run.instances) == (each if found == RESUMES else 2 * each)
    return found


def ways(dag_id: str, *, whole: bool = False) -> pytest.MarkDecorator:
    """Mark a test with a run of a DAG for each way to clear it."""
    runs = {KEPT: Begin(dag_id), DISCARDED: Begin(dag_id, since=CHOICE)}
    return begins(**runs, **({WHOLE: Begin(dag_id, since=CHOICE)} if whole else {}))


@ways("fails", whole=True)
def test_clear_of_a_failed_wait(runs: dict[str, Run], line: Line, observe: Observe) -> None:
    observe("clear", {way: cleared(run, way, line, 1) for way, run in runs.items()})


@ways("fails_as_batch", whole=True)
def test_clear_of_a_failed_batch(runs: dict[str, Run], line: Line, observe: Observe) -> None:
    observe("clear of a batch", {way: cleared(run, way, line, 2) for way, run in runs.items()})


@ways("fails_with_own_keys")
def test_clear_with_own_keys(runs: dict[str, Run], line: Line, observe: Observe) -> None:
    observe("clear, own key", {way: cleared(run, way, line, 1) for way, run in runs.items()})


@ways("fails_as_batch_with_own_keys")
def test_clear_of_a_batch_with_own_keys(runs: dict[str, Run], line: Line, observe: Observe) -> None:
    observe("clear of a batch, own keys", {way: cleared(run, way, line, 2) for way, run in runs.items()})


@begins(run=Begin("waits_on_worker"))
def test_clear_on_a_worker(runs: dict[str, Run], observe: Observe) -> None:
    """The kill terminates the instance. The business key of the next one says whether the task counts as retried."""
    run = runs["run"]
    run.until_asked()
    run.clear()

    def next_one() -> str | None:
        lines = run.airflow.scheduler.output().splitlines()
        if sum(MISSED in line and run.run_id in line for line in lines) >= ENOUGH_REPORTS:
            return HANGS
        return "starts another" if len(run.instances) == 2 else None

    found = run.until("the task starts another instance, or hangs", next_one)
    if found == HANGS:
        assert run.one()["state"] == "restarting"
        assert len(run.instances) == 1
        run.clear()
    run.until(
        "another one waits for a person",
        lambda: [each for each in run.still_open if each["outcomes"]] or None,
    )
    first, second = run.instances
    assert (first["state"], second["closed"]) == ("Terminated", False)
    is_retry = second["business_key"] == f"{first['business_key']}.2"
    run.decide()
    assert run.until_ended() == "success"
    observe("clear on a worker", found if found == HANGS else "a retry" if is_retry else "a clear")


def hides_keys(control: EmulatorControl) -> None:
    """Carry out a start, lose its answer, and show no business key in any list."""
    control.switch(business_keys_in_rows=False)
    control.fault("start", "drop_after")


@begins(
    **{
        KEPT: Begin("refuses_to_guess", prepare=hides_keys),
        DISCARDED: Begin("refuses_to_guess", prepare=hides_keys, since=CHOICE),
    }
)
def test_clear_of_a_start_in_doubt(runs: dict[str, Run], line: Line, observe: Observe) -> None:
    found = {}
    for way, run in runs.items():
        assert run.until_ended() == "failed"
        assert "AmbiguousStartError" in run.log()
        assert run.own.counts()["start"] == 1
        clear(run, way, line, "wait")
        run.until("the second try has begun", lambda run=run: run.one()["try_number"] == 2 or None)  # type: ignore[misc]
        state = run.until_ended()
        found[way] = "starts" if state == "success" else "refuses"
        assert run.own.counts()["start"] == (2 if state == "success" else 1)
    observe("clear in doubt", found)


@pytest.mark.since("3.4")
def test_check_box_has_the_label_that_errors_name(airflow: Any) -> None:
    """In the English user interface of the line."""
    where = airflow.command("python", "-c", "import airflow; print(airflow.__file__)").stdout.split()[-1]
    words = Path(where).parent / "ui" / "dist" / "i18n" / "locales" / "en" / "dags.json"
    assert json.loads(words.read_text())["runAndTaskActions"]["options"]["keepTaskState"] == BOX
