"""A clear discards the records of a task, unless it asks to keep them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import airflow
import pytest

from airflow_provider_astrobpm.task_base.clearing import BOX

if TYPE_CHECKING:
    from tests.next.conftest import Run

pytestmark = pytest.mark.next

EACH = {"fails": 1, "fails_as_batch": 2}
"""The number of instances that a run starts."""


@pytest.mark.parametrize("dag_id", EACH)
@pytest.mark.parametrize("keep", [True, False], ids=["kept", "discarded"])
def test_a_failed_wait_resumes_after_a_clear_only_if_its_state_is_kept(
    dag_id: str, keep: bool, runs: dict[str, Run]
) -> None:
    run, each = runs[f"{dag_id}, {'kept' if keep else 'discarded'}"], EACH[dag_id]
    run.until_state("failed", "approve")
    run.until("the run has ended", lambda: run.airflow.call("GET", run.path)["end_date"])
    assert f'tick \\"{BOX}\\"' in run.log("approve")
    before = [instance["id"] for instance in run.still_open]
    assert len(before) == each
    run.clear(run.task("approve"), **({"keep_task_state": True} if keep else {}))
    run.until_state("deferred", "approve")
    after = [instance["id"] for instance in run.still_open]
    assert len(after) == each
    assert (after == before) is keep
    if not keep:
        ends = ["Terminated"] * each
        assert [instance["state"] for instance in run.instances if instance["closed"]] == ends
    run.until("people can act", lambda: all(instance["outcomes"] for instance in run.still_open) or None)
    run.approve()
    run.until_state("success", "approve")
    assert len(run.instances) == (each if keep else 2 * each)


def test_the_check_box_has_the_label_that_errors_name() -> None:
    """In the English user interface of the installed Airflow."""
    words = Path(airflow.__file__).parent / "ui" / "dist" / "i18n" / "locales" / "en" / "dags.json"
    assert json.loads(words.read_text())["runAndTaskActions"]["options"]["keepTaskState"] == BOX
