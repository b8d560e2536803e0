"""How a task handles the event that it resumes with: only a known success succeeds."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_provider_astrobpm._airflow import user_action
from airflow_provider_astrobpm._airflow.user_action import TaskInstanceRef
from airflow_provider_astrobpm.client import errors, operations
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator
from airflow_provider_astrobpm.sensors.bpm import AstroZeroBpmInstanceSensor
from airflow_provider_astrobpm.task_base import termination
from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmInstanceTrigger
from airflow_provider_astrobpm.waiting import event_payload

UNKNOWN = [
    None,
    {},
    {"status": "timeout"},
    {"status": "success"},
    "success",
    {"status": "success", "instance": {}},
]
ENDED = {"id": "1", "name": "A", "state": "Completed OK", "is_closed": True}
NO_SUCCESS = [
    {"status": "success", "instance": {**ENDED, "state": "Running", "is_closed": False}},
    {"status": "success", "instance": {**ENDED, "state": "Terminated"}},
    {"status": "success", "instance": {**ENDED, "state": "Archived"}},
]
# What Airflow resumes a task with when it ended the deferral itself.
AIRFLOW_FAILED = "__fail__"
TIMED_OUT = {"error": "Trigger timeout"}
CRASHED = {"error": "Trigger failure", "traceback": ["Traceback", "RuntimeError: no"]}


def operator(**arguments: Any) -> AstroZeroStartBpmInstanceOperator:
    return AstroZeroStartBpmInstanceOperator(task_id="task", bpm_name="SupplierOnboarding", **arguments)


@pytest.fixture
def context(make_runner: Any, emulator: EmulatorControl) -> dict[str, Any]:
    """The context of a start operator that has started an instance and waits for it."""
    ti = make_runner().ti
    ti.xcom_push("instance_id", emulator.start("SupplierOnboarding")["id"])
    return {"ti": ti}


@pytest.mark.parametrize("arrived", [*UNKNOWN, *NO_SUCCESS], ids=repr)
def test_an_event_without_a_known_success_fails_the_start_operator(arrived: Any, context: Any) -> None:
    with pytest.raises(errors.UnknownEventError, match="may still be open") as caught:
        operator().resume_execution("execute_complete", {"event": arrived}, context)
    assert repr(arrived)[:400] in str(caught.value)


@pytest.mark.parametrize("arrived", [*UNKNOWN, *NO_SUCCESS], ids=repr)
@pytest.mark.parametrize("soft_fail", [False, True])
def test_an_event_without_a_known_success_fails_the_sensor(
    arrived: Any, soft_fail: bool, context: Any
) -> None:
    sensor = AstroZeroBpmInstanceSensor(task_id="task", instance_id="1", soft_fail=soft_fail)
    with pytest.raises(errors.UnknownEventError, match="does not understand its trigger's event"):
        sensor.resume_execution("execute_complete", {"event": arrived}, context)


def test_never_fail_skips_on_any_failure(context: Any) -> None:
    sensor = AstroZeroBpmInstanceSensor(task_id="task", instance_id="1", never_fail=True)
    with pytest.raises(AirflowSkipException):
        sensor.resume_execution("execute_complete", {"event": None}, context)


class TestAnotherInstanceUnderTheId:
    """The task resumes with what was known about its instance when it was deferred."""

    @pytest.mark.parametrize("other", [{"name": "Another"}, {"business_key": "z"}], ids=str)
    def test_fails_the_task(self, other: dict[str, str], context: Any) -> None:
        instance_id = context["ti"].xcoms["instance_id"]
        ended = {**ENDED, "id": instance_id, "name": "SupplierOnboarding", "business_key": "k", **other}
        arrived = {"event": {"status": "success", "instance": ended}, "known": [["SupplierOnboarding"], "k"]}
        sensor = AstroZeroBpmInstanceSensor(task_id="task", instance_id=instance_id)
        for task in (operator(), sensor):
            with pytest.raises(errors.AnotherInstanceError, match="it was of 'SupplierOnboarding'"):
                task.resume_execution("execute_complete", arrived, context)

    def test_is_accepted_if_nothing_was_known(self, context: Any) -> None:
        ended = {**ENDED, "id": context["ti"].xcoms["instance_id"]}
        without: list[dict[str, Any]] = [{}, {"known": [[], None]}]
        for known in without:
            arrived = {"event": {"status": "success", "instance": ended}, **known}
            assert (
                operator().resume_execution("execute_complete", arrived, context)["state"] == "Completed OK"
            )

    def test_fails_the_task_when_it_polls_itself(self, context: Any, emulator: EmulatorControl) -> None:
        instance_id = context["ti"].xcoms["instance_id"]
        emulator.act(instance_id, "complete")
        emulator.advance(2)
        emulator.distort(instance_id, {"name": "Another"})
        arrived = {**TIMED_OUT, "known": [["SupplierOnboarding"], None]}
        with pytest.raises(errors.AnotherInstanceError):
            operator(timeout=1).resume_execution(AIRFLOW_FAILED, arrived, context)

    @pytest.mark.parametrize("action", ["suspend", "terminate"])
    def test_is_not_terminated_at_the_deadline(
        self, action: Any, context: Any, emulator: EmulatorControl
    ) -> None:
        instance_id = context["ti"].xcoms["instance_id"]
        seen = BpmInstance(id=instance_id, name="Another", state="Running")
        timed_out = event_payload.dump(errors.WaitTimeoutError("it", 0, seen))
        with pytest.raises(
            errors.WaitTimeoutError,
            match=f"By 'on_timeout' '{action}' was tried. .* is not the same as before",
        ):
            operator(timeout=60, on_timeout=action).resume_execution(
                "execute_complete", {"event": timed_out}, context
            )
        assert emulator.counts()["action"] == 0


class TestDeferralEndedByAirflow:
    @pytest.fixture
    def instance_id(self, context: Any) -> str:
        instance_id: str = context["ti"].xcoms["instance_id"]
        return instance_id

    @pytest.mark.parametrize(("on_timeout", "closed"), [("leave", False), ("terminate", True)])
    def test_a_timeout_fails_the_start_operator(
        self,
        on_timeout: Any,
        closed: bool,
        emulator: EmulatorControl,
        context: Any,
        instance_id: str,
    ) -> None:
        with pytest.raises(errors.WaitTimeoutError, match=f"instance '{instance_id}' timed out") as caught:
            operator(on_timeout=on_timeout, timeout=1).resume_execution(AIRFLOW_FAILED, TIMED_OUT, context)
        assert ("may still be open" in str(caught.value)) is not closed
        assert emulator.instance(instance_id)["closed"] is closed

    @pytest.mark.parametrize(
        ("soft_fail", "end"), [(False, AirflowSensorTimeout), (True, AirflowSkipException)]
    )
    def test_a_timeout_fails_the_sensor(
        self, soft_fail: bool, end: type[Exception], context: Any, instance_id: str
    ) -> None:
        sensor = AstroZeroBpmInstanceSensor(task_id="task", instance_id=instance_id, soft_fail=soft_fail)
        with pytest.raises(end, match="timed out"):
            sensor.resume_execution(AIRFLOW_FAILED, TIMED_OUT, context)

    def test_a_timeout_is_ignored_if_the_instance_has_succeeded(
        self, emulator: EmulatorControl, context: Any, instance_id: str
    ) -> None:
        emulator.act(instance_id, "complete")
        emulator.advance(2)
        result = operator(timeout=1).resume_execution(AIRFLOW_FAILED, TIMED_OUT, context)
        assert (result["id"], result["state"]) == (instance_id, "Completed OK")

    def test_on_timeout_leaves_an_instance_that_has_just_succeeded(
        self, emulator: EmulatorControl, context: Any, instance_id: str
    ) -> None:
        for states, end in ((["Completed OK"], None), (["Terminated"], errors.WaitTimeoutError)):
            task = operator(on_timeout="terminate", timeout=1, states=states)
            timed_out = event_payload.dump(errors.WaitTimeoutError("it", 0, None))
            if end is None:
                ended = emulator.start("Instant")["id"]
                context["ti"].xcom_push("instance_id", ended)
                assert task.execute_complete(context, timed_out)["id"] == ended
            else:
                context["ti"].xcom_push("instance_id", instance_id)
                with pytest.raises(end):
                    task.execute_complete(context, timed_out)

    def test_a_crashed_trigger_fails_the_task(self, context: Any, instance_id: str) -> None:
        with pytest.raises(errors.AstroZeroError, match="The trigger failed: .*may still be open") as caught:
            operator().resume_execution(AIRFLOW_FAILED, CRASHED, context)
        assert repr(instance_id) in str(caught.value)
        sensor = AstroZeroBpmInstanceSensor(task_id="task", instance_id=instance_id, soft_fail=True)
        with pytest.raises(errors.AstroZeroError, match="The trigger failed"):
            sensor.resume_execution(AIRFLOW_FAILED, CRASHED, context)


class TestEventOfAnotherTask:
    """Airflow may hand over such an event if its database is SQLite; see ``event_payload``."""

    @pytest.fixture
    def strange(self, context: Any) -> dict[str, Any]:
        """The event that Airflow resumes this try with: the success of an instance that another task waited for."""
        context["ti"].id = "this try"
        instance = msgspec.convert(ENDED, BpmInstance)
        return {"event": event_payload.dump(instance, "another"), "deadline": time.time() + 3600}

    @pytest.fixture
    def tasks(self, context: Any) -> list[Any]:
        sensor = AstroZeroBpmInstanceSensor(task_id="task", instance_id=context["ti"].xcoms["instance_id"])
        return [operator(), sensor]

    def test_is_ignored_and_the_wait_continues(
        self, tasks: list[Any], strange: dict[str, Any], context: Any
    ) -> None:
        for task in tasks:
            with pytest.raises(TaskDeferred) as deferred:
                task.resume_execution("execute_complete", strange, context)
            again = deferred.value
            assert again.trigger.deadline == strange["deadline"]
            assert again.trigger.instance_id == context["ti"].xcoms["instance_id"]
            assert again.kwargs == {
                "deadline": strange["deadline"],
                "known": [["SupplierOnboarding"], None],
                "instance_id": context["ti"].xcoms["instance_id"],
            }

    def test_is_ignored_and_a_finished_wait_ends(
        self, tasks: list[Any], strange: dict[str, Any], context: Any, emulator: EmulatorControl
    ) -> None:
        emulator.act(context["ti"].xcoms["instance_id"], "complete")
        emulator.advance(2)
        for task in tasks:
            ended = task.resume_execution("execute_complete", strange, context)
            assert ended["id"] == context["ti"].xcoms["instance_id"]

    def test_polls_itself_with_max_poll_failure_time(
        self, strange: dict[str, Any], context: Any, emulator: EmulatorControl
    ) -> None:
        emulator.fault("any", "status", status=503, times=1000)
        sensor = AstroZeroBpmInstanceSensor(
            task_id="task", instance_id=context["ti"].xcoms["instance_id"], max_poll_failure_time=0
        )
        for task in (operator(max_poll_failure_time=0), sensor):
            task.hook.client._sleep = lambda _: None
            with pytest.raises(errors.ServerError, match="'max_poll_failure_time'"):
                task.resume_execution("execute_complete", strange, context)

    def test_its_own_event_is_accepted(self, context: Any) -> None:
        context["ti"].id = "this try"
        context["ti"].xcom_push("instance_id", "1")
        own = event_payload.dump(msgspec.convert(ENDED, BpmInstance), "this try")
        assert operator().resume_execution("execute_complete", {"event": own}, context)["id"] == "1"

    def test_an_event_without_a_task_instance_must_be_for_its_instance(self, context: Any) -> None:
        strange = event_payload.dump(msgspec.convert(ENDED, BpmInstance))
        sensor = AstroZeroBpmInstanceSensor(task_id="task", instance_id="2")
        for task in (operator(), sensor):
            with pytest.raises(errors.UnknownEventError, match="it reports another instance than"):
                task.resume_execution("execute_complete", {"event": strange}, context)

    def test_nor_can_it_end_a_wait_at_another_deadline(self, context: Any, emulator: EmulatorControl) -> None:
        seen = msgspec.convert({**ENDED, "state": "Running", "is_closed": False}, BpmInstance)
        strange = event_payload.dump(errors.WaitTimeoutError("instance '1'", 0, seen))
        task = operator(timeout=60, on_timeout="terminate")
        with pytest.raises(errors.UnknownEventError, match="it reports another instance than"):
            task.resume_execution("execute_complete", {"event": strange}, context)
        assert emulator.counts()["action"] == 0

    def test_the_id_of_the_deferral_counts_and_not_an_xcom_that_others_changed(self, context: Any) -> None:
        context["ti"].xcom_push("instance_id", "1")
        strange = {"event": event_payload.dump(msgspec.convert(ENDED, BpmInstance)), "instance_id": "2"}
        with pytest.raises(errors.UnknownEventError, match="it reports another instance than '2'"):
            operator().resume_execution("execute_complete", strange, context)

    def test_opens_no_gate_whose_instance_is_unknown(self, context: Any) -> None:
        del context["ti"].xcoms["instance_id"]
        strange = {"event": event_payload.dump(msgspec.convert(ENDED, BpmInstance))}
        with pytest.raises(errors.UnknownEventError, match="it is unknown which instance this task waits"):
            operator().resume_execution("execute_complete", strange, context)

    @pytest.mark.parametrize(
        ("shown", "is_own"),
        [
            ({"business_key": "order-1"}, True),
            ({"business_key": " order-1 "}, True),
            ({"business_key": "order-2"}, False),
            ({"business_key": None}, False),
            ({"business_key": "order-1", "name": "Another"}, False),
        ],
        ids=str,
    )
    def test_a_sensor_compares_the_business_key(
        self, shown: dict[str, Any], is_own: bool, context: Any
    ) -> None:
        sensor = AstroZeroBpmInstanceSensor(task_id="task", business_key="order-1", bpm_name="A")
        event = event_payload.dump(msgspec.convert({**ENDED, **shown}, BpmInstance))
        if is_own:
            assert sensor.resume_execution("execute_complete", {"event": event}, context)["id"] == "1"
            return
        with pytest.raises(errors.UnknownEventError, match="another instance than one with business key"):
            sensor.resume_execution("execute_complete", {"event": event}, context)

    def test_a_sensor_that_has_found_its_instance_waits_for_that_one(
        self, context: Any, emulator: EmulatorControl
    ) -> None:
        found = emulator.start("SupplierOnboarding", business_key="order-1")["id"]
        arguments: dict[str, Any] = {"task_id": "task", "business_key": "order-1", "deferrable": True}
        with pytest.raises(TaskDeferred) as deferred:
            AstroZeroBpmInstanceSensor(**arguments).execute(context)
        kwargs = deferred.value.kwargs or {}
        assert kwargs["instance_id"] == found
        other = {**ENDED, "name": "SupplierOnboarding", "business_key": "order-1"}
        strange = {"event": event_payload.dump(msgspec.convert(other, BpmInstance)), **kwargs}
        with pytest.raises(errors.UnknownEventError, match=f"it reports another instance than '{found}'"):
            AstroZeroBpmInstanceSensor(**arguments).resume_execution("execute_complete", strange, context)


class TestDeferring:
    def test_a_task_that_does_not_wait_does_not_defer(
        self, emulator: EmulatorControl, make_runner: Any
    ) -> None:
        runner = make_runner()
        result = runner.run(lambda: operator(wait_for_completion=False, deferrable=True))
        assert (result["is_closed"], runner.deferrals) == (False, [])

    def test_a_closed_instance_needs_no_deferral(self, emulator: EmulatorControl, make_runner: Any) -> None:
        runner = make_runner()
        ended = emulator.start("Instant")
        sensor = AstroZeroBpmInstanceSensor(task_id="task", instance_id=ended["id"], deferrable=True)
        assert runner.run(lambda: sensor)["state"] == "Completed OK"
        instant = AstroZeroStartBpmInstanceOperator(task_id="task", bpm_name="Instant", deferrable=True)
        assert runner.run(lambda: instant)["state"] == "Completed OK"
        assert runner.deferrals == []

    @pytest.mark.parametrize(
        ("arguments", "end"), [({}, AirflowSensorTimeout), ({"soft_fail": True}, AirflowSkipException)]
    )
    def test_a_deadline_passed_at_the_first_poll_needs_no_deferral(
        self, arguments: dict[str, Any], end: type[Exception], emulator: EmulatorControl, make_runner: Any
    ) -> None:
        runner = make_runner()
        instance_id = emulator.start("SupplierOnboarding")["id"]
        sensor = AstroZeroBpmInstanceSensor(
            task_id="task", instance_id=instance_id, deferrable=True, timeout=0, **arguments
        )
        with pytest.raises(end):
            runner.run(lambda: sensor)
        assert runner.deferrals == []

    @pytest.mark.parametrize("default", [True, False])
    def test_uses_airflows_default(self, default: bool) -> None:
        probe = (
            "from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator as Start;"
            "from airflow_provider_astrobpm.sensors.bpm import AstroZeroBpmInstanceSensor as Sensor;"
            "print(Start(task_id='a', bpm_name='A').deferrable, Sensor(task_id='b', instance_id='1').deferrable)"
        )
        env = {**os.environ, "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": str(default)}
        shown = subprocess.run(
            [sys.executable, "-c", probe], env=env, check=True, capture_output=True, text=True, timeout=120
        )
        assert shown.stdout.split()[-2:] == [str(default)] * 2

    def test_starts_nothing_if_the_trigger_could_not_be_stored(
        self, emulator: EmulatorControl, make_runner: Any
    ) -> None:
        unstorable = operator(deferrable=True)
        unstorable.astro_zero_conn_id = object()  # type: ignore[assignment]
        with pytest.raises(TypeError, match="JSON"):
            make_runner().run(lambda: unstorable)
        assert not any(emulator.counts().values())

    @pytest.mark.parametrize(
        "arguments",
        [
            {"deferrable": False, "states": ["Waiting for user interaction"], "poll_interval": 1},
            {"deferrable": True, "wait_for_completion": False},
        ],
        ids=str,
    )
    def test_builds_no_trigger_in_a_task_that_does_not_defer(
        self,
        arguments: dict[str, Any],
        emulator: EmulatorControl,
        make_runner: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError("a trigger is built")

        monkeypatch.setattr(AstroZeroBpmInstanceTrigger, "__init__", refuse)
        make_runner().run(lambda: operator(**arguments))
        assert emulator.counts()["start"] == 1

    def test_encodes_its_variables_once(
        self, emulator: EmulatorControl, make_runner: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        built: list[Any] = []
        start = operations.start

        def noted(*name: str, **arguments: Any) -> Any:
            built.append(arguments["variables"])
            return start(*name, **arguments)

        monkeypatch.setattr(operations, "start", noted)
        make_runner().run(lambda: operator(wait_for_completion=False, variables={"applicant": "Li"}))
        assert built == [{"applicant": "Li"}]
        assert emulator.counts()["start"] == 1


class TestKillOnWorker:
    """Airflow calls ``on_kill`` in a signal handler, so it may interrupt the task anywhere."""

    @pytest.fixture
    def airflow_says(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
        def say(state: Any) -> None:
            def state_of(task: TaskInstanceRef) -> str | None:
                assert task == TaskInstanceRef("dag", "run", "task", -1)
                if isinstance(state, Exception):
                    raise state
                value: str | None = state
                return value

            monkeypatch.setattr(user_action, "task_state", state_of)

        return say

    @pytest.mark.parametrize(
        ("state", "arguments", "closed"),
        [
            ("failed", {}, True),
            ("success", {}, True),
            (None, {}, True),
            ("restarting", {}, True),
            (RuntimeError("no state today"), {}, False),
            ("running", {}, False),
            ("up_for_retry", {}, False),
            ("queued", {}, False),
            ("deferred", {}, False),
            ("failed", {"terminate_on_kill": False}, False),
        ],
    )
    def test_terminates_the_instance_unless_only_the_worker_stops(
        self,
        state: Any,
        arguments: dict[str, Any],
        closed: bool,
        airflow_says: Any,
        emulator: EmulatorControl,
        make_runner: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        airflow_says(state)
        task = operator(poll_interval=1, deferrable=False, **arguments)

        def interrupted(_seconds: float) -> None:
            task.on_kill()
            raise SystemExit("killed")

        monkeypatch.setattr(task.hook.client, "_sleep", interrupted)
        with pytest.raises(SystemExit, match="killed"):
            task.execute({"ti": make_runner().ti})
        (instance,) = emulator.instances()
        assert instance["closed"] is closed

    def test_terminates_nothing_after_the_end_of_the_task(
        self, airflow_says: Any, emulator: EmulatorControl, make_runner: Any
    ) -> None:
        """Airflow may end the process while callbacks run, when the task has already ended."""
        airflow_says("success")
        for arguments in ({"wait_for_completion": False}, {"timeout": 0.001}, {"deferrable": True}):
            task = operator(**{"poll_interval": 1, "deferrable": False, **arguments})
            with suppress(errors.WaitTimeoutError, TaskDeferred):
                task.execute({"ti": make_runner().ti})
            task.on_kill()
        assert [each["closed"] for each in emulator.instances()] == [False] * 3

    def test_terminates_nothing_if_airflow_is_busy(
        self, emulator: EmulatorControl, make_runner: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The signal may come while the task itself talks to Airflow and holds its lock."""
        monkeypatch.setattr(termination, "STATE_PATIENCE", 0.1)
        done = threading.Event()
        monkeypatch.setattr(user_action, "task_state", lambda _task: done.wait(30))
        task = operator(poll_interval=1, deferrable=False)

        def interrupted(_seconds: float) -> None:
            task.on_kill()
            raise SystemExit("killed")

        monkeypatch.setattr(task.hook.client, "_sleep", interrupted)
        with pytest.raises(SystemExit):
            task.execute({"ti": make_runner().ti})
        done.set()
        assert [each["closed"] for each in emulator.instances()] == [False]

    def test_terminates_nothing_before_the_start(self, emulator: EmulatorControl) -> None:
        operator().on_kill()
        assert not any(emulator.counts().values())
