"""The link to an instance. ``tests/deployment`` and ``tests/crash`` read it from a real Airflow."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred, XCom

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.decorators.bpm import AstroZeroBpmDecoratedOperator
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.links.bpm import AstroZeroBpmInstanceLink
from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator
from airflow_provider_astrobpm.sensors.bpm import AstroZeroBpmInstanceSensor
from tests.support.task_instance import FakeTaskInstance


@pytest.mark.parametrize("url", ["https://astro-zero.example/1", None])
def test_returns_the_address_that_the_task_published(
    url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    xcoms = {"instance_url": url}

    def get_value(*, ti_key: Any, key: str) -> Any:
        assert ti_key == "this task"
        return xcoms[key]

    monkeypatch.setattr(XCom, "get_value", get_value)
    task = AstroZeroStartBpmInstanceOperator(task_id="task", bpm_name="Approval")
    task.instance_url = None  # as after a deferral
    (link,) = task.operator_extra_links
    assert isinstance(link, AstroZeroBpmInstanceLink)
    assert link.name == "Open in Astro Zero"
    assert link.get_link(task, ti_key="this task") == (url or "")  # type: ignore[arg-type]
    assert link.xcom_key == "instance_url", "Airflow reads it while the task waits"


@pytest.mark.parametrize("url", ["https://astro-zero.example/1", ""])
def test_prefers_the_address_that_the_task_knows(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(XCom, "get_value")
    task = AstroZeroStartBpmInstanceOperator(task_id="task", bpm_name="Approval")
    (link,) = task.operator_extra_links
    assert link.get_link(task, ti_key="this task") == ""  # type: ignore[arg-type]
    task.instance_url = url
    assert link.get_link(task, ti_key="this task") == url  # type: ignore[arg-type]


def test_tasks_that_wait_for_an_instance_have_the_link() -> None:
    for kind in (
        AstroZeroStartBpmInstanceOperator,
        AstroZeroBpmDecoratedOperator,
        AstroZeroBpmInstanceSensor,
    ):
        assert [type(link) for link in kind.operator_extra_links] == [AstroZeroBpmInstanceLink]


class TestSensor:
    @pytest.fixture
    def ti(self) -> FakeTaskInstance:
        return FakeTaskInstance("wait")

    @pytest.fixture
    def sensor(
        self, emulator: EmulatorControl, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., AstroZeroBpmInstanceSensor]:
        """Create sensors for a connection with or without a template."""

        def make(*, template: str | None = "https://{host}/i/{instance_id}", **arguments: Any) -> Any:
            extra = {"instance_url": template}
            connection = {**json.loads(emulator_server.connection_json()), "extra": extra}
            monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))
            return AstroZeroBpmInstanceSensor(task_id="wait", poke_interval=1, timeout=600, **arguments)

        return make

    def shown(self, ti: FakeTaskInstance, instance_id: str) -> bool:
        """Return whether the task has published the instance's address once, and nothing else."""
        (one,) = ti.pushed
        return one[0] == "instance_url" and one[1].endswith(f"/i/{instance_id}")

    def test_publishes_the_address_of_an_id_before_the_first_poll(
        self, sensor: Any, ti: FakeTaskInstance, emulator: EmulatorControl
    ) -> None:
        made = sensor(instance_id="002N1", deferrable=True)

        def look(_awaited: Any) -> None:
            assert ti.pushed

        made.hook.look = look
        with pytest.raises(TaskDeferred):
            made.execute({"ti": ti})
        assert self.shown(ti, "002N1")

    @pytest.mark.parametrize("deferrable", [True, False])
    def test_publishes_the_address_of_the_match_of_a_key(
        self, deferrable: bool, sensor: Any, ti: FakeTaskInstance, emulator: EmulatorControl
    ) -> None:
        instance_id = emulator.start("SupplierOnboarding", business_key="k")["id"]
        made = sensor(business_key="k", deferrable=deferrable)
        if deferrable:
            with pytest.raises(TaskDeferred):
                made.execute({"ti": ti})
        else:
            for _ in range(2):
                assert not made.poke({"ti": ti})
        assert self.shown(ti, instance_id)

    @pytest.mark.parametrize("outcome", ["approve", "reject"])
    def test_publishes_the_address_of_what_the_trigger_found(
        self, outcome: str, sensor: Any, ti: FakeTaskInstance, emulator: EmulatorControl, fire: Any
    ) -> None:
        made = sensor(business_key="k", deferrable=True, failed_bp_statuses=["Rejected"])
        with pytest.raises(TaskDeferred) as deferred:
            made.execute({"ti": ti})
        assert ti.pushed == []
        instance_id = emulator.start("PublishApproval", business_key="k")["id"]
        emulator.act(instance_id, outcome)
        event = fire(deferred.value.trigger)
        if outcome == "approve":
            made.execute_complete({"ti": ti}, event)
        else:
            with pytest.raises(errors.WaitFailedError):
                made.execute_complete({"ti": ti}, event)
        assert self.shown(ti, instance_id)

    def test_publishes_nothing_without_a_template(
        self, sensor: Any, ti: FakeTaskInstance, emulator: EmulatorControl
    ) -> None:
        instance_id = emulator.start("SupplierOnboarding")["id"]
        assert not sensor(instance_id=instance_id, template=None).poke({"ti": ti})
        assert ti.pushed == []
