"""The operators that suspend, resume, terminate, delete and set variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroDeleteBpmInstanceOperator,
    AstroZeroQueryBpmInstancesOperator,
    AstroZeroResumeBpmInstanceOperator,
    AstroZeroSetBpmVariablesOperator,
    AstroZeroStartBpmInstanceOperator,
    AstroZeroSuspendBpmInstanceOperator,
    AstroZeroTerminateBpmInstanceOperator,
)
from tests.support.stores import TaskStateStore
from tests.support.task_instance import FakeTaskInstance, run


class TestStateChanges:
    @pytest.fixture
    def instance_id(self, emulator: EmulatorControl) -> str:
        return str(emulator.start("SupplierOnboarding")["id"])

    def test_suspend_and_resume_are_idempotent(self, emulator: EmulatorControl, instance_id: str) -> None:
        for operator, suspended in [
            (AstroZeroSuspendBpmInstanceOperator, True),
            (AstroZeroResumeBpmInstanceOperator, False),
        ]:
            for _ in range(2):
                result = run(operator(task_id="t", instance_id=instance_id))
                assert (result["id"], result["suspended"]) == (instance_id, suspended)
                assert emulator.instance(instance_id)["suspended"] is suspended

    def test_terminate_is_idempotent(self, emulator: EmulatorControl, instance_id: str) -> None:
        for _ in range(2):
            result = run(AstroZeroTerminateBpmInstanceOperator(task_id="t", instance_id=instance_id))
            assert result["is_closed"] is True
        assert emulator.instance(instance_id)["state"] == "Terminated"

    @pytest.mark.parametrize(
        "operator",
        [
            AstroZeroSuspendBpmInstanceOperator,
            AstroZeroResumeBpmInstanceOperator,
            AstroZeroTerminateBpmInstanceOperator,
        ],
    )
    def test_closed_instance_succeeds_or_fails_by_if_closed(
        self, operator: Any, emulator: EmulatorControl, instance_id: str
    ) -> None:
        emulator.move(instance_id, state="Completed OK")
        assert run(operator(task_id="t", instance_id=instance_id))["state"] == "Completed OK"
        with pytest.raises(errors.InstanceClosedError, match="has already ended, in state 'Completed OK'"):
            run(operator(task_id="t", instance_id=instance_id, if_closed="fail"))
        with pytest.raises(errors.InstanceNotFoundError, match="'002Nx'"):
            run(operator(task_id="t", instance_id="002Nx"))
        with pytest.raises(ValueError, match="if_closed"):
            operator(task_id="t", instance_id=instance_id, if_closed="ignore")

    def test_accepted_action_without_visible_effect_fails(
        self, emulator: EmulatorControl, instance_id: str, make_conn: Callable[..., None]
    ) -> None:
        emulator.switch(action_lag=30)
        make_conn(start_grace=0.02)
        with pytest.raises(
            errors.EffectNotShownError, match="terminate of .* accepted, but shows no effect after 0.02 s"
        ):
            run(AstroZeroTerminateBpmInstanceOperator(task_id="t", instance_id=instance_id))

    @pytest.mark.parametrize("remembers", [True, False])
    def test_retry_accepts_the_end_that_an_earlier_try_requested(
        self, remembers: bool, emulator: EmulatorControl, instance_id: str, make_conn: Callable[..., None]
    ) -> None:
        make_conn(max_attempts=1, start_grace=0.01, instance_lookup="list")
        context: Any = {
            "ti": FakeTaskInstance("start"),
            **({"task_state_store": TaskStateStore()} if remembers else {}),
        }
        terminate = AstroZeroTerminateBpmInstanceOperator(
            task_id="t", instance_id=instance_id, if_closed="fail"
        )
        emulator.fault("action", "drop_after")
        emulator.fault("query", "status", status=503, times=100, skip=1)
        with pytest.raises(errors.InterruptedCallError, match="could not be read"):
            terminate.execute(context)
        assert emulator.instance(instance_id)["state"] == "Terminated"
        emulator.clear_faults()
        if remembers:
            assert terminate.execute(context)["state"] == "Terminated"
            assert context["task_state_store"] == {}, "the effect is known"
        with pytest.raises(errors.InstanceClosedError):
            terminate.execute(context)

    def test_retry_rejects_an_end_that_no_try_requested(
        self, emulator: EmulatorControl, instance_id: str, make_conn: Callable[..., None]
    ) -> None:
        make_conn(max_attempts=1, start_grace=0.01)
        context: Any = {"ti": FakeTaskInstance("start"), "task_state_store": TaskStateStore()}
        terminate = AstroZeroTerminateBpmInstanceOperator(
            task_id="t", instance_id=instance_id, if_closed="fail"
        )
        emulator.fault("action", "status", status=400)
        with pytest.raises(errors.RefusedError):
            terminate.execute(context)
        emulator.move(instance_id, state="Terminated")
        with pytest.raises(errors.InstanceClosedError):
            terminate.execute(context)

    def test_retry_accepts_the_deletion_that_an_earlier_try_requested(
        self, emulator: EmulatorControl, instance_id: str, make_conn: Callable[..., None]
    ) -> None:
        make_conn(max_attempts=1, start_grace=0.01, instance_lookup="list")
        context: Any = {"ti": FakeTaskInstance("start"), "task_state_store": TaskStateStore()}
        delete = AstroZeroDeleteBpmInstanceOperator(task_id="t", instance_id=instance_id)
        emulator.fault("delete", "drop_after")
        emulator.fault("query", "status", status=503, times=100, skip=1)
        with pytest.raises(errors.InterruptedCallError):
            delete.execute(context)
        emulator.clear_faults()
        delete.execute(context)
        with pytest.raises(errors.InstanceNotFoundError):
            delete.execute(context)

    def test_set_variables(self, emulator: EmulatorControl, instance_id: str) -> None:
        run(
            AstroZeroSetBpmVariablesOperator(
                task_id="t", instance_id=instance_id, variables={"country": "CN", "no": 1}
            )
        )
        assert emulator.instance(instance_id)["variables"]["country"] == "CN"
        with pytest.raises(ValueError, match="variables"):
            run(AstroZeroSetBpmVariablesOperator(task_id="t", instance_id=instance_id, variables={}))

    def test_delete(self, emulator: EmulatorControl, instance_id: str) -> None:
        run(AstroZeroDeleteBpmInstanceOperator(task_id="t", instance_id=instance_id))
        assert emulator.instances() == []
        run(AstroZeroDeleteBpmInstanceOperator(task_id="t", instance_id=instance_id, if_missing="succeed"))
        with pytest.raises(errors.InstanceNotFoundError, match="405230030"):
            run(AstroZeroDeleteBpmInstanceOperator(task_id="t", instance_id=instance_id))


@pytest.mark.lookups_in_turn
def test_changes_and_queries_with_every_switch_position(
    lookup: str, switch: str, position: Any, emulator: EmulatorControl, make_conn: Callable[..., None]
) -> None:
    emulator.switch(**{"get_by_id": "action" if lookup == "by_id" else "absent", switch: position})
    make_conn(instance_lookup=lookup, csrf=switch == "csrf_required", max_attempts=1, start_grace=0.01)
    lags = (switch, position) == ("action_lag", 30)

    def take(operator: Any, **arguments: Any) -> Any:
        result = None
        try:
            result = run(operator(task_id="t", **arguments))
        except errors.EffectNotShownError:
            assert lags
        emulator.advance(30)  # a lagging effect is visible by then
        return result

    started = take(
        AstroZeroStartBpmInstanceOperator,
        bpm_name="SupplierOnboarding",
        business_key="k",
        wait_for_completion=False,
    )
    only = {"instance_id": started["id"]}
    assert [row["id"] for row in take(AstroZeroQueryBpmInstancesOperator, bpm_name="SupplierOnboarding")] == [
        started["id"]
    ]
    take(AstroZeroSetBpmVariablesOperator, **only, variables={"country": "CN"})
    assert emulator.instance(started["id"])["variables"]["country"] == "CN"
    for _ in range(2):
        take(AstroZeroSuspendBpmInstanceOperator, **only)
        assert emulator.instance(started["id"])["suspended"] is True
    for _ in range(2):
        take(AstroZeroResumeBpmInstanceOperator, **only)
        assert emulator.instance(started["id"])["suspended"] is False
    take(AstroZeroTerminateBpmInstanceOperator, **only)
    assert emulator.instance(started["id"])["closed"] is True
    take(AstroZeroDeleteBpmInstanceOperator, **only, if_missing="succeed")
    assert all(one["closed"] for one in emulator.instances())
