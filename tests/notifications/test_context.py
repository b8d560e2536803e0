"""What has happened, read off the contexts that Airflow gives; ``tests/deployment`` has real ones."""

from __future__ import annotations

from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from airflow_provider_astrobpm.notifications.context import incident_key
from airflow_provider_astrobpm.starting.business_keys import Region
from airflow_provider_astrobpm.starting.incident import IncidentKey

DUE = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)
TI = SimpleNamespace(dag_id="orders", run_id="r1", task_id="load", map_index=-1, try_number=2)
RUN = SimpleNamespace(dag_id="orders", run_id="r1", clear_number=0, run_after=DUE)
REGION = {"region_id": UUID("01a22064-3a54-7e6c-8d88-3d22bab58d7d"), "region_index": 4}
DAG = SimpleNamespace(dag_id="orders")
MISSED = {
    "dag_run": {"dag_id": "orders", "dag_run_id": "r1", "run_after": "2026-11-24T12:00:00Z"},
    "deadline": {"id": "019a-1", "deadline_time": DUE},
}


@pytest.mark.parametrize(
    ("context", "event"),
    [
        (
            {"dag": DAG, "dag_run": RUN, "run_id": "r1", "ti": TI, "exception": ValueError()},
            IncidentKey(dag_id="orders", run_id="r1", task_id="load", number=2, since=DUE.timestamp()),
        ),
        (
            {"dag": DAG, "run_id": "r1", "ti": SimpleNamespace(**{**vars(TI), "map_index": 4})},
            IncidentKey(dag_id="orders", run_id="r1", task_id="load", map_index=4, number=2),
        ),
        (
            {"dag": DAG, "run_id": "r1", "ti": SimpleNamespace(**{**vars(TI), **REGION, "map_index": 4})},
            IncidentKey(dag_id="orders", run_id="r1", task_id="load", map_index=4, number=2),
        ),
        (
            {"dag": DAG, "run_id": "r1", "ti": SimpleNamespace(**{**vars(TI), **REGION})},
            IncidentKey(
                dag_id="orders", run_id="r1", task_id="load", number=2, region=Region(str(REGION["region_id"]), 4)
            ),
        ),
        (
            {"dag": DAG, "run_id": "r1", "ti": SimpleNamespace(**{**vars(TI), "map_index": None})},
            IncidentKey(dag_id="orders", run_id="r1", task_id="load", number=2),
        ),
        (
            {"dag": DAG, "dag_run": RUN, "run_id": "r1", "ti": TI, "reason": "task_failure"},
            IncidentKey(dag_id="orders", run_id="r1", since=DUE.timestamp()),
        ),
        (
            {
                "dag": DAG,
                "dag_run": SimpleNamespace(**{**vars(RUN), "clear_number": 3}),
                "ti": TI,
                "reason": "task_failure",
            },
            IncidentKey(dag_id="orders", run_id="r1", number=3, since=DUE.timestamp()),
        ),
        ({"dag": DAG, "run_id": "r1", "reason": "timed_out"}, IncidentKey(dag_id="orders", run_id="r1")),
        (MISSED, IncidentKey(dag_id="orders", run_id="r1", deadline_id="019a-1", since=DUE.timestamp())),
        (
            {**MISSED, "dag_run": {"dag_id": "orders", "run_id": "r1"}},
            IncidentKey(dag_id="orders", run_id="r1", deadline_id="019a-1"),
        ),
    ],
    ids=[
        "a task", "a mapped task", "a mapped task of 3.4", "an iteration of a loop", "a task by the dag processor", "a run", "a run that was cleared", "a run without more",
        "a deadline", "a deadline of another version",
    ],
)  # fmt: skip
def test_incident_of_each_context(context: dict[str, Any], event: IncidentKey) -> None:
    assert incident_key(context) == event


@pytest.mark.parametrize("context", [{}, {"dag": DAG}, {"run_id": "r1"}, {"deadline": {"id": "1"}}])
def test_raises_without_a_dag_run(context: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="does not name its DAG run; give the notifier a business_key"):
        incident_key(context)
