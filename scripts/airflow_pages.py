"""Airflow's user interface in a real browser: the steps of a user who sets up a connection and runs a DAG.

Elements are found by what a user sees: roles, labels and texts. Each step waits for its elements.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from playwright.sync_api import TimeoutError as PageTimeoutError

from local_browser import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from playwright.sync_api import Locator, Page

PROVIDER = "Huawei Cloud Astro Zero"
LINK = "Open in Astro Zero"

_ENDED = ("Success", "Failed", "Upstream Failed", "Skipped", "Removed")
_RUN_ADDRESS = re.compile(r"/runs/[^/?]+$")


class PageError(Exception):
    """The page does not show the expected content; the message says what it shows."""


@dataclass(frozen=True)
class ConnectionForm:
    """The values for the form of a connection.

    :param conn_id: the connection id.
    :param fields: label to text for the standard fields.
    :param extras: label to text for the provider's own fields.
    """

    conn_id: str
    fields: Mapping[str, str] = field(repr=False)  # one of them is the secret
    extras: Mapping[str, str]


class AirflowPages:
    """Airflow as a user sees it.

    :param page: a page of the browser.
    :param url: Airflow's address.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        page.set_default_timeout(PATIENCE * 1000)

    def sign_in(self, user: str, password: str) -> None:
        """Sign in on the login page of the simple auth manager."""
        self.page.goto(self.url)
        self.page.get_by_label("Username").fill(user)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_role("button", name="Admin").wait_for()

    def fill_connection(self, form: ConnectionForm) -> Locator:
        """Open Admin > Connections, fill in the form for a new connection, and return the unsaved form."""
        self.page.goto(self.url)
        self.page.get_by_role("button", name="Admin").click()
        self.page.get_by_role("menuitem", name="Connections").click()
        self.page.get_by_role("button", name="Add Connection").click()
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_label("Connection ID").fill(form.conn_id)
        dialog.get_by_role("combobox", name="Connection Type").fill(PROVIDER)
        self.page.get_by_role("option", name=PROVIDER, exact=True).click()
        for label, text in form.fields.items():
            dialog.get_by_label(label, exact=True).fill(text)
        if form.extras:
            dialog.get_by_role("button", name="Extra Fields", exact=True).click()
        for label, text in form.extras.items():
            # Airflow associates no label with these fields.
            group = dialog.get_by_role("group").filter(has=self.page.get_by_text(label, exact=True))
            group.get_by_role("textbox").fill(text)
        return dialog

    def save_connection(self, dialog: Locator) -> None:
        """Save the form."""
        dialog.get_by_role("button", name="Save").click()
        dialog.wait_for(state="hidden")

    def test_connection(self, conn_id: str) -> None:
        """Click the test button of a connection in the list, and wait until Airflow reports success.

        :raises PageError: if Airflow reports a failure.
        """
        row = self.page.get_by_role("row").filter(has=self.page.get_by_role("cell", name=conn_id, exact=True))
        row.get_by_role("button", name="Test Connection").click()
        said = self.page.get_by_role("status").filter(has_text=re.compile("Test Connection"))
        said.first.wait_for()
        text = said.first.inner_text()
        if "Test Connection Successful" not in text:
            raise PageError(f"the test of {conn_id} says: {text}")

    def open_dag(self, dag_id: str, seconds: float) -> None:
        """Open a DAG from the list. Reload the list until it contains the DAG.

        :param seconds: the time limit.
        """
        deadline = time.monotonic() + seconds
        while True:
            self.page.goto(f"{self.url}/dags")
            try:
                self.page.get_by_role("link", name=dag_id, exact=True).click(timeout=5000)
                break
            except PageTimeoutError:
                if time.monotonic() > deadline:
                    raise
        self.page.get_by_role("heading", name=dag_id).wait_for()

    def unpause(self) -> None:
        """Unpause the DAG whose page is open."""
        switch = self.page.get_by_role("heading").get_by_role("checkbox")
        switch.check(force=True)  # a label is drawn over it
        self.page.get_by_role("heading").get_by_role("checkbox", checked=True).wait_for(state="attached")

    def trigger(self) -> str:
        """Trigger the DAG whose page is open, wait for the page of the run, and return the run id."""
        self.page.get_by_role("button", name="Trigger Dag").click()
        self.page.get_by_role("dialog").get_by_role("button", name="Trigger", exact=True).click()
        self.page.wait_for_url(_RUN_ADDRESS)
        return self.page.url.rpartition("/runs/")[2]

    def open_run(self, dag_id: str, run_id: str) -> None:
        """Open the page of a run, with its table of tasks."""
        self.page.goto(f"{self.url}/dags/{dag_id}/runs/{run_id}")

    def wait_for_task(self, task_id: str, state: str, seconds: float) -> None:
        """Wait until the open page of the run shows a task in a state.

        :param state: the state as the page shows it, such as "Deferred".
        :param seconds: the time limit.
        :raises PageError: if the task ends in another state.
        """
        self._wait_for_state(task_id, state, seconds)

    def wait_for_run(self, dag_id: str, run_id: str, state: str, seconds: float) -> None:
        """Open the runs of a DAG, and wait until one of them is in a state.

        :param state: the state as the page shows it, such as "Success".
        :param seconds: the time limit.
        :raises PageError: if the run ends in another state.
        """
        self.page.goto(f"{self.url}/dags/{dag_id}/runs")
        self._wait_for_state(run_id, state, seconds)

    def open_task(self, task_id: str) -> None:
        """Open a task from the table on the open page of the run."""
        self.page.get_by_role("row").get_by_role("link", name=task_id, exact=True).click()
        self.page.get_by_role("heading", name=task_id).wait_for()

    def open_details(self) -> Locator:
        """Open the details of the task whose page is open, and return the link to its instance."""
        self.page.get_by_role("link", name="Details", exact=True).click()
        link = self.page.get_by_role("link", name=LINK)
        link.wait_for()
        return link

    def follow_link(self) -> Page:
        """Follow the link from the open page of a task to its instance, and return the page that opens."""
        link = self.open_details()
        with self.page.expect_popup() as opened:
            link.click()
        return opened.value

    def show_graph(self) -> None:
        """Show the complete graph of the run whose page is open, without other panels."""
        self.page.get_by_role("button", name="Show Graph").click()
        self.page.get_by_role("button", name="Collapse Details Panel").click()
        self.page.get_by_role("button", name="Fit View").click()
        self.page.mouse.move(600, 5)  # so that no button shows a tooltip

    def _wait_for_state(self, name: str, state: str, seconds: float) -> None:
        """Wait until the row of the task or run with this name shows a state."""
        link = self.page.get_by_role("link", name=name, exact=True)
        row = self.page.get_by_role("row").filter(has=link)
        shown = row.get_by_text(re.compile(rf"^({'|'.join({state, *_ENDED})})$"))
        shown.first.wait_for(timeout=seconds * 1000)
        found = shown.first.inner_text().strip()
        if found != state:
            raise PageError(f"{name} is {found}, not {state}")
