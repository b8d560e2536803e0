"""Worn phrases stay out of what people read: docstrings, comments, messages, the emulator's page, and the documentation."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "airflow_provider_astrobpm"
CODE = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "example_dags").rglob("*.py")])
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "docs").rglob("*.rst"),
    ]
)

# Each phrase has a plain counterpart, which names the subject or uses the field's word.
WORN = {
    r"nobody|whoever": "name the subject, or use the passive voice",
    r"that which|those who|such a one": "name the thing",
    r"somebody": "someone, or the role: a user, an operator",
    r"tells? whether": "return whether, report whether",
    r"(?:is|are|was|were|be|been) told": "is reported, is logged, is notified",
    r"(?:came|comes?|come) of (?:it|that|each|this|what|them)": "the result, the outcome",
    r"(?:goes|go|went|gone|going) on(?: with|\.|,|;|$)|goes on": "continues, resumes",
    r"(?:two|each|every|next|further|another|first|last|single|a|the) looks?(?! up| and feel)": "a poll, a search, a check",
    r"strangers?": "preexisting instances",
    r"carriers?": "matches",
    r"bears? with": "tolerates",
    r"anew": "again",
    r"in vain": "without success",
    r"bad end|ended badly|ends badly": "a failure, failed",
    r"(?:the )?time (?:was|is) (?:over|up)": "timed out",
    r"for ever": "forever",
    r"is minded|that is had": "say what happens",
}
WORN_PATTERN = re.compile(rf"\b(?:{'|'.join(WORN)})(?!\w)", re.IGNORECASE)


def found_in(text: str) -> list[str]:
    """Return the worn phrases of a text, whose lines may be broken anywhere."""
    return [match.group() for match in WORN_PATTERN.finditer(" ".join(text.split()))]


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each string and each comment of a module, with its line."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    comment, began, last = "", 0, -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if token.start[0] != last + 1:
                yield began, comment
                comment, began = "", token.start[0]
            comment, last = f"{comment} {token.string.lstrip('# ')}", token.start[0]
    yield began, comment


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_worn_phrase_in_code(path: Path) -> None:
    assert {line: phrases for line, text in texts_of(path) if (phrases := found_in(text))} == {}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_worn_phrase_on_a_page(path: Path) -> None:
    paragraphs = re.split(r"\n\s*\n", path.read_text(encoding="utf-8"))
    assert {text[:60]: phrases for text in paragraphs if (phrases := found_in(text))} == {}


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("Nobody waits for it, and whoever looks is told.", ["Nobody", "whoever", "is told"]),
        ("one poll, and what came\n    of it", ["came of it"]),
        ("Search again; the wait continues.", []),
        ("Look up the connection, then go on-call.", []),
        ("the next look", ["next look"]),
    ],
)
def test_the_phrases_are_found_across_line_breaks(text: str, phrases: list[str]) -> None:
    assert found_in(text) == phrases
