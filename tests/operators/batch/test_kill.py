"""Kills of a batch task on a worker."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_astrobpm._airflow import user_action
from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmBatchOperator
from tests.operators.batch.batch_task import (
    Task,
    launches,
)
from tests.support.stores import (
    HAS_TASK_STATE_STORE,
)


class TestKillOnTheWorker:
    """The task state from Airflow is simulated; ``tests/deployment`` has the real one."""

    def kill_while_it_starts(
        self, one: Task, operator: AstroZeroStartBpmBatchOperator, state: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(user_action, "task_state", lambda _task: state)
        push = one.xcom_push

        def pushed(key: str, value: Any) -> None:
            push(key, value)
            if key == "refusals":  # all are started, and the wait begins
                operator.on_kill()

        one.xcom_push = pushed  # type: ignore[method-assign]
        one.try_number = 1
        operator.execute(one.context)

    @pytest.mark.parametrize(
        ("state", "arguments", "open_after"),
        [
            ("failed", {}, 0),
            ("success", {}, 0),
            ("running", {}, 20),
            ("failed", {"terminate_on_kill": False}, 20),
        ],
    )
    def test_terminates_started_instances_if_a_user_ended_the_task(
        self,
        state: str,
        arguments: dict[str, Any],
        open_after: int,
        make_task: Any,
        emulator: EmulatorControl,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        one = make_task(has_store=HAS_TASK_STATE_STORE, launches=launches(20), timeout=0.1)
        with pytest.raises(errors.BatchFailedError):
            self.kill_while_it_starts(one, one.operator(**arguments), state, monkeypatch)
        assert len([each for each in emulator.instances() if not each["closed"]]) == open_after
        if HAS_TASK_STATE_STORE:
            record = one.context["task_state_store"]["astro_zero_batch"]
            assert record.get("unfinished", False) is (state == "running")

    def test_before_the_first_start_prevents_all_starts(
        self, make_task: Any, emulator: EmulatorControl
    ) -> None:
        one = make_task(has_store=False, launches=launches(20))
        operator = one.operator()
        operator.on_kill()
        with pytest.raises(errors.AstroZeroError, match="The task process is stopping"):
            operator.execute(one.context)
        assert emulator.counts()["start"] == 0
