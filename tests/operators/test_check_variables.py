"""``check_variables`` of the operators: unknown names are refused before anything is started or set."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.decorators.bpm import astro_bpm_task
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroSetBpmVariablesOperator,
    AstroZeroStartBpmBatchOperator,
    AstroZeroStartBpmInstanceOperator,
)
from tests.support.stores import HAS_TASK_STATE_STORE, TaskStateStore, needs_task_state_store
from tests.support.task_instance import FakeTaskInstance

BPM = "SupplierOnboarding"
NAMES = {"supplier": "ACME", "country": "CN"}


@pytest.fixture(autouse=True)
def _short_grace(
    emulator: EmulatorControl, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    del emulator
    connection = {**json.loads(emulator_server.connection_json()), "extra": {"start_grace": 0.3}}
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """Return the log, from standard output or from the logging module."""
    return lambda: "".join([*capsys.readouterr(), caplog.text])


def start(**arguments: Any) -> AstroZeroStartBpmInstanceOperator:
    return AstroZeroStartBpmInstanceOperator(
        task_id="gate",
        **{"bpm_name": BPM, "check_variables": True, "wait_for_completion": False, **arguments},
    )


def decorated(**arguments: Any) -> Any:
    variables = arguments.pop("variables")
    decorator: Any = astro_bpm_task(
        task_id="gate",
        **{"bpm_name": BPM, "check_variables": True, "wait_for_completion": False, **arguments},
    )
    return decorator(lambda: variables)().operator


def batch(*variables: dict[str, Any], **arguments: Any) -> AstroZeroStartBpmBatchOperator:
    return AstroZeroStartBpmBatchOperator(
        task_id="gate",
        launches=[{"variables": each} for each in variables],
        **{"bpm_name": BPM, "check_variables": True, "wait_for_completion": False, **arguments},
    )


def task_with_retries() -> FakeTaskInstance:
    return FakeTaskInstance("gate", retries=9, store=TaskStateStore() if HAS_TASK_STATE_STORE else None)


def run(operator: Any, ti: FakeTaskInstance | None = None) -> Any:
    return operator.execute((ti or task_with_retries()).context)


def reads(emulator: EmulatorControl) -> int:
    return emulator.counts()["definitions"] + emulator.counts()["definition"]


@pytest.mark.parametrize("make", [start, decorated])
def test_known_names_are_sent(make: Any, emulator: EmulatorControl) -> None:
    run(make(variables=NAMES))
    assert len(emulator.instances()) == 1
    assert reads(emulator) == 2


@pytest.mark.parametrize("make", [start, decorated])
def test_unknown_name_is_refused(make: Any, emulator: EmulatorControl) -> None:
    with pytest.raises(errors.UnknownVariablesError, match="'contry' \\(did you mean 'country'\\?\\)"):
        run(make(variables={**NAMES, "contry": "CN"}))
    assert emulator.counts()["start"] == 0


def test_checks_the_given_version(emulator: EmulatorControl) -> None:
    arguments = {"bpm_name": "InvoiceCheck", "variables": {"currency": "EUR"}}
    run(start(**arguments))
    with pytest.raises(errors.UnknownVariablesError, match="version '1.0.0' has no variable 'currency'"):
        run(start(**arguments, version="1.0.0"))
    assert emulator.counts()["start"] == 1


def test_is_off_by_default_and_then_reads_nothing(emulator: EmulatorControl) -> None:
    run(start(variables={"contry": "CN"}, check_variables=False))
    run(start())
    run(batch({"contry": "CN"}, check_variables=False))
    run(AstroZeroSetBpmVariablesOperator(
        task_id="set", instance_id=emulator.instances()[0]["id"], variables={"contry": "CN"}
    ))  # fmt: skip
    assert reads(emulator) == 0
    assert AstroZeroStartBpmInstanceOperator(task_id="s", bpm_name=BPM).check_variables is False
    assert batch().check_variables is True


@pytest.mark.parametrize("position", ["absent", "empty", "map"])
def test_impossible_check_is_logged_and_the_start_continues(
    position: str, emulator: EmulatorControl, said: Callable[[], str]
) -> None:
    emulator.switch(definition_variables=position)
    run(start(variables={"contry": "CN"}))
    assert len(emulator.instances()) == 1
    assert f"Cannot check whether BPM {BPM!r} version '1.0.0' has the variables 'contry'" in said()


@needs_task_state_store
@pytest.mark.parametrize("make", [start, lambda **more: batch({"contry": "CN"}, bpm_name=BPM)])
def test_retry_after_a_start_does_not_check_again(make: Any, emulator: EmulatorControl) -> None:
    """The instance is resumed even if the BPM has changed since, or its definition cannot be read any more."""
    ti = task_with_retries()
    emulator.switch(definition_variables="absent")
    run(make(variables={"contry": "CN"}), ti)
    emulator.switch(definition_variables="listed")
    emulator.fault("definitions", "status", status=503, times=9)
    ti.begin_try()
    run(make(variables={"contry": "CN"}), ti)
    assert len(emulator.instances()) == 1


def test_retry_of_a_refused_start_is_refused_again(emulator: EmulatorControl) -> None:
    ti = task_with_retries()
    for _ in range(2):
        with pytest.raises(errors.UnknownVariablesError):
            run(start(variables={"contry": "CN"}), ti)
        ti.begin_try()
    assert not emulator.instances()


def test_arguments_are_checked_before_definitions_are_read(emulator: EmulatorControl) -> None:
    with pytest.raises(ValueError, match="variables must be a mapping"):
        run(start(variables=["country"]))
    assert not any(emulator.counts().values())


def test_batch_reads_each_definition_once(emulator: EmulatorControl) -> None:
    many = [{"supplier": str(number), "country": "CN"} for number in range(50)]
    run(batch(*many))
    assert len(emulator.instances()) == 50
    assert reads(emulator) == 2


def test_batch_error_names_the_launch_and_nothing_starts(emulator: EmulatorControl) -> None:
    with pytest.raises(
        errors.UnknownVariablesError, match="'contry'.*first launch with such a name is launch 3"
    ):
        run(batch(NAMES, {}, {**NAMES, "contry": "CN"}, {"contry": "DE"}))
    assert emulator.counts()["start"] == 0


def test_batch_of_several_bpms(emulator: EmulatorControl) -> None:
    launches = [
        {"bpm_name": BPM, "variables": NAMES},
        {"bpm_name": "Instant", "variables": {"note": "x"}},
        {"bpm_name": "InvoiceCheck", "version": "1.0.0", "variables": {"currency": "EUR"}},
    ]
    with pytest.raises(
        errors.UnknownVariablesError, match="'InvoiceCheck' version '1.0.0' has no variable 'currency'"
    ):
        run(AstroZeroStartBpmBatchOperator(task_id="gate", launches=launches, check_variables=True))
    assert emulator.counts()["start"] == 0


def test_batch_without_validate_first_cannot_check_variables() -> None:
    with pytest.raises(ValueError, match="check_variables needs validate_first=True"):
        batch(NAMES, validate_first=False)


def test_setting_variables(emulator: EmulatorControl) -> None:
    one = emulator.start("InvoiceCheck", version="1.0.0")["id"]

    def set_them(**variables: Any) -> None:
        run(AstroZeroSetBpmVariablesOperator(
            task_id="set", instance_id=one, variables=variables, check_variables=True
        ))  # fmt: skip

    set_them(invoice="7")
    assert emulator.instance(one)["variables"]["invoice"] == "7"
    with pytest.raises(errors.UnknownVariablesError, match="version '1.0.0' has no variable 'currency'"):
        set_them(invoice="8", currency="EUR")
    assert emulator.counts()["variables"] == 1
