"""Switches in any positions at once: one may hide what another does, but what is told is what there is."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_astrobpm.emulator.remote import EmulatorControl
from tests.conftest import positions
from tests.doctor.conftest import PROCESS, Examine
from tests.doctor.oracle import OTHERS
from tests.doctor.test_positions import contradictions

COMBINATIONS = int(os.environ.get("COMBINATIONS", "120"))
MORE = 35  # instances of somebody else, so that lists can be cut off


def combination(seed: int) -> dict[str, Any]:
    """Return a position of every switch, always the same for a seed."""
    by_name: dict[str, list[Any]] = {}
    for name, position in positions():
        by_name.setdefault(name, []).append(position)
    dice = random.Random(seed)
    return {name: dice.choice(choices) for name, choices in by_name.items()}


@pytest.mark.parametrize("seed", range(COMBINATIONS))
def test_what_is_told_is_true_whatever_else_is_switched(
    seed: int,
    emulator: EmulatorControl,
    populate: Callable[..., None],
    own_instances: Callable[[], list[dict[str, Any]]],
    run: Examine,
) -> None:
    populate(more=MORE)
    chosen = combination(seed)
    emulator.switch(**chosen)
    report = run(PROCESS if seed % 4 else None)
    assert contradictions(report, chosen, OTHERS + MORE) == []
    open_ones = {instance["id"] for instance in own_instances() if not instance["closed"]}
    assert open_ones <= {start.instance_id for start in report.not_ended}
    assert report.exit_code == int(bool(report.not_ended))
