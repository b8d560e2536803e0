"""Random combinations of the emulator's switches. One switch may hide the effect of another, but no finding may be wrong."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from tests.conftest import positions
from tests.doctor.conftest import PROCESS, Examine
from tests.doctor.expected_findings import OTHERS
from tests.doctor.test_switch_positions import contradictions

COMBINATIONS = int(os.environ.get("COMBINATIONS", "120"))
MORE = 35  # additional instances of another user, so that lists can be truncated


def combination(seed: int) -> dict[str, Any]:
    """Return a position for every switch, determined by a seed."""
    by_name: dict[str, list[Any]] = {}
    for name, position in positions():
        by_name.setdefault(name, []).append(position)
    dice = random.Random(seed)
    return {name: dice.choice(choices) for name, choices in by_name.items()}


@pytest.mark.parametrize("seed", range(COMBINATIONS))
def test_findings_are_true_in_random_combinations_of_switches(
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
