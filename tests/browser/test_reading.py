"""The page is readable with a screen reader, on a phone and in dark mode, even with hostile text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from airflow_provider_astrobpm.client.states import StateClass

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from airflow_provider_astrobpm.emulator import EmulatorControl
    from tests.browser.conftest import Visit

pytestmark = pytest.mark.browser

PHONE = 360
HOSTILE = [
    "<script>document.title = 'broken in'</script>",
    '"><img src=x onerror="document.title = \'broken in\'">',
    "</textarea></title></template><svg onload=\"document.title = 'broken in'\">",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egnp.exe \u2066\u202c\u001b[31m",
    "x" * 2_200,
    "many words " * 200,
    "&amp; &lt; %3Cb%3E ' \"",
]


def hostile_process(text: str) -> str:
    """Return a script that uses the text for everything that has a name."""
    quoted = '"' + "".join(f"\\U{ord(each):08x}" for each in text) + '"'
    outcome = f"? {quoted} : {{bp_status: {quoted}}}"  # without the ? a key cannot be long
    return f"""
processes:
  - name: {quoted}
    label: {quoted}
    version: {quoted}
    variables: {{? {quoted} : {quoted}}}
    steps:
      - state: Waiting for user interaction
        name: {quoted}
        bp_status: {quoted}
        bp_step: {quoted}
        element: {quoted}
        wait: person
        outcomes: {{{outcome}}}
"""


def assert_fits(page: Page) -> None:
    """Check that the page needs no horizontal scrolling."""
    width, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width <= window


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_escaped_and_fits(visit: Visit, control: EmulatorControl, text: str) -> None:
    """Code that runs or is blocked makes the browser report an error, which fails the test."""
    control.add_processes(hostile_process(text))
    instance = control.start(text, {text: text}, text, title=f"{text}!", by=text)
    page = visit(width=PHONE)
    expect(page.locator("#instances tbody tr")).to_have_count(1)
    assert_fits(page)
    page.locator("#start summary").first.click()
    page.locator("#takes summary").click()
    assert_fits(page)
    offered = page.locator("#by-process option").evaluate_all("all => all.map(each => each.value)")
    page.locator("#by-process").select_option(index=offered.index(text))
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("#instances tbody tr")).to_have_count(1)
    page.goto(f"{control.url}/instances/{instance['id']}")
    expect(page.get_by_role("heading", name="Actions")).to_be_visible()
    assert_fits(page)
    shown = page.locator("main").inner_text()
    assert "\u202e" not in shown
    assert "\u001b" not in shown
    # Text that is displayed escaped is sent back unchanged.
    field = page.locator("#set input[type=hidden] + *")
    if len(text) <= 2_000:
        field.fill("changed")
        page.get_by_role("button", name="Set variables").click()
        expect(page.locator("#notice")).to_have_text("The variables were set.")
        assert control.instance(instance["id"])["variables"][text] == "changed"
    page.locator("#outcome-1").click()
    expect(page.locator("#notice")).to_have_text("The step was completed.")
    assert control.instance(instance["id"])["task_outcome"] == text
    assert page.locator("main script, main img, main svg").count() == 0
    assert_fits(page)


def assert_axe_finds_nothing(page: Page, what: str) -> None:
    for width in (1280, PHONE):
        page.set_viewport_size({"width": width, "height": 800})
        assert_fits(page)
        found = Axe().run(page)
        problems = [
            f"{each['impact']}: {each['help']}: {[node['html'] for node in each['nodes']]}"
            for each in found.response["violations"]
        ]
        assert problems == [], f"{what}, {width} pixels wide"
        assert "color-contrast" in {each["id"] for each in found.response["passes"]}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violations(visit: Visit, control: EmulatorControl, scheme: str) -> None:
    control.start("AlwaysBroken")
    control.advance(60)
    control.act(control.start("PublishApproval", title="A title")["id"], "approve")
    control.change(control.start("PublishApproval")["id"], "suspend")
    control.change(control.start("PublishApproval")["id"], "terminate")
    for state in ("Running", "CompletedOkWait"):
        control.move(control.start("PublishApproval")["id"], state=state)
    instance = control.start("PublishApproval", {"dataset": "sales_daily"})

    page = visit(scheme=scheme)
    classes = page.locator("#instances .badge").evaluate_all("all => all.map(each => each.classList[1])")
    assert set(classes) == {kind.value.replace(" ", "-") for kind in StateClass}
    page.locator("#start summary").first.click()
    page.locator("#takes summary").click()
    assert_axe_finds_nothing(page, "the table")
    page.get_by_label("Variables a JSON object").fill("{")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert_axe_finds_nothing(page, "the table with an error")
    page.goto(f"{control.url}/instances/{instance['id']}")
    assert_axe_finds_nothing(page, "an instance")
    page.get_by_label("row_count JSON").fill("many")
    page.get_by_role("button", name="Set variables").click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert_axe_finds_nothing(page, "an instance with an error")
    page.goto(f"{control.url}/instances/{instance['id']}")
    page.get_by_role("button", name="approve").click()
    expect(page.locator("#notice")).to_have_text("The step was completed.")
    assert_axe_finds_nothing(page, "an instance that has ended")


def test_everything_has_an_accessible_name(visit: Visit, control: EmulatorControl) -> None:
    """Screen readers need one main heading, a table with a caption and headers, and fields with labels."""
    control.start("PublishApproval", business_key="release-7")
    page = visit()
    expect(page.get_by_role("heading", level=1)).to_have_text("Instances")
    table = page.get_by_role("table", name="1 instance, newest first")
    assert table.get_by_role("columnheader").all_text_contents() == [
        "Process",
        "State",
        "Business status",
        "Business key",
        "Age",
    ]
    expect(table.get_by_role("rowheader", name="PublishApproval release-7")).to_be_visible()
    page.set_viewport_size({"width": PHONE, "height": 700})
    expect(table.get_by_role("rowheader", name="PublishApproval release-7")).to_be_visible()
    page.get_by_role("link", name="PublishApproval release-7").click()
    for name in ("Actions", "Variables", "History"):
        expect(page.get_by_role("region", name=name)).to_be_visible()
    expect(page.get_by_role("group", name="Complete the step Approval with")).to_be_visible()
    expect(page.get_by_role("table", name="Events, oldest first")).to_be_visible()
    assert page.title() == "PublishApproval release-7 | Astro Zero emulator"


def test_nothing_is_animated(visit: Visit, control: EmulatorControl) -> None:
    control.start("PublishApproval")
    page = visit()
    assert page.evaluate("document.getAnimations({subtree: true}).length") == 0
    styles = "[...document.querySelectorAll('*')].map(each => getComputedStyle(each))"
    assert page.evaluate(f"{styles}.every(each => each.transitionDuration === '0s')") is True
