"""Reads the pages of the documentation: their code blocks, what is noted above each of them, their headings and links.

Knows nothing of what becomes of a block: that is ``test_blocks.py``. ``docs/contributing.md`` describes the notes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

NOTES = ("setting", "then", "run by", "parsed only", "needs", "serves", "output")
"""What may be noted above a block."""

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>.*)$")
_NOTE = re.compile(r"^\s*(?P<name>[a-z][a-z ]*?)\s*(?::[ \t]*(?P<text>.*?))?\s*$", re.DOTALL)
_EVERY = re.compile(r"^every (?P<language>\w+) block (?P<name>[a-z ]+)$")
_HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*\s*$")
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?(?P<target>[^\s)>]*)>?(?:\s+\"[^\"]*\")?\s*\)")
_REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(?P<target>\S+?)>?(?:\s+\"[^\"]*\")?\s*$", re.MULTILINE)
_AUTOLINK = re.compile(r"<(?P<target>https?://[^>\s]+)>")
_HTML_LINK = re.compile(r"""<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=["'](?P<target>[^"']+)["']""")
_CODE_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)


class Note(NamedTuple):
    """An HTML comment above a block: code, or a few words.

    :param line: the line of the page at which its text begins.
    """

    name: str
    text: str
    line: int


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    :param line: the line of the page at which its code begins.
    :param notes: what is noted above it, by name.
    :param output: the block below it that shows what it prints, if that is noted there.
    """

    page: str
    line: int
    language: str
    text: str
    notes: dict[str, Note] = field(default_factory=dict)
    output: Block | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Page:
    """A page of the documentation, by its path below the root of the repository."""

    path: str
    text: str

    def blocks(self) -> list[Block]:
        """Return its code blocks.

        :raises ValueError: for a note that is not known, or that stands above no block.
        """
        everywhere: dict[tuple[str, str], Note] = {}
        found: list[Block] = []
        for piece, line, info, notes in _pieces(self.text):
            for note in notes:
                if every := _EVERY.match(note.name):
                    everywhere[every["language"], every["name"]] = note
                elif note.name in NOTES and piece is None:
                    raise ValueError(f"{self.path}:{note.line}: the note {note.name!r} stands above no block")
            if piece is None:
                continue
            language = (info.split() or [""])[0]
            here = {note.name: note for note in notes if not _EVERY.match(note.name)}
            if unknown := set(here) - set(NOTES):
                raise ValueError(
                    f"{self.path}:{line}: unknown notes {sorted(unknown)}; known are {', '.join(NOTES)}"
                )
            for (kind, name), note in everywhere.items():
                if kind == language:
                    here.setdefault(name, note)
            block = Block(self.path, line, language, piece, here)
            if "output" in here:
                if not found:
                    raise ValueError(f"{block}: there is no block above whose output it could be")
                above = found[-1]
                found[-1] = Block(above.page, above.line, above.language, above.text, above.notes, block)
            found.append(block)
        return found

    def prose(self) -> str:
        """Return the page without its code blocks and comments, line for line."""
        return _prose(self.text)

    def links(self) -> list[tuple[int, str]]:
        """Return the target of each link and picture, with its line."""
        prose = _CODE_SPAN.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), self.prose())
        patterns = (_LINK, _REFERENCE, _AUTOLINK, _HTML_LINK)
        found = [(match.start("target"), match) for pattern in patterns for match in pattern.finditer(prose)]
        return [
            (prose.count("\n", 0, start) + 1, match["target"]) for start, match in sorted(found, key=_start)
        ]

    def anchors(self) -> set[str]:
        """Return the anchors of its headings, as GitHub makes them."""
        seen: Counter[str] = Counter()
        found: set[str] = set()
        for line in self.prose().splitlines():
            if heading := _HEADING.match(line):
                slug = slug_of(heading[2])
                found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
                seen[slug] += 1
        found.update(re.findall(r"""<a\s+(?:id|name)=["']([^"']+)["']""", self.prose()))
        return found


def slug_of(heading: str) -> str:
    """Return the anchor that GitHub makes of a heading."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    text = re.sub(r"[^\w\- ]", "", text.strip().lower())
    return text.replace(" ", "-")


def pages() -> list[Page]:
    """Return the README and every page of the documentation."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [Page(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


def _start(found: tuple[int, re.Match[str]]) -> int:
    return found[0]


def _prose(text: str) -> str:
    kept: list[str] = []
    fence: str | None = None
    comment = False
    for line in text.splitlines():
        match = _FENCE.match(line)
        if fence is not None:
            if match and match["fence"].startswith(fence) and not match["info"].strip():
                fence = None
            kept.append("")
        elif comment or line.lstrip().startswith("<!--"):
            comment = "-->" not in line
            kept.append("")
        elif match:
            fence = match["fence"]
            kept.append("")
        else:
            kept.append(line)
    return "\n".join(kept)


def _pieces(text: str) -> Iterator[tuple[str | None, int, str, list[Note]]]:
    """Yield each block with its first line, its info string and the notes above it; ``None`` for prose below notes."""
    lines = text.splitlines()
    notes: list[Note] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        match = _FENCE.match(line)
        if line.lstrip().startswith("<!--"):
            end = next((n for n in range(at, len(lines)) if "-->" in lines[n]), len(lines) - 1)
            if note := _note("\n".join(lines[at : end + 1]), at + 1):
                notes.append(note)
            at = end + 1
        elif match:
            fence, indent = match["fence"], len(match["indent"])
            closing = re.compile(rf"^ *{re.escape(fence[0])}{{{len(fence)},}} *$")
            end = next((n for n in range(at + 1, len(lines)) if closing.match(lines[n])), len(lines))
            code = "\n".join(inner[min(indent, _indent(inner)) :] for inner in lines[at + 1 : end])
            yield code, at + 2, match["info"], notes
            notes = []
            at = end + 1
        else:
            if line.strip() and notes:
                yield None, at + 1, "", notes
                notes = []
            at += 1
    if notes:
        yield None, len(lines), "", notes


def _note(comment: str, line: int) -> Note | None:
    inner = comment.strip().removeprefix("<!--").removesuffix("-->")
    first, newline, rest = inner.partition("\n")
    name = _NOTE.match(first)
    if name is None:
        return None
    if newline and not name["text"]:
        return Note(name["name"], rest.rstrip(), line + 1)
    text = " ".join(f"{name['text'] or ''} {rest}".split())
    return Note(name["name"], text, line)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
