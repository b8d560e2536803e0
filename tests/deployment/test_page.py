"""A gate that a person opens or closes on the emulator's page in a real browser, while the task is deferred."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from local_browser import open_page, running_browser

if TYPE_CHECKING:
    from tests.deployment.conftest import Airflow

pytestmark = [pytest.mark.deployment, pytest.mark.together]


@pytest.mark.usefixtures("installed_browser")
@pytest.mark.parametrize(
    ("outcome", "status", "states"),
    [
        ("approve", "Approved", {"wait": "success", "publish": "success"}),
        ("reject", "Rejected", {"wait": "failed", "publish": "upstream_failed"}),
    ],
)
def test_decision_on_the_page_resumes_the_task(
    airflow: Airflow, outcome: str, status: str, states: dict[str, str]
) -> None:
    wait = airflow.run("publish_after_approval")
    tasks = f"/api/v2/dags/{wait.dag_id}/dagRuns/{wait.run_id}/taskInstances"

    def now() -> dict[str, str | None]:
        return {each["task_id"]: each["state"] for each in airflow.call("GET", tasks)["task_instances"]}

    wait.until_deferred()
    assert now() == {"wait": "deferred", "publish": None}
    with running_browser() as browser, open_page(browser) as page:
        page.goto(airflow.control.url)
        page.get_by_role("link", name=wait.run_id).click()
        page.get_by_role("button", name=outcome, exact=True).click()
        expect(page.locator("#state")).to_contain_text(f"Completed OK {status}")
    wait.until(f"the gate is {status}", lambda: now() == states or None)
    assert wait.instance["bp_status"] == status
