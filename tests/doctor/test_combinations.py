"""Switches in any positions at once: one may hide what another does, but what is told is what there is."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_astrobpm.emulator.remote import EmulatorControl
from tests.conftest import positions
from tests.doctor.conftest import PROCESS, Examine
from tests.doctor.test_positions import NO_SWITCH, TRUTH

Chosen = dict[str, Any]

# Where another switch makes that one do something else, so that its table does not say what there is to see.
OVERRULED: dict[str, Callable[[Chosen], bool]] = {
    "unknown_field": lambda chosen: not chosen["fields_honoured"],  # then no column is looked at
    "acting_twice": lambda chosen: not chosen["keep_closed"],  # then what has ended is unknown
    "acting_on_closed": lambda chosen: not chosen["keep_closed"],
    "several_states": lambda chosen: (
        chosen["unknown_state"] == "empty"
    ),  # then "A,B" is the name of an empty state
    "row_cap": lambda chosen: chosen["row_cap"] == 100,  # no list here is as long
    "utc_offset": lambda chosen: bool(chosen["clock_skew"]),  # then the clock is in another zone, or in none
    "clock_skew": lambda chosen: chosen["start_time_form"] != "documented" or bool(chosen["utc_offset"]),
    "start_time_form": lambda chosen: bool(chosen["clock_skew"]),
    "see_others": lambda chosen: chosen["row_cap"] is not None,  # the cap hides them as well
}


@pytest.mark.parametrize("seed", range(16))
def test_what_is_told_is_true_whatever_else_is_switched(
    seed: int,
    emulator: EmulatorControl,
    populate: Callable[..., None],
    own_instances: Callable[[], list[dict[str, Any]]],
    run: Examine,
) -> None:
    populate(more=35)
    by_name: dict[str, list[Any]] = {}
    for name, position in positions():
        by_name.setdefault(name, []).append(position)
    dice = random.Random(seed)
    chosen = {name: dice.choice(choices) for name, choices in by_name.items()}
    emulator.switch(**chosen)
    report = run(PROCESS)
    values = {name: point.value for name, point in report.points.items() if point.value is not None}
    for name, rows in TRUTH.items():
        if name not in OVERRULED or not OVERRULED[name](chosen):
            for row in rows:
                assert row.point not in values or values[row.point] == row.starting[chosen[name]]
    for point, truth in NO_SWITCH.items():
        assert point not in values or values[point] == truth
    open_ones = {instance["id"] for instance in own_instances() if not instance["closed"]}
    assert open_ones <= {start.instance_id for start in report.not_ended}
    assert report.exit_code == int(bool(report.not_ended))
