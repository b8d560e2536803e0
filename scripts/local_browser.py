"""A headless Chromium: Debian's own, driven by Playwright. It can reach only the loopback interface.

This module does not know the pages that it opens: ``tests/browser``, ``tests/deployment`` and the pictures choose them.
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
"""The seconds that an element of a page may take to appear."""

# The font is Debian's smallest one with all symbols that the pages use; the browser itself has no fonts.
_PACKAGES = {"chromium": "chromium", "fc-list": "fontconfig"}
_FONTS = "fonts-dejavu-core"
_ARGUMENTS = (
    "--no-sandbox",  # required to run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    # A page that requests anything from another machine fails even where there is a network.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)


def install_browser() -> None:
    """Install Debian's ``chromium`` and a font if they are missing.

    :raises StackError: if the installation fails, or needs root and this process is not root.
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
    """Install the browser if it is missing, start it, and close it at the end of the block.

    During the block Playwright's event loop runs in this thread, so ``asyncio.run`` does not work in it.

    :raises StackError: if the browser cannot be installed.
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
    """Open an empty page that shares no cookies with other pages, and close it at the end of the block.

    :param width: the width of the window, in CSS pixels.
    :param height: the height of the window, in CSS pixels.
    :param scheme: the preferred colour scheme.
    :param options: other arguments of Playwright's ``Browser.new_context``.
    """
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
    try:
        yield context.new_page()
    finally:
        context.close()
