"""The views of the page: the rows of the table, the details of an instance, and its buttons."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from airflow_provider_astrobpm.client.states import STATES
from airflow_provider_astrobpm.emulator.engine import Engine
from airflow_provider_astrobpm.emulator.instances import Instance
from airflow_provider_astrobpm.emulator.page.badges import Badge, badges
from airflow_provider_astrobpm.emulator.page.instance_details import MAX_HISTORY_ROWS, Details, details
from airflow_provider_astrobpm.emulator.page.overview import (
    MAX_ROWS,
    ROWS_PER_STEP,
    FilterError,
    Overview,
    OverviewFilter,
    overview,
    startable,
)
from airflow_provider_astrobpm.emulator.process_scripts import parse_script
from airflow_provider_astrobpm.emulator.switches import Switches

BEGUN = 1_700_000_000.0
WAITING = "Waiting for user interaction"
SCRIPT = """
processes:
  - name: Asked
    label: A person is asked
    variables: {comment: "", amount: 1, parts: [1, 2], approved_by: ""}
    read_only: [approved_by]
    steps:
      - state: Waiting for user interaction
        bp_status: Submitted
        bp_step: Approval
        wait: person
        outcomes: {approve: {bp_status: Approved}, reject: {end: {bp_status: Rejected}}}
      - {state: Running, bp_status: Publishing, for: 60}
  - {name: Instant, steps: [{end: {bp_status: Done}}]}
  - {name: Old, version: 1.0.0, active: false, variables: {note: ""}}
  - {name: Old, version: 2.0.0}
"""


class EngineHarness:
    """An engine with a clock that the tests advance."""

    def __init__(self, **switches: Any) -> None:
        self.now = BEGUN
        self.engine = Engine(lambda: self.now, parse_script(SCRIPT, "test"), Switches().changed(**switches))

    def overview(self, **asked: Any) -> Overview:
        return overview(self.engine, OverviewFilter(**asked), self.now)

    def details(self, instance: Instance) -> Details:
        return details(self.engine.instance(instance.id), self.engine, self.now)


@pytest.fixture
def harness() -> EngineHarness:
    return EngineHarness()


def test_rows_are_listed_newest_first(harness: EngineHarness) -> None:
    first = harness.engine.start("Asked", variables={"$Flow.BusinessKey": "key-1", "$Flow.Title": "Mine"})
    harness.now += 7_500
    second = harness.engine.start("Instant")
    shown = harness.overview()
    assert [row.id for row in shown.rows] == [second.id, first.id]
    newer, older = shown.rows
    assert (newer.process, newer.title, newer.bp_status, newer.age) == (
        "Instant",
        "",
        "Done",
        "under a minute",
    )
    assert (older.business_key, older.title, older.age) == ("key-1", "Mine", "2 h 5 min")
    assert older.started == "2023-11-14 22:13:20"
    assert (older.badges, newer.badges) == (
        (Badge(WAITING, "waiting-for-people"),),
        (Badge("Completed OK", "succeeded"),),
    )
    assert (shown.total, shown.found, shown.more, shown.ahead) == (2, 2, "", "")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, ["Instant", "Asked", "Asked"]),
        ({"process": "Asked"}, ["Asked", "Asked"]),
        ({"state": WAITING}, ["Asked", "Asked"]),
        ({"state": "Completed OK"}, ["Instant"]),
        ({"state": "Suspended"}, ["Asked"]),
        ({"process": "Instant", "state": WAITING}, []),
        ({"process": "asked"}, []),
        ({"process": "Nothing"}, []),
    ],
)
def test_filters_select_by_process_and_state(
    harness: EngineHarness, asked: dict[str, str], found: list[str]
) -> None:
    harness.engine.start("Asked")
    harness.engine.act(harness.engine.start("Asked").id, "suspend")
    harness.engine.start("Instant")
    shown = harness.overview(**asked)
    assert [row.process for row in shown.rows] == found
    assert (shown.total, shown.found) == (3, len(found))


def test_filter_options_include_the_chosen_values(harness: EngineHarness) -> None:
    shown = harness.overview(process="Gone", state="Odd")
    assert [each.value for each in shown.processes] == ["Asked", "Instant", "Old", "Gone"]
    assert [each.value for each in shown.states] == [*STATES, "Odd"]
    assert [each.value for each in (*shown.processes, *shown.states) if each.chosen] == ["Gone", "Odd"]


def test_show_more_adds_rows_in_steps(harness: EngineHarness) -> None:
    ids = [harness.engine.start("Asked").id for _ in range(ROWS_PER_STEP + 5)]
    shown = harness.overview(process="Asked")
    assert [row.id for row in shown.rows] == ids[: -ROWS_PER_STEP - 1 : -1]
    assert (shown.found, shown.more) == (ROWS_PER_STEP + 5, f"/?process=Asked&show={2 * ROWS_PER_STEP}")
    more = OverviewFilter.read(dict(parse_qsl(urlsplit(shown.more).query)))
    assert len(overview(harness.engine, more, harness.now).rows) == ROWS_PER_STEP + 5
    assert harness.overview(show=ROWS_PER_STEP + 5).more == ""


def test_the_number_of_rows_is_limited(harness: EngineHarness) -> None:
    for _ in range(MAX_ROWS + 1):
        harness.engine.start("Asked")
    assert harness.overview(show=MAX_ROWS - 1).more == f"/?show={MAX_ROWS}"
    shown = harness.overview(show=MAX_ROWS)
    assert (shown.found, len(shown.rows), shown.more) == (MAX_ROWS + 1, MAX_ROWS, "")


@pytest.mark.parametrize(
    ("query", "asked", "address"),
    [
        ({}, OverviewFilter(), "/"),
        ({"process": "", "state": ""}, OverviewFilter(), "/"),
        ({"process": "A & B", "state": WAITING}, OverviewFilter("A & B", WAITING), None),
        ({"show": "7"}, OverviewFilter(show=7), "/?show=7"),
        ({"show": str(ROWS_PER_STEP)}, OverviewFilter(), "/"),
        ({"started": "x"}, OverviewFilter(), "/"),
    ],
)
def test_the_filter_is_read_from_and_written_to_the_address(
    query: dict[str, str], asked: OverviewFilter, address: str | None
) -> None:
    assert OverviewFilter.read(query) == asked
    assert address in (None, asked.address)
    assert OverviewFilter.read(dict(parse_qsl(urlsplit(asked.address).query))) == asked


@pytest.mark.parametrize("show", ["", "0", "-1", "ten", "1.5", "²", "9" * 30, str(MAX_ROWS + 1)])
def test_an_invalid_show_is_refused(show: str) -> None:
    with pytest.raises(FilterError, match="whole number from 1 to 1000"):
        OverviewFilter.read({"show": show})


def test_the_overview_shows_how_far_the_clock_was_advanced(harness: EngineHarness) -> None:
    assert overview(harness.engine, OverviewFilter(), harness.now, ahead=3_600.0).ahead == "1 h"


def test_startable_processes_list_their_settable_variables(harness: EngineHarness) -> None:
    assert [(each.text, each.variables) for each in startable(harness.engine)] == [
        ("Asked", ("comment", "amount", "parts")),
        ("Instant", ()),
        ("Old 1.0.0 (not active)", ("note",)),
        ("Old 2.0.0", ()),
    ]


@pytest.mark.parametrize(
    ("suspend_state", "shown"),
    [
        ("unchanged", [WAITING, "Suspended"]),
        ("Suspended", ["Suspended"]),
        ("state_only", ["Suspended"]),
    ],
)
def test_a_suspended_instance_has_a_badge(suspend_state: str, shown: list[str]) -> None:
    harness = EngineHarness(suspend_state=suspend_state)
    instance = harness.engine.start("Asked")
    harness.engine.act(instance.id, "suspend")
    assert [badge.state for badge in badges(instance, harness.engine)] == shown


@pytest.mark.parametrize(
    ("happened", "outcomes", "allowed_actions"),
    [
        ([], ("approve", "reject"), ("suspend", "terminate", "break")),
        (["suspend"], (), ("resume", "terminate", "break")),
        (["suspend", "resume"], ("approve", "reject"), ("suspend", "terminate", "break")),
        (["approve"], (), ("suspend", "terminate", "break")),
        (["reject"], (), ()),
        (["terminate"], (), ()),
    ],
)
def test_outcomes_and_actions_depend_on_the_state(
    harness: EngineHarness, happened: list[str], outcomes: tuple[str, ...], allowed_actions: tuple[str, ...]
) -> None:
    instance = harness.engine.start("Asked")
    for each in happened:
        if each in ("approve", "reject"):
            harness.engine.decide(instance.id, each)
        else:
            harness.engine.act(instance.id, each)
    shown = harness.details(instance)
    assert (shown.outcomes, shown.allowed_actions) == (outcomes, allowed_actions)
    assert shown.can_set is bool(allowed_actions)


def test_a_hidden_instance_can_only_be_broken() -> None:
    harness = EngineHarness(see_others=False)
    shown = harness.details(harness.engine.start("Asked", created_by="Li"))
    assert (shown.hidden, shown.allowed_actions, shown.can_set) == (True, ("break",), False)
    assert shown.outcomes == ("approve", "reject")


def test_variables_show_their_form_and_whether_they_can_be_set(harness: EngineHarness) -> None:
    instance = harness.engine.start("Asked", variables={"comment": "two\nlines"})
    instance.variables["more"] = "x" * 3_000
    shown = {each.name: each for each in harness.details(instance).variables}
    assert {name: (each.form, each.settable, each.lines) for name, each in shown.items()} == {
        "comment": ("text", True, 3),
        "amount": ("JSON", True, 1),
        "parts": ("JSON", True, 5),
        "approved_by": ("text", False, 1),
        "more": ("text", False, 12),
    }
    assert shown["parts"].text == "[\n  1,\n  2\n]"
    assert (shown["approved_by"].why_not, shown["more"].why_not) == (
        "read-only",
        "not declared by the process",
    )
    assert shown["more"].value.endswith("… (1,000 more characters)")


def test_a_long_value_cannot_be_edited(harness: EngineHarness) -> None:
    shown = harness.details(harness.engine.start("Asked", variables={"comment": "x" * 2_001}))
    (comment,) = (each for each in shown.variables if each.name == "comment")
    assert (comment.settable, comment.why_not[:28]) == (False, "longer than 2,000 characters")


def test_the_history_shows_times_events_and_states(harness: EngineHarness) -> None:
    instance = harness.engine.start("Asked")
    harness.now += 90
    harness.engine.decide(instance.id, "approve", "Li")
    harness.now += 60
    shown = harness.details(instance)
    assert [(each.at[11:], each.what, each.state.state, each.bp_status) for each in shown.history] == [
        ("22:13:20", f"entered {WAITING}", WAITING, "Submitted"),
        ("22:14:50", "Li chose approve", WAITING, "Approved"),
        ("22:14:50", "entered Running", "Running", "Publishing"),
        ("22:15:50", "ended", "Completed OK", "Publishing"),
    ]
    assert (shown.age, shown.lasted, shown.task_outcome, shown.earlier) == ("2 min", "2 min", "approve", 0)


def test_a_long_history_shows_only_the_latest_entries(harness: EngineHarness) -> None:
    instance = harness.engine.start("Asked")
    for number in range(MAX_HISTORY_ROWS + 9):
        harness.engine.set_variables(instance.id, {"amount": number})
    shown = harness.details(instance)
    assert (len(shown.history), shown.earlier) == (MAX_HISTORY_ROWS, 10)


def test_times_use_the_zone_of_the_server() -> None:
    harness = EngineHarness(utc_offset=8.0)
    shown = harness.details(harness.engine.start("Asked"))
    assert (shown.started, shown.zone, shown.ended, shown.lasted) == ("2023-11-15 06:13:20", "UTC+8", "", "")
