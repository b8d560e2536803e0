"""The emulator's page in a real browser: the steps of a person who approves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from local_browser import PATIENCE

if TYPE_CHECKING:
    from playwright.sync_api import Page


class EmulatorPages:
    """The emulator as a person sees it.

    :param page: a page of the browser.
    :param url: the emulator's address.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        page.set_default_timeout(PATIENCE * 1000)

    def open_list(self) -> None:
        """Open the list of instances."""
        self.page.goto(self.url)
        self.page.get_by_role("heading", name="Instances").wait_for()

    def open_newest(self, process: str) -> None:
        """Open the newest instance of a process from the open list."""
        self.page.get_by_role("link", name=re.compile(rf"^{re.escape(process)}\b")).first.click()
        self.expect_instance(process)

    def open_instance(self, instance_id: str) -> None:
        """Open the page of an instance."""
        self.page.goto(f"{self.url}/instances/{instance_id}")
        self.page.get_by_role("heading", name="Variables").wait_for()

    def expect_instance(self, process: str) -> None:
        """Wait for the page of an instance of a process."""
        self.page.get_by_role("heading", name=process, exact=True).wait_for()

    def decide(self, outcome: str) -> None:
        """Complete the current step of the instance whose page is open, and wait for the confirmation."""
        self.page.get_by_role("button", name=outcome, exact=True).click()
        self.page.get_by_role("status").filter(has_text="The step was completed.").wait_for()
