"""The doctor tells the truth about every switch of the emulator, in every position, and changes nothing unasked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, get_type_hints

import pytest

from airflow_provider_astrobpm.doctor.findings import DESCRIPTIONS, READ_ONLY_FINDINGS
from airflow_provider_astrobpm.emulator.remote import EmulatorControl
from airflow_provider_astrobpm.emulator.switches import Switches
from tests.conftest import positions
from tests.doctor.conftest import PROCESS, WRITES, Examine
from tests.doctor.oracle import OTHERS, truth

# Positions of numeric switches besides those that all tests know: what never shows in time, odd zones, caps at the edge.
MORE: list[tuple[str, Any]] = [
    ("start_lag", 100),
    ("action_lag", 100),
    ("utc_offset", 5.5),
    ("utc_offset", -11),
    ("row_cap", 2),
    ("row_cap", 6),
    ("row_cap", 7),
]
MANY = {"row_cap": 100, "row_order": 20}  # how many instances more it takes to show a switch
# No point tells of these: deleting cannot be undone, and the API reference keeps it for administrators; no definition is read by
# its id; and how an empty list, a missing instance, a code and the beginning of an answer are written makes no difference to anybody.
UNSEEN = {
    "deleting_open",
    "definition_variables",
    "missing_by_id",
    "empty_list",
    "numeric_codes",
    "byte_order_mark",
}


def contradictions(report: Any, chosen: dict[str, Any], others: int) -> list[str]:
    """Every line of a report that contradicts the emulator's truth, and every point that is missing or too much."""
    says = truth(chosen, starts=report.process is not None, others=others)
    wrong = [
        f"{name}: {finding.value!r} ({finding.fine}), not {says[name]}: {finding.sentence}"
        for name, finding in report.findings.items()
        if name in says and not says[name].allows(finding)
    ]
    return wrong + [f"{name}: missing, or not known here" for name in set(says) ^ set(report.findings)]


def test_every_point_is_in_the_oracle() -> None:
    chosen = asdict(Switches())
    assert set(truth(chosen, starts=False, others=OTHERS)) == set(READ_ONLY_FINDINGS)
    assert set(truth(chosen, starts=True, others=OTHERS)) == set(DESCRIPTIONS)


def test_every_switch_changes_what_is_true() -> None:
    for switch in get_type_hints(Switches):
        answers = [
            truth(asdict(Switches()) | {switch: position}, starts=True, others=OTHERS + MANY.get(switch, 0))
            for name, position in positions()
            if name == switch
        ]
        assert (len({repr(answer) for answer in answers}) > 1) is (switch not in UNSEEN), switch


@pytest.mark.parametrize("process", [None, PROCESS], ids=["read-only", "start"])
@pytest.mark.parametrize(("switch", "position"), [*positions(), *MORE])
def test_the_truth_in_every_position(
    switch: str,
    position: Any,
    process: str | None,
    emulator: EmulatorControl,
    populate: Callable[..., None],
    own_instances: Callable[[], list[dict[str, Any]]],
    run: Examine,
) -> None:
    others = OTHERS + (MANY.get(switch, 0) if (switch, position) not in MORE else 0)
    populate(more=others - OTHERS)
    emulator.switch(**{switch: position})
    before = emulator.instances()
    report = run(process)

    assert contradictions(report, asdict(Switches()) | {switch: position}, others) == []
    assert report.exit_code == 0
    assert emulator.instances()[: len(before)] == before
    assert report.not_ended == []
    assert all(instance["closed"] for instance in own_instances())
    counts = emulator.counts()
    assert report.requests == sum(counts.values())
    if process is None:
        assert own_instances() == []
        assert all(counts[kind] == 0 for kind in WRITES)
        # A refusal that looks like a failure of the server is asked for once more.
        assert report.requests <= (34 if position == 500 else 31)


def test_in_the_first_position_of_every_switch_every_point_is_told(
    populate: Callable[..., None], run: Examine
) -> None:
    populate()
    assert [name for name, finding in run(PROCESS).findings.items() if finding.value is None] == []
    report = run()
    assert [name for name, finding in report.findings.items() if finding.value is None] == ["timezone"]
    assert report.requests == 29


def test_where_no_instance_shows_nothing_is_guessed(emulator: EmulatorControl, run: Examine) -> None:
    untold = [name for name, finding in run().findings.items() if finding.value is None]
    needing_two = ["order", "own_order", "row_cap"]
    needing_one = ["fields", "business_keys", "others", "ended", "get_by_id", "get_variables", "timezone"]
    assert sorted(untold) == sorted(needing_one + needing_two)
    report = run(PROCESS)
    assert [name for name, finding in report.findings.items() if finding.value is None] == needing_two
    assert report.findings["others"].value == "none seen"
    emulator.switch(several_states="repeated", unknown_state="empty", get_by_id="row")
    report = run(PROCESS)
    assert report.findings["states_repeated"].value == "honoured"
    assert report.findings["get_by_id"].value == "row"
