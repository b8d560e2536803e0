"""Debian's Chromium, and the page of an emulator in a thread, which is reset for each test."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from local_browser import open_page, running_browser
from tests.support.deployed import measured, show_measured
from tests.support.emulator_server import control, server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from airflow_provider_astrobpm.emulator import EmulatorControl

__all__ = ["control", "measured", "server"]

# Chromium's messages about HTTP errors that the page returns intentionally.
EXPECTED_ERRORS = ("the server responded with a status of 422", "the server responded with a status of 404")

pytest_terminal_summary = show_measured


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with running_browser() as started:
        yield started


class Visit(Protocol):
    """Open an address of the emulator in a new window."""

    def __call__(self, path: str = "/", **options: Any) -> Page: ...


@pytest.fixture
def browser_errors() -> list[str]:
    """The errors and warnings of the browser. A test that expects some clears them."""
    return []


@pytest.fixture
def visit(browser: Browser, control: EmulatorControl, browser_errors: list[str]) -> Iterator[Visit]:
    """Open pages. At the end of the test the browser must have reported no error, such as one of a script or a blocked URL."""

    def note(kind: str, text: str) -> None:
        if kind in ("error", "warning") and not any(each in text for each in EXPECTED_ERRORS):
            browser_errors.append(text)

    with ExitStack() as windows:

        def visit(path: str = "/", **options: Any) -> Page:
            page = windows.enter_context(open_page(browser, **options))
            page.on("console", lambda message: note(message.type, message.text))
            page.on("pageerror", lambda error: browser_errors.append(str(error)))
            page.goto(control.url + path)
            return page

        yield visit
    assert browser_errors == []
