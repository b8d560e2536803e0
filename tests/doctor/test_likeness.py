"""An emulator that is started like a report shows the doctor the same: emulator, doctor, emulator, doctor."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_astrobpm.doctor.report import Report
from airflow_provider_astrobpm.emulator import engine
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.doctor_report import read_report
from tests.doctor.conftest import PROCESS, Examine
from tests.doctor.test_combinations import MORE, combination

COMBINATIONS = int(os.environ.get("COMBINATIONS", "10"))
# Seconds by which a second measurement may differ: polls are that far apart, and Date has whole seconds.
TOLERANCES = {"start_lag": 12, "action_lag": 12, "clock": 2}


def known(report: Report) -> dict[str, Any]:
    """Return what the report knows; measured values with their tolerance."""
    values = {name: finding.value for name, finding in report.findings.items() if finding.value is not None}
    return values | {
        name: pytest.approx(values[name], abs=seconds)
        for name, seconds in TOLERANCES.items()
        if name in values
    }


@pytest.fixture
def repeat_ids(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function after which the emulator gives the same ids as before.

    Without an order by time they decide which instances a list shows that is cut off.
    """

    def repeat() -> None:
        dice = random.Random(0)
        monkeypatch.setattr(engine, "new_id", lambda prefix: f"{prefix}{dice.getrandbits(64):016x}")

    return repeat


@pytest.mark.parametrize("seed", range(COMBINATIONS))
def test_the_doctor_finds_the_same_in_an_emulator_like_its_report(
    seed: int,
    emulator: EmulatorControl,
    populate: Callable[..., None],
    repeat_ids: Callable[[], None],
    run: Examine,
    tmp_path: Path,
) -> None:
    repeat_ids()
    populate(more=MORE)
    chosen = combination(seed)
    emulator.switch(**chosen)
    process = PROCESS if seed % 4 else None
    before = run(process)
    path = tmp_path / "report.json"
    path.write_text(before.as_json(), encoding="utf-8")
    like = read_report(path)
    assert like.unlike == ()

    emulator.reset()
    repeat_ids()
    populate(more=MORE)
    emulator.switch(**like.switches.positions())
    after = run(process)
    shown, expected = known(after), known(before)
    assert {name: shown.get(name) for name in expected} == expected, json.dumps(chosen)
