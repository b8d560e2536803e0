"""Split a page into its prose, its fenced code blocks and its HTML comments, as GitHub does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>[^`]*)$")


class Piece(NamedTuple):
    """Consecutive lines of a page: prose, a comment, or a code block.

    :param line: the line of the page at which the text begins, counted from 1.
    :param text: the prose, the inside of a comment, or the code without its fences and their indentation.
    :param info: the words behind the opening fence.
    """

    kind: Literal["prose", "comment", "code"]
    line: int
    text: str
    info: str = ""


def pieces(text: str) -> Iterator[Piece]:
    """Yield the pieces of a page in order. Prose comes line by line."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        line = lines[at]
        if line.lstrip().startswith("<!--"):
            end = next((n for n in range(at, len(lines)) if "-->" in lines[n]), len(lines) - 1)
            inner = "\n".join(lines[at : end + 1]).strip().removeprefix("<!--").removesuffix("-->")
            yield Piece("comment", at + 1, inner)
            at = end + 1
        elif opening := _FENCE.match(line):
            closing = re.compile(rf"^ *{opening['fence']}{opening['fence'][0]}* *$")
            end = next((n for n in range(at + 1, len(lines)) if closing.match(lines[n])), len(lines))
            code = "\n".join(_without_indent(inner, len(opening["indent"])) for inner in lines[at + 1 : end])
            yield Piece("code", at + 2, code, opening["info"].strip())
            at = end + 1
        else:
            yield Piece("prose", at + 1, line)
            at += 1


def _without_indent(line: str, indent: int) -> str:
    return line[min(indent, len(line) - len(line.lstrip(" "))) :]
