"""The hook's check of variables against the emulator, with definitions in every possible form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook

HookMaker = Callable[..., AstroZeroHook]
Said = Callable[[], str]
BPM = "SupplierOnboarding"
READS = ("definitions", "definition")


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Said:
    """Return the log output, for any version of Airflow."""
    return lambda: "".join([*capsys.readouterr(), caplog.text])


def reads(emulator: EmulatorControl) -> list[int]:
    return [emulator.counts()[kind] for kind in READS]


def test_known_names_pass(hook: AstroZeroHook, emulator: EmulatorControl) -> None:
    assert hook.check_variables(BPM, {"country": "CN", "$Flow.Title": "T"})
    assert hook.check_variables("InvoiceCheck", ["invoice"], version="1.0.0")
    assert reads(emulator) == [2, 2]


def test_unknown_name_raises(hook: AstroZeroHook, emulator: EmulatorControl) -> None:
    with pytest.raises(errors.UnknownVariablesError) as caught:
        hook.check_variables(BPM, {"contry": "CN", "supplier": "ACME"})
    said = str(caught.value)
    assert said.startswith(
        f"On connection 'my_conn': BPM {BPM!r} version '1.0.0' has no variable 'contry' (did you mean 'country'?)."
    )
    assert "ACME" not in said
    assert isinstance(caught.value, ValueError)
    assert not emulator.instances()


def test_no_names_send_nothing(hook: AstroZeroHook, emulator: EmulatorControl) -> None:
    assert hook.check_variables(BPM, {})
    assert hook.check_variables(BPM, ["$Flow.Title"])
    assert reads(emulator) == [0, 0]


@pytest.mark.parametrize(
    ("position", "why"),
    [
        ("absent", "its definition lists no variables"),
        ("null", "its definition lists no variables"),
        ("empty", "its definition lists no variables"),
        ("unnamed", "its definition lists variables in an undocumented form"),
        ("map", "its definition lists variables in an undocumented form"),
    ],
)
def test_definition_without_variables_logs_a_warning(
    position: str, why: str, hook: AstroZeroHook, emulator: EmulatorControl, said: Said
) -> None:
    emulator.switch(definition_variables=position)
    assert not hook.check_variables(BPM, ["contry"])
    assert f"Cannot check whether BPM {BPM!r} version '1.0.0' has the variables 'contry': {why}" in said()


@pytest.mark.parametrize(
    ("name", "version", "why"),
    [
        ("NoSuchThing", None, "Cannot check whether BPM 'NoSuchThing' has the variables 'a': no definition with this"),
        ("InvoiceCheck", "9", "BPM 'InvoiceCheck' version '9' has the variables 'a': no version is"),
    ],
)  # fmt: skip
def test_unlisted_bpm_logs_a_warning(
    name: str, version: str | None, why: str, hook: AstroZeroHook, said: Said
) -> None:
    assert not hook.check_variables(name, ["a"], version=version)
    assert why in said()


@pytest.mark.parametrize("kind", READS)
def test_unreadable_definition_raises(kind: Any, hook: AstroZeroHook, emulator: EmulatorControl) -> None:
    emulator.fault(kind, "status", status=400, res_code="405230070", res_msg="no right")
    with pytest.raises(errors.RefusedError, match="BPM definition"):
        hook.check_variables(BPM, ["country"])


def test_variables_of_an_instance_are_checked_against_its_version(
    hook: AstroZeroHook, emulator: EmulatorControl, said: Said
) -> None:
    instance = hook.start_instance("InvoiceCheck", version="1.0.0")
    assert hook.check_variables_of(instance, ["invoice"])
    with pytest.raises(errors.UnknownVariablesError, match=r"version '1\.0\.0' has no variable 'x'"):
        hook.check_variables_of(instance, ["x"])
    emulator.distort(instance.id, {"version": None})
    assert not hook.check_variables_of(hook.get_instance(instance.id), ["x"])
    warning = said()
    assert "Cannot check the variables of instance " in warning
    assert "it does not show its version" in warning
