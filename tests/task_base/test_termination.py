"""The log of a kill on a worker if the instance or its end cannot be found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
from airflow_provider_astrobpm.task_base import termination


class Log:
    """Collects log lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __getattr__(self, _level: str) -> Any:
        return lambda words, *rest: self.lines.append(words % rest if rest else words)


@pytest.mark.parametrize(
    ("switches", "said"),
    [
        ({}, "no open instance was found"),
        ({"business_keys_in_rows": False}, "the lists show no business keys here, so it may still be open"),
    ],
)
def test_instance_is_not_called_missing_if_lists_show_no_keys(
    switches: dict[str, Any], said: str, emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(termination, "was_ended_by_user", lambda *_: True)
    monkeypatch.setattr(termination, "PATIENCE", 60.0)
    emulator.switch(**switches)
    emulator.start("SupplierOnboarding", business_key="other")
    log: Any = Log()
    task: Any = None
    termination.terminate_instance(AstroZeroHook().settings, termination.KillTarget("sought"), task, log)
    assert said in log.lines[-1]


def test_termination_without_visible_effect_is_logged_at_once(
    emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(termination, "was_ended_by_user", lambda *_: True)
    monkeypatch.setattr(termination, "PATIENCE", 60.0)
    emulator.switch(action_lag=30)
    instance_id = emulator.start("SupplierOnboarding", business_key="sought")["id"]
    log: Any = Log()
    task: Any = None
    termination.terminate_instance(
        AstroZeroHook().settings, termination.KillTarget("sought", instance_id), task, log
    )
    assert "terminate: accepted, but shows no effect yet: the instance is 'Waiting" in log.lines[-1]


def test_a_termination_is_not_recorded(
    emulator: EmulatorControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal may have interrupted the thread that writes, and has no time to wait for it."""
    monkeypatch.setattr(termination, "was_ended_by_user", lambda *_: True)
    monkeypatch.setattr(termination, "PATIENCE", 60.0)
    ids = [emulator.start("SupplierOnboarding", business_key=f"sought-{n}")["id"] for n in range(2)]
    log: Any = Log()
    task: Any = None
    settings = replace(AstroZeroHook().settings, record=str(tmp_path))
    termination.terminate_instance(settings, termination.KillTarget("sought-0", ids[0]), task, log)
    termination.terminate_batch(settings, {ids[1]: None}, log, max_concurrency=1)
    assert {emulator.instance(each)["state"] for each in ids} == {"Terminated"}
    assert not list(tmp_path.iterdir())
