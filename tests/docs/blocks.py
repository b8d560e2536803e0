"""Find the code blocks of a page and the notes above each of them; ``docs/contributing.md`` describes the notes.

``test_blocks.py`` decides what to do with a block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tests.docs.markdown import Piece, pieces

NOTES = ("setting", "given", "then", "run by", "parsed only", "fails", "needs", "serves", "output")

_NOTE = re.compile(r"^\s*(?P<name>[a-z][a-z ]*?)\s*(?::\s*(?P<text>.*))?$")
_EVERY = re.compile(r"^every (?P<language>\w+) block (?P<name>[a-z ]+)$")


class Note(NamedTuple):
    """An HTML comment above a block: code on lines of its own, or some words.

    :param line: the line of the page at which its text begins.
    """

    name: str
    text: str
    line: int


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    :param page: the path of its page, below the root of the repository.
    :param line: the line of the page at which its code begins.
    :param notes: the notes above it, by name.
    :param output: the block below it that shows its output, if a note says so.
    """

    page: str
    line: int
    language: str
    text: str
    notes: dict[str, Note] = field(default_factory=dict)
    output: Block | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str, text: str) -> list[Block]:
    """Return the code blocks of a page.

    :param page: its path below the root of the repository.
    :raises ValueError: for an unknown note, or for a note that stands above no block.
    """
    found: list[Block] = []
    for piece, notes in _with_notes(page, text):
        language = (piece.info.split() or [""])[0]
        for name in set(notes) - set(NOTES):
            raise ValueError(
                f"{page}:{notes[name].line}: no note is called {name!r}, only {', '.join(NOTES)}"
            )
        block = Block(page, piece.line, language, piece.text, notes)
        if "output" in notes:
            if not found:
                raise ValueError(f"{block}: there is no block above whose output it could be")
            found[-1] = replace(found[-1], output=block)
        found.append(block)
    return found


def _with_notes(page: str, text: str) -> Iterator[tuple[Piece, dict[str, Note]]]:
    """Yield each code block with its own notes, and the page's notes for all blocks of its language."""
    everywhere: dict[str, dict[str, Note]] = {}
    here: dict[str, Note] = {}
    end = Piece("prose", text.count("\n") + 1, "the end")
    for piece in (*pieces(text), end):
        if piece.kind == "comment" and (note := _note(piece)):
            if every := _EVERY.match(note.name):
                everywhere.setdefault(every["language"], {})[every["name"]] = note._replace(
                    name=every["name"]
                )
            else:
                here[note.name] = note
        elif piece.kind == "code":
            language = piece.info.split()[0] if piece.info else ""
            yield piece, {**everywhere.get(language, {}), **here}
            here = {}
        elif piece.text.strip() and here:
            if lost := sorted(set(here) & set(NOTES)):
                raise ValueError(f"{page}:{piece.line}: the note {lost[0]!r} stands above no block")
            here = {}  # a comment of another kind


def _note(piece: Piece) -> Note | None:
    first, newline, rest = piece.text.partition("\n")
    found = _NOTE.match(first)
    if found is None:
        return None
    if newline and not found["text"]:
        return Note(found["name"], rest.rstrip(), piece.line + 1)
    return Note(found["name"], " ".join(f"{found['text'] or ''} {rest}".split()), piece.line)
