"""Every measured number in the README and on the pages has, next to it, the command that made it.

A number with a unit of measurement stands in a section that names a target of make or a benchmark, or in a paragraph that links to such a
section. Numbers in code blocks are output. Seconds and minutes are not checked, because most of them are settings.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest

from tests.docs.pages import ROOT, Page

MEASURED = re.compile(r"\d[\d,.]*[  ]?(?:%|ms\b|[KMG]B\b|requests?\b|times (?:less|more)\b)")
COMMAND = re.compile(r"`(?:make [a-z-]+|python -m benchmarks\.\w+)")
HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*$")
LINK = re.compile(r"\]\(([^)#\s]*)#?([^)\s]*)\)")

PAGES = {
    str(path.relative_to(ROOT)): Page(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}


class Section(NamedTuple):
    """A section with its subsections' headings left out.

    :param anchors: its own anchor, and those of the sections around it.
    """

    anchors: tuple[str, ...]
    text: str

    @property
    def paragraphs(self) -> list[str]:
        """The paragraphs, the items of lists, and the tables."""
        return re.split(r"\n\s*\n|\n(?=- )", self.text)


def sections(page: Page) -> list[Section]:
    """Return the sections of a page; the first is what precedes its second heading."""
    found: list[Section] = []
    open_headings: list[tuple[int, str]] = []
    lines: list[str] = []

    def close() -> None:
        found.append(Section(tuple(anchor for _, anchor in reversed(open_headings)), "\n".join(lines)))
        lines.clear()

    for line in page.prose().splitlines():
        if heading := HEADING.match(line):
            close()
            level = len(heading[1])
            while open_headings and open_headings[-1][0] >= level:
                open_headings.pop()
            open_headings.append((level, re.sub(r"[^a-z0-9 -]", "", heading[2].lower()).replace(" ", "-")))
        else:
            lines.append(line)
    close()
    return found


def names_command(page: Page) -> set[str]:
    """Return the anchors of the sections that name a command, themselves or in a section around them below the title."""
    found = sections(page)
    own = {section.anchors[0] for section in found if section.anchors and COMMAND.search(section.text)}
    title = found[1].anchors[0] if len(found) > 1 else ""
    return {
        each.anchors[0] for each in found if each.anchors and own.intersection(each.anchors) - {title}
    } | own


def unexplained(path: str, pages: dict[str, Page]) -> list[str]:
    """Return the measured numbers of a page without a command."""
    commands = {name: names_command(page) for name, page in pages.items()}
    found = []
    for section in sections(pages[path]):
        if section.anchors and section.anchors[0] in commands[path]:
            continue
        for paragraph in section.paragraphs:
            links = [_target(path, link[1], link[2]) for link in LINK.finditer(paragraph)]
            if any(anchor in commands.get(name, ()) for name, anchor in links):
                continue
            found += [match[0] for match in MEASURED.finditer(paragraph)]
    return found


def _target(path: str, name: str, anchor: str) -> tuple[str, str]:
    folder = path.rpartition("/")[0]
    return (f"{folder}/{name}".lstrip("/") if name else path), anchor


@pytest.mark.parametrize("path", sorted(PAGES))
def test_every_measured_number_has_its_command(path: str) -> None:
    assert unexplained(path, PAGES) == []


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("# P\n\n## Speed\n\nIt takes 3 MB.\n", ["3 MB"]),
        ("# P\n\n## Speed\n\n`make bench` shows that it takes 3 MB.\n", []),
        ("# P\n\n## Speed\n\n`make bench`\n\n### More\n\nIt takes 90 % of 12 requests.\n", []),
        (
            "# P\n\n## Speed\n\n`make bench`\n\n## Other\n\nIt takes 90 % of 12 requests.\n",
            ["90 %", "12 requests"],
        ),
        ("# P\n\nIt takes 3 MB. [Speed](#speed)\n\n## Speed\n\n`make bench`\n", []),
        ("# P\n\n- It takes 3 MB. [Speed](#speed)\n- It takes 4 ms.\n\n## Speed\n\n`make bench`\n", ["4 ms"]),
        ("# P\n\n```text\n3 MB\n```\n", []),
        ("# P\n\nIt waits for 60 s, and keeps 64 MiB.\n", []),
    ],
)
def test_a_number_without_a_command_is_found(text: str, numbers: list[str]) -> None:
    assert unexplained("docs/p.md", {"docs/p.md": Page("docs/p.md", text)}) == numbers
