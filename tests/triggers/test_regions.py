"""Reading a task instance with a region (Airflow 3.4): the XComs of a replaced try, and the state of a loop iteration.

Airflow's answers are faked here; ``tests/next`` uses a real one.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.sdk.execution_time.xcom import XCom

from airflow_provider_astrobpm._airflow import user_action
from airflow_provider_astrobpm.starting.business_keys import Region
from airflow_provider_astrobpm.task_base import termination

REGION = "01a22064-3a54-7e6c-8d88-3d22bab58d7d"
TASK = user_action.TaskInstanceRef("dag", "run", "task", -1)
READER: ContextVar[str] = ContextVar("reader")
"""The try as which XComs are read; unset when the triggerer itself reads them."""


def refusal(status: int, **more: Any) -> AirflowRuntimeError:
    detail = {"status_code": status, "message": "no", **more}
    return AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail=detail))


class FakeAirflow:
    """Behaves like Airflow 3.4."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_replaced, self.in_loop = False, False
        self.mine: dict[str, Any] = {}
        self.next_try: dict[str, Any] = {}
        self.state: str | None = "deferred"
        self.breadcrumbs: list[dict[str, Any]] = []
        monkeypatch.setattr(user_action, "OBSERVATION_DELAY_SECONDS", 0.0)
        monkeypatch.setattr(XCom, "get_one", self.get_one)
        monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", lambda **_: {"run": {"task": self.state}})
        monkeypatch.setattr(
            RuntimeTaskInstance,
            "get_task_breadcrumbs",
            lambda dag_id, run_id: self.breadcrumbs if (dag_id, run_id) == ("dag", "run") else [],
            raising=False,  # from Airflow 3.1 on
        )

    def get_one(self, *, key: str, **coordinates: Any) -> Any:
        assert coordinates == {"dag_id": "dag", "task_id": "task", "run_id": "run", "map_index": -1}
        if READER.get(None) == "the try that waited":
            if self.is_replaced:
                raise refusal(403)
            return self.mine.get(key)
        if self.in_loop:
            raise refusal(400)
        return (self.next_try if self.is_replaced else self.mine).get(key)

    def why_no_kill(self) -> str | None:
        """Decide like a trigger."""
        READER.set("the try that waited")
        return asyncio.run(user_action.why_not_user_action(TASK, "instance_id", "mine"))


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> FakeAirflow:
    return FakeAirflow(monkeypatch)


@pytest.mark.parametrize("in_loop", [False, True], ids=["outside", "in a loop"])
@pytest.mark.parametrize(
    ("state", "published", "ended"),
    [
        ("deferred", {"instance_id": "mine"}, False),
        ("running", {"instance_id": "mine"}, False),
        ("failed", {"instance_id": "mine"}, True),
        ("success", {"instance_id": "mine"}, True),
        ("success", {"instance_id": "mine", "wait_over": "mine"}, False),
        ("up_for_retry", {}, False),
    ],
)
def test_reads_a_current_try(
    airflow: FakeAirflow, in_loop: bool, state: str, published: dict[str, Any], ended: bool
) -> None:
    airflow.in_loop, airflow.state, airflow.mine = in_loop, state, published
    assert (airflow.why_no_kill() is None) is ended


@pytest.mark.parametrize(
    ("state", "published", "ended"),
    [
        ("deferred", {"instance_id": "another"}, True),
        ("deferred", {"instance_id": "mine"}, False),
        ("running", {"instance_id": "mine"}, False),
        ("running", {}, True),
        ("success", {"instance_id": "another", "wait_over": "another"}, True),
        ("up_for_retry", {}, False),
        ("queued", {}, True),
    ],
)
def test_outside_of_loops_the_next_trys_xcoms_decide(
    airflow: FakeAirflow, state: str, published: dict[str, Any], ended: bool
) -> None:
    """Airflow refuses to read as a replaced try, so a cleared task would count as not ended by a user."""
    airflow.is_replaced, airflow.state, airflow.next_try = True, state, published
    airflow.mine = {"instance_id": "mine"}
    assert (airflow.why_no_kill() is None) is ended


@pytest.mark.parametrize(
    ("state", "ended"),
    [("deferred", True), ("running", True), ("success", True), ("queued", True), ("up_for_retry", False)],
)
def test_in_a_loop_a_replaced_try_was_cleared(airflow: FakeAirflow, state: str, ended: bool) -> None:
    """The state may be that of another iteration, because clearing an earlier one ends the later ones."""
    airflow.in_loop = airflow.is_replaced = True
    airflow.state = state
    assert (airflow.why_no_kill() is None) is ended


@pytest.mark.parametrize("status", [401, 404, 409, 500])
def test_an_unreadable_task_terminates_nothing(
    airflow: FakeAirflow, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise refusal(status)

    monkeypatch.setattr(XCom, "get_one", refuse)
    assert airflow.why_no_kill() == "the state of its task could not be read (AirflowRuntimeError)"


@pytest.mark.parametrize("status", [401, 403, 500])
def test_an_unreadable_next_try_terminates_nothing(
    airflow: FakeAirflow, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The try that waited was replaced, and what the next one has published cannot be read either."""
    monkeypatch.setattr(
        XCom, "get_one", lambda **_: refuse(403 if READER.get(None) == "the try that waited" else status)
    )
    assert airflow.why_no_kill() == "the state of its task could not be read (AirflowRuntimeError)"


def refuse(status: int) -> None:
    raise refusal(status)


def test_a_refusal_without_details_terminates_nothing(
    airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise AirflowRuntimeError(ErrorResponse(error=ErrorType.GENERIC_ERROR, detail=None))

    monkeypatch.setattr(XCom, "get_one", refuse)
    assert airflow.why_no_kill() is not None


@pytest.mark.parametrize(
    ("fields", "region"),
    [
        ({"map_index": -1}, None),
        ({"map_index": None, "region_id": None, "region_index": None}, None),
        ({"map_index": -1, "region_id": UUID(int=0), "region_index": -1}, None),
        ({"map_index": -1, "region_id": UUID(REGION), "region_index": 2}, Region(REGION, 2)),
    ],
)
def test_region_of_a_task_instance(fields: dict[str, Any], region: Region | None) -> None:
    task_instance = SimpleNamespace(dag_id="dag", run_id="run", task_id="task", **fields)
    assert user_action.TaskInstanceRef.of(task_instance) == user_action.TaskInstanceRef(
        "dag", "run", "task", -1, region
    )


class Log:
    def warning(self, *_: Any) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("state", "breadcrumbs", "ended"),
    [
        ("failed", [(REGION, 1, "failed")], True),
        ("success", [(REGION, 0, "failed"), (REGION, 1, "failed"), (REGION, 2, "success")], True),
        ("success", [(REGION, 0, "success"), (REGION, 2, "success")], False),
        ("failed", [], False),
        ("restarting", [], True),
        ("running", [], False),
        ("deferred", [(REGION, 1, "failed")], False),
        (None, [], False),
    ],
)
def test_a_worker_uses_the_state_of_its_own_iteration(
    airflow: FakeAirflow, state: str | None, breadcrumbs: list[tuple[str, int, str]], ended: bool
) -> None:
    """Airflow returns the state of the newest iteration only, which may have ended long ago."""
    airflow.state = state
    airflow.breadcrumbs = [
        {"task_id": "other", "state": "failed", "map_index": -1},
        {"task_id": "other", "state": "failed", "map_index": -1, "region_id": REGION, "region_index": 1},
        *(
            {"task_id": "task", "state": each, "map_index": -1, "region_id": region, "region_index": index}
            for region, index, each in breadcrumbs
        ),
    ]
    task = user_action.TaskInstanceRef("dag", "run", "task", -1, Region(REGION, 1))
    own = [each for region, index, each in breadcrumbs if (region, index) == (REGION, 1)]
    is_over = state in user_action.ENDED_STATES
    assert user_action.state_on_worker(task) == (
        (own or ["running"])[0] if is_over else state or user_action.NO_STATE
    )
    assert termination.was_ended_by_user(task, "It", Log()) is ended
