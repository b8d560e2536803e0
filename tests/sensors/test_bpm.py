"""The sensor against the emulator, one poke at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowSensorTimeout, AirflowSkipException

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.sensors.bpm import AstroZeroBpmInstanceSensor

MakeSensor = Callable[..., AstroZeroBpmInstanceSensor]


@pytest.fixture
def sensor(emulator: EmulatorControl, emulator_time: Any) -> MakeSensor:
    """Make sensors whose client advances the emulator's clock instead of waiting."""

    def make(**arguments: Any) -> AstroZeroBpmInstanceSensor:
        made = AstroZeroBpmInstanceSensor(task_id="t", **{"poke_interval": 0, "timeout": 600, **arguments})
        emulator_time(made.hook.client, emulator)
        return made

    return make


def poke(made: AstroZeroBpmInstanceSensor) -> dict[str, Any] | None:
    answer = made.poke({})
    assert bool(answer) is (answer.xcom_value is not None)
    result: dict[str, Any] | None = answer.xcom_value
    return result


def test_waits_for_an_instance_by_id(sensor: MakeSensor, emulator: EmulatorControl) -> None:
    instance = emulator.start("NightlyReconciliation")
    made = sensor(instance_id=instance["id"])
    assert poke(made) is None
    emulator.advance(2)
    result = poke(made)
    assert result is not None
    assert (result["id"], result["state"], result["bp_status"]) == (instance["id"], "Completed OK", "Done")


def test_waits_for_a_key_that_no_instance_has_yet(sensor: MakeSensor, emulator: EmulatorControl) -> None:
    made = sensor(business_key="supplier-ACME", bpm_name="SupplierOnboarding")
    assert poke(made) is None
    emulator.start("PublishApproval", business_key="supplier-ACME")
    assert poke(made) is None
    instance = emulator.start("SupplierOnboarding", business_key="supplier-ACME")
    assert poke(made) is None
    emulator.act(instance["id"], "complete")
    emulator.advance(2)
    result = poke(made)
    assert result is not None
    assert result["bp_status"] == "Onboarded"


@pytest.mark.parametrize("given", ["supplier-ACME", " supplier-ACME "])
def test_blanks_around_a_business_key_are_not_significant(
    sensor: MakeSensor, emulator: EmulatorControl, given: str
) -> None:
    emulator.switch(key_form="padded")
    instance = emulator.start("NightlyReconciliation", business_key="supplier-ACME")
    made = sensor(business_key=given)
    emulator.advance(2)
    result = poke(made)
    assert result is not None
    assert (result["id"], result["business_key"]) == (instance["id"], "supplier-ACME")


def test_polls_by_id_after_the_key_was_found(sensor: MakeSensor, emulator: EmulatorControl) -> None:
    emulator.start("SupplierOnboarding", business_key="k")
    made = sensor(business_key="k")
    poke(made)
    poke(made)
    emulator.reset_counts()
    poke(made)
    assert emulator.counts()["query"] == 1


def test_another_business_status_fails(sensor: MakeSensor, emulator: EmulatorControl) -> None:
    instance = emulator.start("PublishApproval")
    emulator.act(instance["id"], "reject")
    with pytest.raises(
        errors.WaitFailedError, match="business status 'Rejected'; the wait was for .* 'Approved'"
    ):
        poke(sensor(instance_id=instance["id"], bp_statuses=["Approved"]))


@pytest.mark.parametrize("state", ["Broken", "Terminated", "User Terminated"])
@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_failed_instance_fails_instead_of_skipping(
    state: str, mode: str, sensor: MakeSensor, emulator: EmulatorControl
) -> None:
    instance = emulator.start("SupplierOnboarding")
    emulator.move(instance["id"], state=state)
    with pytest.raises(errors.WaitFailedError, match=f"ended in state '{state}'"):
        poke(sensor(instance_id=instance["id"], mode=mode, soft_fail=True))
    assert poke(sensor(instance_id=instance["id"], states=[state])) is not None


def test_on_suspended_decides_about_a_suspended_instance(
    sensor: MakeSensor, emulator: EmulatorControl
) -> None:
    instance = emulator.start("SupplierOnboarding")
    emulator.move(instance["id"], state="Suspended")
    assert poke(sensor(instance_id=instance["id"])) is None
    with pytest.raises(errors.WaitFailedError, match="suspended"):
        poke(sensor(instance_id=instance["id"], on_suspended="fail"))


def test_missing_instance_fails(sensor: MakeSensor, emulator: EmulatorControl) -> None:
    with pytest.raises(errors.InstanceNotFoundError, match="'002Nx' is in none of the states"):
        poke(sensor(instance_id="002Nx"))


def test_new_instance_may_become_visible_within_the_grace(
    sensor: MakeSensor, emulator: EmulatorControl
) -> None:
    emulator.switch(start_lag=8)
    instance = emulator.start("SupplierOnboarding")
    assert poke(sensor(instance_id=instance["id"])) is None


def test_id_rendered_to_none_is_refused(sensor: MakeSensor, emulator: EmulatorControl) -> None:
    made = sensor(instance_id="{{ a template }}")
    made.instance_id = None
    with pytest.raises(ValueError, match="instance_id was provided, but rendered as None"):
        poke(made)


def test_key_of_several_open_instances_fails(sensor: MakeSensor, emulator: EmulatorControl) -> None:
    for _ in range(2):
        emulator.start("SupplierOnboarding", business_key="k")
    with pytest.raises(errors.SeveralInstancesError, match="Pass the instance_id"):
        poke(sensor(business_key="k"))


def test_soft_fail_skips_on_a_timeout(sensor: MakeSensor, emulator: EmulatorControl) -> None:
    instance = emulator.start("SupplierOnboarding")
    arguments = {"instance_id": instance["id"], "timeout": 0}
    with pytest.raises(AirflowSensorTimeout):
        sensor(**arguments).execute({})
    with pytest.raises(AirflowSkipException):
        sensor(**arguments, soft_fail=True).execute({})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "exactly one of instance_id and business_key"),
        ({"instance_id": "1", "business_key": "k"}, "exactly one of instance_id and business_key"),
        ({"instance_id": "1", "bpm_name": "A"}, "bpm_name has no effect with an instance_id"),
        ({"instance_id": "1", "states": ["Complete"]}, "states must be one of"),
        ({"instance_id": "1", "on_suspended": "ignore"}, "on_suspended"),
        ({"instance_id": "1", "poke_interval": -1}, "poke_interval"),
        ({"instance_id": "1", "mode": "sleep"}, "mode"),
    ],
)
def test_bad_arguments_fail_the_parsing_of_the_dag(arguments: dict[str, Any], words: str) -> None:
    # Airflow checks its own arguments; before 3.2 with an AirflowException.
    with pytest.raises((ValueError, AirflowException), match=words):
        AstroZeroBpmInstanceSensor(task_id="t", **arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"instance_id": " "}, "instance_id"),
        ({"instance_id": "1", "bp_statuses": map(str, ["Approved"])}, "bp_statuses must be a list"),
        ({"instance_id": "1", "bp_statuses": []}, "bp_statuses must not be empty"),
        ({"business_key": ""}, "business_key"),
        ({"instance_id": "1", "states": ["Done"]}, "states must be one of"),
        ({"instance_id": "1", "bp_statuses": "Approved"}, "bp_statuses must be a list"),
        ({"business_key": "None"}, "business_key must not be 'None': a template renders this"),
        ({"business_key": "k", "bpm_name": "None"}, "bpm_name must not be 'None'"),
        ({"instance_id": "undefined"}, "instance_id must not be 'undefined'"),
        ({"instance_id": "1", "bp_statuses": ["None"]}, "each of bp_statuses must not be 'None'"),
        ({"instance_id": "1", "states": ["None"]}, "each of states must not be 'None'"),
        ({"business_key": "a\0b"}, "business_key must be a text without NUL"),
    ],
)
def test_bad_values_send_no_request(
    arguments: dict[str, Any], words: str, sensor: MakeSensor, emulator: EmulatorControl
) -> None:
    with pytest.raises(ValueError, match=words):
        poke(sensor(**arguments))
    assert not any(emulator.counts().values())


@pytest.mark.parametrize("mode", ["poke", "reschedule", "deferred"])
def test_warns_once_if_only_failing_statuses_are_given(
    mode: str,
    emulator: EmulatorControl,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    sensor: MakeSensor,
) -> None:
    instance = emulator.start("PublishApproval")["id"]
    emulator.act(instance, "approve")
    ti: Any = SimpleNamespace(xcom_push=lambda **_: None, get_first_reschedule_date=lambda _: None)
    how: dict[str, Any] = {"deferrable": True} if mode == "deferred" else {"mode": mode}

    def said() -> int:
        sensor(instance_id=instance, failed_bp_statuses=["Rejected"], **how).execute({"ti": ti})
        return (capfd.readouterr().out + caplog.text).count(
            "Any business status except 'Rejected' opens this gate"
        )

    assert said() == 1
    caplog.clear()
    ti.get_first_reschedule_date = lambda _: datetime.now(timezone.utc)
    assert said() == (mode != "reschedule")


@pytest.mark.parametrize("mode", ["poke", "reschedule", "deferred"])
@pytest.mark.parametrize("name", [None, "SupplierOnboarding"])
def test_search_by_key_fails_at_once_if_lists_show_no_keys(
    mode: str, name: str | None, sensor: MakeSensor, emulator: EmulatorControl
) -> None:
    emulator.switch(business_keys_in_rows=False)
    emulator.start("SupplierOnboarding", business_key="k")
    how: dict[str, Any] = {"deferrable": True} if mode == "deferred" else {"mode": mode}
    ti: Any = SimpleNamespace(xcom_push=lambda **_: None, get_first_reschedule_date=lambda _: None)
    made = sensor(business_key="k", bpm_name=name, soft_fail=True, **how)
    with pytest.raises(
        errors.KeysNotShownError,
        match="On connection 'astro_zero_default': cannot search for business key 'k'",
    ):
        made.execute({"ti": ti})


def test_waits_if_only_other_processes_show_no_keys(sensor: MakeSensor, emulator: EmulatorControl) -> None:
    emulator.switch(business_keys_in_rows=False)
    made = sensor(business_key="k", bpm_name="SupplierOnboarding")
    assert poke(made) is None, "an empty list proves nothing"
    emulator.start("PublishApproval")
    assert poke(made) is None
    emulator.start("SupplierOnboarding", business_key="k")
    with pytest.raises(errors.KeysNotShownError):
        poke(made)


@pytest.mark.parametrize("argument", ["bpm_name", "bp_statuses", "states"])
def test_template_rendered_to_none_does_not_open_the_gate(
    argument: str, sensor: MakeSensor, emulator: EmulatorControl
) -> None:
    instance = emulator.start("PublishApproval", business_key="k")
    emulator.act(instance["id"], "reject")
    made = sensor(business_key="k", **{argument: "{{ a template }}"})
    setattr(made, argument, None)
    with pytest.raises(ValueError, match=f"{argument} was provided, but rendered as None"):
        poke(made)


def test_mapping_with_none_does_not_open_the_gate(sensor: MakeSensor, emulator: EmulatorControl) -> None:
    with pytest.raises(ValueError, match="bp_statuses is None; omit it instead"):
        sensor(instance_id="1", bp_statuses=None)


@pytest.mark.lookups_in_turn
def test_gate_with_every_switch_position(
    lookup: str,
    switch: str,
    position: Any,
    sensor: MakeSensor,
    emulator: EmulatorControl,
    emulator_server: EmulatorServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    emulator.switch(**{"get_by_id": "action" if lookup == "by_id" else "absent", switch: position})
    extra = {"instance_lookup": lookup, "max_attempts": 1}
    connection = {**json.loads(emulator_server.connection_json()), "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))
    seen = (switch, position) not in [("see_others", False), ("keep_closed", False)]
    for outcome, opens in [("approve", True), ("reject", False)]:
        instance = emulator.start("PublishApproval")
        emulator.advance(30)
        emulator.act(instance["id"], outcome)
        made = sensor(instance_id=instance["id"], bp_statuses=["Approved"])
        if opens and seen:
            result = poke(made)
            assert result is not None
            assert result["bp_status"] == "Approved"
        else:
            with pytest.raises(errors.WaitFailedError if seen else errors.InstanceNotFoundError):
                poke(made)
        emulator.vanish(instance["id"])  # a cap of one row hides older instances
