"""A Chromium without a window: Debian's own, driven by Playwright. It reaches the loopback interface and nothing else.

Knows nothing about what it looks at: ``tests/browser``, ``tests/deployment`` and the pictures decide that.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from playwright.sync_api import sync_playwright

from local_stack import Stack, StackError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

INSTALL_SECONDS = 300
START_SECONDS = 30
PATIENCE = 30.0
"""Seconds that anything on the page of a script may take to appear."""

# The font is Debian's smallest that has all the signs used; the browser alone brings none.
_PACKAGES = {"chromium": "chromium", "fc-list": "fontconfig"}
_FONTS = "fonts-dejavu-core"
_ARGUMENTS = (
    "--no-sandbox",  # root cannot start it otherwise
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    # A page that asks another machine for anything fails here, and not only where there is no network.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)


def install_browser() -> None:
    """Install Debian's ``chromium`` and a font, if there is no such program.

    :raises StackError: if that needs root and this is not root, or if it fails.
    """
    missing = [package for program, package in _PACKAGES.items() if shutil.which(program) is None]
    if not missing:
        return
    wanted = [*missing, _FONTS]
    if os.geteuid() != 0:
        raise StackError(f"as root: apt-get install --no-install-recommends {' '.join(wanted)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with Stack() as stack:
        stack.run("apt-get update", ["apt-get", "update", "-qq"], env, INSTALL_SECONDS)
        install = ["apt-get", "install", "-qq", "--yes", "--no-install-recommends", *wanted]
        stack.run("apt-get install", install, env, INSTALL_SECONDS)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Start the browser, installing it first where it is missing, and close it in the end.

    Until then an event loop of Playwright's runs in this thread, in which ``asyncio.run`` is not possible.

    :raises StackError: if it cannot be installed.
    """
    install_browser()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=list(_ARGUMENTS),
            timeout=START_SECONDS * 1000,
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(
    browser: Browser,
    *,
    width: int = 1280,
    height: int = 800,
    scheme: Literal["light", "dark"] = "light",
    **options: Any,
) -> Iterator[Page]:
    """Open an empty page that shares no cookies with any other, and close it in the end.

    :param width: of the window, in CSS pixels.
    :param height: of the window, in CSS pixels.
    :param scheme: the colours that the person prefers.
    :param options: more arguments of Playwright's ``Browser.new_context``.
    """
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
    try:
        yield context.new_page()
    finally:
        context.close()
