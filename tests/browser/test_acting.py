"""A person starts, completes and changes instances, in a browser with scripts and in one without."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

    from airflow_provider_astrobpm.emulator import EmulatorControl
    from tests.browser.conftest import Visit

pytestmark = pytest.mark.browser

WAITING = "Waiting for user interaction"
TWICE = """
processes:
  - name: Twice
    steps:
      - {state: Waiting for user interaction, wait: person, outcomes: {approve: {bp_status: Half}}}
      - {state: Waiting for user interaction, wait: person, outcomes: {approve: {bp_status: Approved}}}
"""
Step = tuple[str, str, list[str]]  # a button, the notice after it, and the states after it


@pytest.fixture(params=[True, False], ids=["scripts", "no-scripts"])
def scripts(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def person(visit: Visit, scripts: bool) -> Callable[[str], Page]:
    """Open a page. In a browser with scripts, check later that it was not reloaded."""

    def open_it(path: str = "/") -> Page:
        page = visit(path, java_script_enabled=scripts)
        if scripts:
            page.evaluate("window.first = true")
        return page

    return open_it


def assert_in_place(page: Page, scripts: bool) -> None:
    if scripts:
        assert page.evaluate("window.first") is True


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def badges(page: Page) -> list[str]:
    return [text.strip()[1:] for text in page.locator("#state .badge").all_text_contents()]


def fill_in_start(page: Page, **fields: str) -> None:
    form = page.locator("#start-form")
    if not form.is_visible():
        page.get_by_text("Start an instance").click()
    for label, text in fields.items():
        field = form.get_by_label(label.replace("_", " "))
        if label == "Process":
            field.select_option(label=text)
        else:
            field.fill(text)


def test_a_person_starts_an_instance(
    person: Callable[[], Page], control: EmulatorControl, scripts: bool
) -> None:
    page = person()
    expect(page.get_by_text("There is no instance yet")).to_be_visible()
    fill_in_start(page, Process="PublishApproval", Business_key="release-7", Title="Publish release 7")
    fill_in_start(page, Variables='{"dataset": "sales_daily", "row_count": 3}')
    press(page, "Start")
    expect(page.locator("#notice")).to_have_text("Started PublishApproval release-7.")
    row = page.get_by_role("row", name="PublishApproval release-7")
    expect(row).to_contain_text("Publish release 7")
    expect(row).to_contain_text(WAITING)
    assert_in_place(page, scripts)
    assert page.locator("#variables").input_value() == ""
    (instance,) = control.instances()
    assert instance["variables"] | {"dataset": "sales_daily", "row_count": 3} == instance["variables"]
    assert (instance["business_key"], instance["title"]) == ("release-7", "Publish release 7")
    page.locator("#notice a").click()
    expect(page.get_by_role("heading", name="PublishApproval")).to_be_visible()
    assert page.url == f"{control.url}/instances/{instance['id']}"


def test_an_invalid_start_keeps_the_typed_values(
    person: Callable[[], Page], control: EmulatorControl, scripts: bool
) -> None:
    page = person()
    typed = {"Process": "SupplierOnboarding", "Business_key": "key <1>", "Title": 'say "hi" & bye'}
    fill_in_start(page, **typed, Variables='{"supplier" "ACME"}')
    press(page, "Start")
    error = page.get_by_role("alert")
    expect(error).to_have_text("Not done. This is not JSON: expected ':' (line 1, column 13).")
    field = page.get_by_label("Variables a JSON object")
    expect(field).to_be_focused()
    assert field.get_attribute("aria-describedby") == error.get_attribute("id")
    assert_in_place(page, scripts)
    assert control.instances() == []
    # The typed values are kept.
    expect(field).to_have_value('{"supplier" "ACME"}')
    expect(page.get_by_label("Business key optional")).to_have_value("key <1>")
    expect(page.get_by_label("Title")).to_have_value('say "hi" & bye')
    field.fill('{"supplier": "ACME"}')
    press(page, "Start")
    expect(page.locator("#notice")).to_have_text("Started SupplierOnboarding key <1>.")
    expect(error).to_have_count(0)
    (instance,) = control.instances()
    assert instance["variables"]["supplier"] == "ACME"


@pytest.mark.parametrize(
    "steps",
    [
        [("approve", "The step was completed.", ["Completed OK"])],
        [("reject", "The step was completed.", ["Completed OK"])],
        [("break", "The instance was broken.", ["Broken"])],
        [
            ("suspend", "Suspending was accepted.", [WAITING, "Suspended"]),
            ("resume", "Resuming was accepted.", [WAITING]),
            ("terminate", "Terminating was accepted.", ["Terminated"]),
        ],
    ],
    ids=lambda steps: "-".join(step[0] for step in steps),
)
def test_a_person_completes_or_changes_an_instance(
    person: Callable[[str], Page], control: EmulatorControl, scripts: bool, steps: list[Step]
) -> None:
    instance_id = control.start("PublishApproval")["id"]
    page = person(f"/instances/{instance_id}")
    for button, said, states in steps:
        press(page, button)
        expect(page.locator("#notice")).to_have_text(said)
        assert badges(page) == states
    assert_in_place(page, scripts)
    instance = control.instance(instance_id)
    assert instance["closed"]
    assert page.locator("main button").count() == 0, "no action is left"
    status = {"approve": "Approved", "reject": "Rejected"}.get(steps[-1][0], "Submitted")
    expect(page.locator("#state .bp-status")).to_have_text(status)
    events = page.locator("#history tbody th").all_text_contents()
    assert events == [event["what"] for event in instance["history"]]


def test_a_person_sets_variables(
    person: Callable[[str], Page], control: EmulatorControl, scripts: bool
) -> None:
    instance_id = control.start("PublishApproval", {"dataset": "old"})["id"]
    page = person(f"/instances/{instance_id}")
    page.get_by_label("dataset").fill("<b>new</b>")
    page.get_by_label("row_count JSON").fill("many")
    press(page, "Set variables")
    expect(page.get_by_role("alert")).to_contain_text("This is not JSON")
    expect(page.get_by_label("row_count JSON")).to_be_focused()
    expect(page.get_by_label("row_count JSON")).to_have_value("many")
    expect(page.get_by_label("dataset")).to_have_value("<b>new</b>")
    assert control.instance(instance_id)["variables"]["dataset"] == "old"
    page.get_by_label("row_count JSON").fill("[1, 2]")
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_have_text("The variables were set.")
    variables = control.instance(instance_id)["variables"]
    assert (variables["dataset"], variables["row_count"]) == ("<b>new</b>", [1, 2])
    expect(page.get_by_label("row_count JSON")).to_have_value(re.compile(r"^\[\s+1,\s+2\s+\]$"))
    expect(page.get_by_label("approved_by")).to_have_count(0)
    assert_in_place(page, scripts)


def test_a_decision_after_someone_elses_is_refused(
    person: Callable[[str], Page], control: EmulatorControl, scripts: bool
) -> None:
    """The page was not notified and still has the button; the response shows the reason."""
    instance_id = control.start("PublishApproval")["id"]
    page = person(f"/instances/{instance_id}")
    if scripts:
        page.route("**/changes", lambda route: route.fulfill(status=404))
        page.reload()
        expect(page.locator("#connection")).not_to_be_empty()
    control.act(instance_id, "reject")
    press(page, "approve")
    expect(page.get_by_role("alert")).to_contain_text("Outcome 'approve' is not on offer")
    assert badges(page) == ["Completed OK"]
    assert control.instance(instance_id)["bp_status"] == "Rejected"


def test_a_decision_on_an_outdated_page_is_refused(
    visit: Visit, person: Callable[[str], Page], control: EmulatorControl, scripts: bool
) -> None:
    """The next step has an outcome of the same name, but the second person has not seen that step."""
    control.add_processes(TWICE)
    here = f"/instances/{control.start('Twice')['id']}"
    first, second = person(here), visit(here, java_script_enabled=False)
    press(first, "approve")
    expect(first.locator("#notice")).to_have_text("The step was completed.")
    press(second, "approve")
    expect(second.get_by_role("alert")).to_contain_text("The instance has moved on to another step")
    assert control.instances()[0]["closed"] is False
    press(second, "approve")
    expect(second.locator("#state .bp-status")).to_have_text("Approved")
    if scripts:
        expect(first.locator("#state .bp-status")).to_have_text("Approved")


def test_the_page_works_with_the_keyboard_only(visit: Visit, control: EmulatorControl) -> None:
    control.start("PublishApproval", business_key="release-7")
    page = visit()

    def tab_to(wanted: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            name = page.evaluate("document.activeElement.textContent")
            if " ".join(name.split()) == wanted:
                assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
                return
        raise AssertionError(f"{wanted} cannot be reached")

    tab_to("PublishApproval release-7")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Actions")).to_be_visible()
    tab_to("approve")
    page.keyboard.press("Enter")
    notice = page.locator("#notice")
    expect(notice).to_have_text("The step was completed.")
    expect(notice).to_be_focused()  # the button has gone
    (instance,) = control.instances()
    assert instance["bp_status"] == "Approved"
