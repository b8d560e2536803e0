"""What the page shows: the rows of the table, the details of an instance, and its buttons."""

from __future__ import annotations

import re
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from airflow_provider_astrobpm.client.states import STATES
from airflow_provider_astrobpm.emulator.engine import Engine
from airflow_provider_astrobpm.emulator.instances import Instance
from airflow_provider_astrobpm.emulator.page.formatting import badges
from airflow_provider_astrobpm.emulator.page.instance_details import (
    MAX_HISTORY_ROWS,
    details,
    variables_of,
)
from airflow_provider_astrobpm.emulator.page.overview import (
    MAX_ROWS,
    ROWS_PER_STEP,
    FilterError,
    OverviewFilter,
    overview,
    startable,
)
from airflow_provider_astrobpm.emulator.page.render import render
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


def text_of(html: str) -> str:
    """Return the visible text."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


class Shown(str):
    """A page as HTML."""

    __slots__ = ()

    @property
    def rows(self) -> list[list[str]]:
        """The texts of the cells of each row of the table."""
        rows = re.findall(r"<tr.*?</tr>", self.partition("<tbody>")[2], re.DOTALL)
        return [[text_of(cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)] for row in rows]

    @property
    def ids(self) -> list[str]:
        """The ids of the instances in the table."""
        return re.findall(r'<tr id="row-(.*?)"', self)

    @property
    def counts(self) -> str:
        """The caption of the table, or what the page shows instead of a table."""
        (caption,) = re.findall(r'<caption>.*?</caption>|<p id="nothing".*?</p>', self, re.DOTALL)
        return text_of(caption)

    @property
    def more(self) -> str:
        """The address of "Show more"; empty without it."""
        return unescape("".join(re.findall(r'<p id="more"><a href="(.*?)">', self)))

    @property
    def facts(self) -> dict[str, str]:
        """The facts about an instance."""
        pairs = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", self.partition('<section id="variables"')[0])
        return {text_of(name): text_of(value) for name, value in pairs}

    def options(self, name: str) -> list[tuple[str, bool]]:
        """Return the options of a filter, without "All", each with whether it is chosen."""
        (select,) = re.findall(rf'<select id="by-{name}".*?</select>', self, re.DOTALL)
        found = re.findall(r'<option value="(.+?)"( selected)?>', select)
        return [(unescape(value), bool(chosen)) for value, chosen in found]


class EngineHarness:
    """An engine with a clock that the tests advance."""

    def __init__(self, **switches: Any) -> None:
        self.now = BEGUN
        self.engine = Engine(lambda: self.now, parse_script(SCRIPT, "test"), Switches().changed(**switches))

    def overview(self, ahead: float = 0.0, **asked: Any) -> Shown:
        view = overview(self.engine, OverviewFilter(**asked))
        shown: dict[str, Any] = {"started": None, "error": None, "typed": {}, "now": self.now, "ahead": ahead}
        return Shown(render("overview", **view, **shown).decode())

    def details(self, instance: Instance) -> Shown:
        view = details(self.engine.instance(instance.id), self.engine)
        names = {"new": "set:", "old": "was:", "text_of": lambda variable, _typed: variable.text}
        shown: dict[str, Any] = {"said": "", "error": None, "form": "", "typed": {}, "now": self.now}
        return Shown(render("instance", **view, **names, **shown).decode())


@pytest.fixture
def harness() -> EngineHarness:
    return EngineHarness()


def test_rows_are_listed_newest_first(harness: EngineHarness) -> None:
    first = harness.engine.start("Asked", variables={"$Flow.BusinessKey": "key-1", "$Flow.Title": "Mine"})
    harness.now += 7_500
    second = harness.engine.start("Instant")
    shown = harness.overview()
    assert shown.ids == [second.id, first.id]
    assert shown.rows == [
        [f"Instant {second.id}", "✓ Completed OK", "Done", second.id, "under a minute"],
        ["Asked key-1 Mine", f"◔ {WAITING}", "Submitted", "key-1", "2 h 5 min"],
    ]
    assert 'title="Started 2023-11-14 22:13:20"' in shown
    assert re.findall(r'class="badge (.*?)"', shown) == ["succeeded", "waiting-for-people"]
    assert (shown.counts, shown.more, "advanced" in shown) == ("2 instances, newest first", "", False)


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
    harness: EngineHarness, asked: dict[str, Any], found: list[str]
) -> None:
    harness.engine.start("Asked")
    harness.engine.act(harness.engine.start("Asked").id, "suspend")
    harness.engine.start("Instant")
    shown = harness.overview(**asked)
    assert [row[0].split()[0] for row in shown.rows] == found
    assert (
        shown.counts
        == {
            0: "None of the 3 instances matches the filter.",
            1: "1 instance, out of 3 in total, newest first",
            2: "2 instances, out of 3 in total, newest first",
            3: "3 instances, newest first",
        }[len(found)]
    )


def test_filter_options_include_the_chosen_values(harness: EngineHarness) -> None:
    shown = harness.overview(process="Gone", state="Odd")
    processes, states = shown.options("process"), shown.options("state")
    assert [value for value, _ in processes] == ["Asked", "Instant", "Old", "Gone"]
    assert [value for value, _ in states] == [*STATES, "Odd"]
    assert [value for value, chosen in (*processes, *states) if chosen] == ["Gone", "Odd"]


def test_show_more_adds_rows_in_steps(harness: EngineHarness) -> None:
    ids = [harness.engine.start("Asked").id for _ in range(ROWS_PER_STEP + 5)]
    shown = harness.overview(process="Asked")
    assert shown.ids == ids[: -ROWS_PER_STEP - 1 : -1]
    assert (shown.counts, shown.more) == (
        f"The newest {ROWS_PER_STEP} of {ROWS_PER_STEP + 5} instances",
        f"/?process=Asked&show={2 * ROWS_PER_STEP}",
    )
    more = OverviewFilter.read(dict(parse_qsl(urlsplit(shown.more).query)))
    assert harness.overview(process=more.process, show=more.show).ids == ids[::-1]
    assert harness.overview(show=ROWS_PER_STEP + 5).more == ""


def test_the_number_of_rows_is_limited(harness: EngineHarness) -> None:
    for _ in range(MAX_ROWS + 1):
        harness.engine.start("Asked")
    assert harness.overview(show=MAX_ROWS - 1).more == f"/?show={MAX_ROWS}"
    shown = harness.overview(show=MAX_ROWS)
    assert (shown.counts, len(shown.rows), shown.more) == (
        f"The newest {MAX_ROWS:,} of {MAX_ROWS + 1:,} instances",
        MAX_ROWS,
        "",
    )


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
    assert "The emulator's clock was advanced by 1 h." in text_of(harness.overview(ahead=3_600.0))


def test_startable_processes_list_their_settable_variables(harness: EngineHarness) -> None:
    shown = re.findall(r"<dt>(.*?)</dt>\s*<dd>(.*?)</dd>", harness.overview().partition("</form>")[0])
    assert [(text_of(name), text_of(variables)) for name, variables in shown] == [
        ("Asked", "comment , amount , parts"),
        ("Instant", "none"),
        ("Old 1.0.0 (not active)", "note"),
        ("Old 2.0.0", "none"),
    ]
    assert [name for name, _ in startable(harness.engine)] == [text_of(name) for name, _ in shown]


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
    assert [*badges(instance, harness.engine)] == shown


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
    assert tuple(re.findall('name="outcome" value="(.*?)"', shown)) == outcomes
    assert tuple(re.findall('formaction=".*?/([a-z]+)"', shown)) == allowed_actions
    assert ("Set variables" in shown) is bool(allowed_actions)


def test_a_hidden_instance_can_only_be_broken() -> None:
    harness = EngineHarness(see_others=False)
    shown = harness.details(harness.engine.start("Asked", created_by="Li"))
    assert shown.facts["API"] == "does not show this instance, because a switch hides it"
    assert re.findall('formaction=".*?/([a-z]+)"', shown) == ["break"]
    assert re.findall('name="outcome" value="(.*?)"', shown) == ["approve", "reject"]
    assert "Set variables" not in shown


def test_variables_show_their_form_and_whether_they_can_be_set(harness: EngineHarness) -> None:
    instance = harness.engine.start("Asked", variables={"comment": "two\nlines"})
    instance.variables["more"] = "x" * 3_000
    shown = {each.name: each for each in variables_of(instance, harness.engine)}
    assert {name: (each.settable, each.lines) for name, each in shown.items()} == {
        "comment": (True, 3),
        "amount": (True, 1),
        "parts": (True, 5),
        "approved_by": (False, 1),
        "more": (False, 12),
    }
    assert shown["parts"].text == "[\n  1,\n  2\n]"
    assert (shown["approved_by"].why_not, shown["more"].why_not) == (
        "read-only",
        "not declared by the process",
    )
    page = text_of(harness.details(instance))
    assert re.findall(r"(\w+) JSON", page) == ["amount", "parts"]
    assert f"{'x' * 2_000}… (1,000 more characters)" in page


def test_a_long_value_cannot_be_edited(harness: EngineHarness) -> None:
    instance = harness.engine.start("Asked", variables={"comment": "x" * 2_001})
    (comment,) = (each for each in variables_of(instance, harness.engine) if each.name == "comment")
    assert (comment.settable, comment.why_not[:28]) == (False, "longer than 2,000 characters")


def test_the_history_shows_times_events_and_states(harness: EngineHarness) -> None:
    instance = harness.engine.start("Asked")
    harness.now += 90
    harness.engine.decide(instance.id, "approve", "Li")
    harness.now += 60
    shown = harness.details(instance)
    assert shown.rows == [
        ["2023-11-14 22:13:20", f"entered {WAITING}", f"◔ {WAITING}", "Submitted"],
        ["2023-11-14 22:14:50", "Li chose approve", f"◔ {WAITING}", "Approved"],
        ["2023-11-14 22:14:50", "entered Running", "▸ Running", "Publishing"],
        ["2023-11-14 22:15:50", "ended", "✓ Completed OK", "Publishing"],
    ]
    assert shown.counts == "Events, oldest first"
    facts = shown.facts
    assert facts["Started"] == "2023-11-14 22:13:20 UTC by machine , age 2 min"
    assert facts["Ended"] == "2023-11-14 22:15:50 UTC, took 2 min"
    assert facts["Outcome of the last task"] == "approve"


def test_a_long_history_shows_only_the_latest_entries(harness: EngineHarness) -> None:
    instance = harness.engine.start("Asked")
    for number in range(MAX_HISTORY_ROWS + 9):
        harness.engine.set_variables(instance.id, {"amount": number})
    shown = harness.details(instance)
    assert len(shown.rows) == MAX_HISTORY_ROWS
    assert shown.counts == f"The last {MAX_HISTORY_ROWS} entries; 10 earlier ones are not shown"


def test_times_use_the_zone_of_the_server() -> None:
    harness = EngineHarness(utc_offset=8.0)
    shown = harness.details(harness.engine.start("Asked"))
    assert shown.facts["Started"].startswith("2023-11-15 06:13:20 UTC+8 by")
    assert "Time (UTC+8)" in shown
    assert "Ended" not in shown.facts
