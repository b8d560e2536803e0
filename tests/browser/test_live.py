"""Live updates: changes made elsewhere appear on the page without disturbing the person who reads or types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

    from airflow_provider_astrobpm.emulator import EmulatorControl, EmulatorServer
    from tests.browser.conftest import Visit

pytestmark = pytest.mark.browser

INSTANCES = "/u-route/baas/bp/v2.0/runtime/instances"
PROCESS = """
processes:
  - name: Slow
    steps: [{state: Running, bp_status: Working, for: 0.7}, {end: {bp_status: Done}}]
"""


def states(page: Page) -> list[str]:
    """Return the states of all rows, without their symbols."""
    return [text.strip()[1:] for text in page.locator("#instances .badge").all_text_contents()]


def test_a_step_that_runs_out_updates_the_page(visit: Visit, control: EmulatorControl) -> None:
    control.add_processes(PROCESS)
    page = visit()
    control.start("Slow")
    expect(page.locator("#instances .badge")).to_contain_text("Running")
    # From now on the emulator receives no requests.
    expect(page.locator("#instances .badge")).to_contain_text("Completed OK")


def test_advancing_the_clock_updates_the_page(visit: Visit, control: EmulatorControl) -> None:
    instance_id = control.start("PublishApproval")["id"]
    page = visit()
    expect(page.locator(f"#row-{instance_id} .age")).to_have_text("under a minute")
    control.advance(7_200)
    expect(page.locator(f"#row-{instance_id} .age")).to_contain_text("2 h")
    expect(page.locator("#ahead")).to_have_text("The emulator's clock was advanced by 2 h.")


def test_api_calls_update_the_page(visit: Visit, server: EmulatorServer, control: EmulatorControl) -> None:
    page = visit()
    with requests.Session() as session:
        session.trust_env = False
        credentials = {"grant_type": "client_credentials", "client_id": server.settings.client_id}
        answer = session.post(
            f"{server.url}/baas/auth/v1.0/oauth2/token",
            data={**credentials, "client_secret": server.settings.client_secret},
            timeout=10,
        )
        session.headers["access-token"] = answer.json()["access_token"]
        started = session.post(server.url + INSTANCES, json={"name": "PublishApproval"}, timeout=10).json()
        here = f"/{started['result']['id']}"
        expect(page.locator("#instances tbody tr")).to_have_count(1)
        page.locator("#instances a").click()
        expect(page.get_by_role("button", name="suspend")).to_be_visible()
        page.evaluate("window.first = true")
        session.put(f"{server.url}{INSTANCES}{here}", json={"action": "suspend"}, timeout=10)
        expect(page.get_by_role("button", name="resume")).to_be_visible()
        expect(page.get_by_role("button", name="approve")).to_have_count(0)
        session.put(f"{server.url}{INSTANCES}{here}", json={"action": "resume"}, timeout=10)
        expect(page.get_by_role("button", name="approve")).to_be_visible()
        session.put(f"{server.url}{INSTANCES}{here}/variables", json={"dataset": "new"}, timeout=10)
        expect(page.get_by_label("dataset")).to_have_value("new")
        session.delete(f"{server.url}{INSTANCES}{here}", timeout=10)
        expect(page.get_by_role("heading", name="No such instance")).to_be_visible()
        assert page.evaluate("window.first") is True


def test_an_update_keeps_the_focused_link(visit: Visit, control: EmulatorControl) -> None:
    """The link stays the same element while rows appear above it, its row changes, and rows below it disappear."""
    below = control.start("PublishApproval", business_key="below")["id"]
    middle = control.start("PublishApproval", business_key="middle")["id"]
    page = visit()
    page.locator(f"#link-{middle}").focus()
    page.evaluate("window.before = document.activeElement")
    control.start("PublishApproval", business_key="above")
    control.vanish(below)
    control.act(middle, "reject")
    expect(page.locator("#instances tbody tr")).to_have_count(2)
    expect(page.locator(f"#row-{middle}")).to_contain_text("Rejected")
    assert page.locator("#instances .key").all_text_contents() == ["above", "middle"]
    assert page.evaluate("document.activeElement === window.before")
    # If its own row disappears, the focus moves to the heading.
    control.vanish(middle)
    expect(page.get_by_role("heading", name="Instances")).to_be_focused()


def test_an_update_keeps_the_focused_button(visit: Visit, control: EmulatorControl) -> None:
    instance_id = control.start("PublishApproval")["id"]
    page = visit(f"/instances/{instance_id}")
    page.get_by_role("button", name="reject").focus()
    control.move(instance_id, bp_status="Late")
    expect(page.locator("#state .bp-status")).to_have_text("Late")
    expect(page.get_by_role("button", name="reject")).to_be_focused()
    control.act(instance_id, "approve")
    expect(page.get_by_role("heading", name="PublishApproval")).to_be_focused()


def test_an_update_keeps_text_being_typed(visit: Visit, control: EmulatorControl) -> None:
    instance_id = control.start("PublishApproval")["id"]
    page = visit(f"/instances/{instance_id}")
    comment = page.get_by_label("comment")
    comment.press_sequentially("half a sent")
    control.start("Instant")
    control.move(instance_id, bp_status="Late")
    expect(page.locator("#state .bp-status")).to_have_text("Late")
    comment.press_sequentially("ence")
    expect(comment).to_have_value("half a sentence")
    control.act(instance_id, "approve")
    expect(page.locator("#state .badge")).to_contain_text("Completed OK")
    expect(comment).to_have_value("half a sentence")
    expect(comment).to_be_focused()
    page.get_by_role("button", name="Set variables").click()
    expect(page.get_by_role("alert")).to_contain_text("has ended as Completed OK")
    expect(comment).to_have_value("half a sentence")
    control.vanish(instance_id)
    expect(page.get_by_role("heading", name="No such instance")).to_be_visible()
    with page.expect_response("**/variables"):
        page.get_by_role("button", name="Set variables").click()
    control.start("Instant")
    expect(comment).to_have_value("half a sentence")


def test_text_typed_while_a_form_is_sent_is_kept(visit: Visit, control: EmulatorControl) -> None:
    instance_id = control.start("PublishApproval")["id"]
    page = visit(f"/instances/{instance_id}")
    held: list[Route] = []
    page.route("**/variables", lambda route: held.append(route))  # noqa: PLW0108 - Playwright sets attributes on handlers, which a method does not allow
    page.get_by_label("dataset").fill("sales_daily")
    with page.expect_request("**/variables"):
        page.get_by_role("button", name="Set variables").click()
    comment = page.get_by_label("comment")
    comment.press_sequentially("half a sent")
    held[0].continue_()
    expect(page.locator("#notice")).to_have_text("The variables were set.")
    comment.press_sequentially("ence")
    expect(comment).to_have_value("half a sentence")
    expect(page.get_by_label("dataset")).to_have_value("sales_daily")


def test_the_notice_disappears_with_its_page(visit: Visit, control: EmulatorControl) -> None:
    page = visit(f"/instances/{control.start('PublishApproval')['id']}")
    page.get_by_role("button", name="suspend").click()
    expect(page.locator("#notice")).to_be_focused()
    control.reset()
    expect(page.get_by_role("heading", name="No such instance")).to_be_focused()
    expect(page.locator("#notice")).to_have_count(0)


def test_an_update_keeps_a_rejected_start_form(visit: Visit, control: EmulatorControl) -> None:
    page = visit()
    page.get_by_text("Start an instance").click()
    page.locator("#definition").select_option(label="IncidentReview")
    page.get_by_label("Variables a JSON object").fill("{")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("This is not JSON")
    control.start("Instant", business_key="elsewhere")
    expect(page.get_by_role("row", name="elsewhere")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("This is not JSON")
    expect(page.get_by_label("Variables a JSON object")).to_have_value("{")
    assert page.locator("#definition option:checked").text_content() == "IncidentReview"


def test_the_filter_applies_to_updates(visit: Visit, control: EmulatorControl) -> None:
    instance_id = control.start("PublishApproval")["id"]
    page = visit()
    page.locator("#by-process").select_option("PublishApproval")
    page.locator("#by-state").select_option("Waiting for user interaction")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_role("link", name="Show all")).to_be_visible()
    assert "process=PublishApproval&state=Waiting+for+user+interaction" in page.url
    control.start("Instant")
    expect(page.locator("#instances caption")).to_contain_text("1 instance, out of 2 in total")
    control.act(instance_id, "approve")
    expect(page.locator("#nothing")).to_have_text("None of the 2 instances matches the filter.")
    assert page.locator("#by-process").input_value() == "PublishApproval"
    page.reload()
    expect(page.locator("#nothing")).to_be_visible()
    page.get_by_role("link", name="Show all").click()
    expect(page.locator("#instances tbody tr")).to_have_count(2)


def test_an_update_keeps_a_filter_being_chosen(visit: Visit, control: EmulatorControl) -> None:
    page = visit()
    page.locator("#by-process").select_option("PublishApproval")
    control.add_processes("processes: [{name: A}]")  # another option, which precedes it in the list
    control.start("A")
    expect(page.locator("#instances tbody tr")).to_have_count(1)
    assert page.locator("#by-process").input_value() == "PublishApproval"


def test_the_page_reports_an_unreachable_emulator_and_recovers(
    visit: Visit, server: EmulatorServer, control: EmulatorControl, browser_errors: list[str]
) -> None:
    control.start("PublishApproval", business_key="before")
    page = visit()
    with server.unreachable():
        expect(page.locator("#connection")).to_contain_text("The emulator does not answer")
        expect(page.get_by_role("row", name="before")).to_be_visible()
    expect(page.locator("#connection")).to_be_empty()
    control.start("Instant", business_key="after")
    expect(page.get_by_role("row", name="after")).to_be_visible()
    page.get_by_text("Start an instance").click()
    with server.unreachable():
        page.get_by_role("button", name="Start", exact=True).click()
        expect(page.locator("#connection")).to_contain_text("may not have received your form")
        page.wait_for_event("requestfailed", lambda request: request.url.endswith("/changes"))
        expect(page.locator("#connection")).to_contain_text("may not have received your form")
    browser_errors.clear()  # they are about the refused connections


def test_an_idle_page_sends_no_requests(visit: Visit, control: EmulatorControl) -> None:
    for _ in range(3):
        control.start("PublishApproval")
    page = visit()
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    control.start("Instant", business_key="first")
    expect(page.get_by_role("row", name="first")).to_be_visible()
    requested.clear()
    for _ in range(20):
        control.instances()
        control.counts()
    control.start("Instant", business_key="last")
    expect(page.get_by_role("row", name="last")).to_be_visible()
    assert 1 <= len(requested) <= 2, requested
