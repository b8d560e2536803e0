"""The pages of the documentation: their code blocks, headings and links."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.docs.blocks import Block, blocks_of
from tests.docs.markdown import pieces

ROOT = Path(__file__).resolve().parents[2]

_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*\s*$")
_CODE_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)
_LINKS = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        r"\]\(\s*<?(?P<target>[^\s)>]*)>?(?:\s+\"[^\"]*\")?\s*\)",  # [words](target), also for a picture
        r"^ {0,3}\[[^\]]+\]:\s*<?(?P<target>\S+?)>?(?:\s+\"[^\"]*\")?\s*$",  # [words]: target
        r"<(?P<target>https?://[^>\s]+)>",
        r"""<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=["'](?P<target>[^"']+)["']""",
    )
)


class Link(NamedTuple):
    """A link or a picture.

    :param line: the line of the page with its target.
    """

    line: int
    target: str


@dataclass(frozen=True)
class Page:
    """A page of the documentation.

    :param path: its path below the root of the repository.
    """

    path: str
    text: str

    def blocks(self) -> list[Block]:
        """Return its code blocks."""
        return blocks_of(self.path, self.text)

    def prose(self) -> str:
        """Return the page without code blocks and comments; each line keeps its number."""
        lines = {piece.line: piece.text for piece in pieces(self.text) if piece.kind == "prose"}
        return "\n".join(lines.get(number, "") for number in range(1, max(lines, default=0) + 1))

    def links(self) -> list[Link]:
        """Return its links and pictures."""
        prose = _CODE_SPAN.sub(lambda span: re.sub(r"[^\n]", " ", span[0]), self.prose())
        found = [match for pattern in _LINKS for match in pattern.finditer(prose)]
        return sorted(
            Link(prose.count("\n", 0, match.start("target")) + 1, match["target"]) for match in found
        )

    def anchors(self) -> set[str]:
        """Return the anchors that GitHub makes of its headings."""
        seen: Counter[str] = Counter()
        found = set()
        for line in self.prose().splitlines():
            if heading := _HEADING.match(line):
                slug = slug_of(heading[1])
                found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
                seen[slug] += 1
        return found


def slug_of(heading: str) -> str:
    """Return the anchor that GitHub makes of a heading."""
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")


def pages() -> list[Page]:
    """Return the README and every page of the documentation."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [Page(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]
