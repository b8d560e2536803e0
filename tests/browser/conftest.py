"""Debian's Chromium before the page of an emulator in a thread, which is reset for each test."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from local_browser import open_page, running_browser
from tests.support.deployed import measured, show_measured
from tests.support.served import control, server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from airflow_provider_astrobpm.emulator import EmulatorControl

__all__ = ["control", "measured", "server"]

# What Chromium says of an answer that is none of success; those of the page's are meant so.
EXPECTED = ("the server responded with a status of 422", "the server responded with a status of 404")

pytest_terminal_summary = show_measured


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with running_browser() as started:
        yield started


class Visit(Protocol):
    """Opens an address of the emulator, in a window of its own."""

    def __call__(self, path: str = "/", **options: Any) -> Page: ...


@pytest.fixture
def complaints() -> list[str]:
    """What the browser complains of; a test that expects it takes it out."""
    return []


@pytest.fixture
def visit(browser: Browser, control: EmulatorControl, complaints: list[str]) -> Iterator[Visit]:
    """Open pages; when the test is over the browser must not have complained of any: of no script, of nothing blocked."""

    def note(kind: str, text: str) -> None:
        if kind in ("error", "warning") and not any(each in text for each in EXPECTED):
            complaints.append(text)

    with ExitStack() as windows:

        def visit(path: str = "/", **options: Any) -> Page:
            page = windows.enter_context(open_page(browser, **options))
            page.on("console", lambda message: note(message.type, message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(control.url + path)
            return page

        yield visit
    assert complaints == []
