"""Every link of the README and the documentation has a target: in the repository, or on a well-known site."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.pages import ROOT, Link, Page, pages

PAGES = {page.path: page for page in pages()}
LINKS = [(page, link) for page in PAGES.values() for link in page.links()]

# Hosts, and the beginning of the path if a host is shared.
WELL_KNOWN = (
    "https://airflow.apache.org/docs/",
    "https://docs.python.org/",
    "https://docs.pytest.org/",
    "https://github.com/apache/airflow",
    "https://jsonlines.org/",
    "https://openlineage.io/",
    "https://opentelemetry.io/",
    "https://pre-commit.com/",
    "https://support.huaweicloud.com/",
)
LOOPBACK = ("http://127.0.0.1:8080", "http://127.0.0.1:8765")
"""The addresses of Airflow and the emulator on the reader's own machine."""


@pytest.mark.parametrize(("page", "link"), LINKS, ids=[f"{page.path}:{link.line}" for page, link in LINKS])
def test_a_link_has_a_target(page: Page, link: Link) -> None:
    url = urlsplit(link.target)
    if url.scheme or url.netloc:
        known = (*WELL_KNOWN, *LOOPBACK)
        assert link.target.startswith(known), f"{link.target} is on none of {', '.join(known)}"
        return
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page.path), unquote(url.path)))
    if not url.path:
        path = page.path
    target = ROOT / path
    assert not path.startswith(".."), f"{link.target} leads out of the repository"
    assert target.exists(), f"there is no {path}"
    if url.fragment:
        assert path in PAGES, f"{link.target}: {path} is no page with anchors"
        anchors = PAGES[path].anchors()
        assert url.fragment in anchors, f"{path} has no {url.fragment!r}, only {sorted(anchors)}"


def test_the_index_lists_every_page() -> None:
    """The built documentation takes its navigation from the index."""
    index = PAGES["docs/index.md"]
    listed = {f"docs/{link.target.partition('#')[0]}" for link in index.links()}
    there = {
        path.relative_to(ROOT).as_posix()
        for kind in ("md", "rst")
        for path in (ROOT / "docs").rglob(f"*.{kind}")
    }
    assert listed == there - {index.path}
