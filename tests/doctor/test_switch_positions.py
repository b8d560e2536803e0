"""The doctor's findings are true in every position of every switch, and a read-only run changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, get_type_hints

import pytest

from airflow_provider_astrobpm.doctor.findings import DESCRIPTIONS, READ_ONLY_FINDINGS
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.switches import Switches
from tests.conftest import positions
from tests.doctor.conftest import PROCESS, WRITES, Examine
from tests.doctor.expected_findings import OTHERS, expected

# More positions of numeric switches: lags beyond the doctor's patience, unusual zones, and row caps at the boundary.
MORE: list[tuple[str, Any]] = [
    ("start_lag", 100),
    ("action_lag", 100),
    ("utc_offset", 5.5),
    ("utc_offset", -11),
    ("row_cap", 2),
    ("row_cap", 6),
    ("row_cap", 7),
]
MANY = {"row_cap": 100, "row_order": 20}  # additional instances needed to make a switch visible
# No finding covers these. Deleting cannot be undone, and the API reference reserves it for administrators. The doctor reads no
# definition by its id. The other switches vary spellings that make no difference.
UNSEEN = {
    "deleting_open",
    "definition_variables",
    "missing_by_id",
    "empty_list",
    "numeric_codes",
    "byte_order_mark",
}


def contradictions(report: Any, chosen: dict[str, Any], others: int) -> list[str]:
    """Return every finding that contradicts the emulator, and every missing or unexpected finding."""
    expectations = expected(chosen, starts=report.process is not None, others=others)
    wrong = [
        f"{name}: {finding.value!r} ({finding.fine}), not {expectations[name]}: {finding.sentence}"
        for name, finding in report.findings.items()
        if name in expectations and not expectations[name].allows(finding)
    ]
    return wrong + [f"{name}: missing, or unexpected" for name in set(expectations) ^ set(report.findings)]


def test_expectations_cover_every_finding() -> None:
    chosen = asdict(Switches())
    assert set(expected(chosen, starts=False, others=OTHERS)) == set(READ_ONLY_FINDINGS)
    assert set(expected(chosen, starts=True, others=OTHERS)) == set(DESCRIPTIONS)


def test_every_switch_changes_an_expected_finding() -> None:
    for switch in get_type_hints(Switches):
        answers = [
            expected(
                asdict(Switches()) | {switch: position}, starts=True, others=OTHERS + MANY.get(switch, 0)
            )
            for name, position in positions()
            if name == switch
        ]
        assert (len({repr(answer) for answer in answers}) > 1) is (switch not in UNSEEN), switch


@pytest.mark.parametrize("process", [None, PROCESS], ids=["read-only", "start"])
@pytest.mark.parametrize(("switch", "position"), [*positions(), *MORE])
def test_findings_are_true_in_every_switch_position(
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
        # A refusal with HTTP 500 resembles a failure, so the probe is resent.
        assert report.requests <= (34 if position == 500 else 31)


def test_every_finding_is_known_in_the_default_switch_positions(
    populate: Callable[..., None], run: Examine
) -> None:
    populate()
    assert [name for name, finding in run(PROCESS).findings.items() if finding.value is None] == []
    report = run()
    assert [name for name, finding in report.findings.items() if finding.value is None] == ["timezone"]
    assert report.requests == 29


def test_findings_that_need_an_instance_are_unknown_without_one(
    emulator: EmulatorControl, run: Examine
) -> None:
    unknown = [name for name, finding in run().findings.items() if finding.value is None]
    needing_two = ["order", "own_order", "row_cap"]
    needing_one = ["fields", "business_keys", "others", "ended", "get_by_id", "get_variables", "timezone"]
    assert sorted(unknown) == sorted(needing_one + needing_two)
    report = run(PROCESS)
    assert [name for name, finding in report.findings.items() if finding.value is None] == needing_two
    assert report.findings["others"].value == "none seen"
    emulator.switch(several_states="repeated", unknown_state="empty", get_by_id="row")
    report = run(PROCESS)
    assert report.findings["states_repeated"].value == "honoured"
    assert report.findings["get_by_id"].value == "row"
