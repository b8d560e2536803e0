"""``gates`` in a real deployment: the command reads its database."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import process

if TYPE_CHECKING:
    from tests.deployment.conftest import Airflow

pytestmark = pytest.mark.deployment

GATES = (sys.executable, "-m", "airflow_provider_astrobpm", "gates", "--output", "json")


def test_a_deferred_task_and_one_on_a_worker_are_shown(airflow: Airflow) -> None:
    deferred, held = airflow.run("wait_for_person"), airflow.run("wait_on_worker")
    deferred.until_deferred()
    airflow.until("the other task has started its instance", lambda: bool(held.instances) or None)

    def shown() -> dict[str, tuple[str, str, str]] | None:
        done = process(GATES, env=airflow.deployment._env)
        assert done.code == 0, done.err
        rows = {row["run_id"]: (row["held_by"], row["instance_id"], row["state"]) for row in done.rows}
        return rows if all(rows.get(one.run_id, (0, None))[1] for one in (deferred, held)) else None

    rows = airflow.until("both are shown with their instances", shown)
    waiting = "Waiting for user interaction"
    assert rows[deferred.run_id] == ("triggerer", deferred.instance["id"], waiting)
    assert rows[held.run_id] == ("worker", held.instance["id"], waiting)
    for one in (deferred, held):
        one.approve()
        one.until_state("success")
    assert process(GATES, env=airflow.deployment._env).rows == []
