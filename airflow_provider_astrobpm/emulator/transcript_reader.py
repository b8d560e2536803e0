"""Reads transcripts, which the client writes. The guide to bug reports describes their entries."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MARK = "~"
"""Precedes the stand-in of a text. A number or boolean is marked by an object with this name only."""
FORMAT = 1
SEPARATOR = re.compile(r"([/?&=,]|%2[cC])")
"""What is between the parts of an address, of which each is replaced or kept."""


class TranscriptError(ValueError):
    """A file is not a transcript; the message says why."""


@dataclass(frozen=True)
class RecordedExchange:
    """One entry of a transcript.

    :param place: the file and line, for messages.
    :param failure: what happened instead of an answer; ``None`` if one came.
    """

    place: str
    at: datetime
    method: str
    target: str
    content_type: str | None
    body: Any
    has_body: bool
    answer: dict[str, Any] | None
    failure: str | None

    @property
    def form(self) -> tuple[str, tuple[str, ...]]:
        """The method and the target without stand-ins: requests of one form are answered in order."""
        parts = SEPARATOR.split(self.target)
        return self.method, tuple("" if part.startswith(MARK) else part for part in parts)

    def __str__(self) -> str:
        return f"{self.place} ({self.method} {self.target})"


def read_transcript(path: Path) -> list[RecordedExchange]:
    """Read a transcript, or all transcripts of a folder in the order of time.

    :raises TranscriptError: if it cannot be read, is no transcript, or has no exchange.
    """
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    found = [exchange for file in files for exchange in _read_file(file)]
    if not found:
        raise TranscriptError(f"{path} has no recorded exchange")
    return sorted(found, key=lambda exchange: exchange.at)


def _read_file(file: Path) -> Iterator[RecordedExchange]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise TranscriptError(f"{file} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise TranscriptError(f"{file} is not a transcript: it is not UTF-8") from None
    for number, line in enumerate(lines, 1):
        place = f"{file.name} line {number}"
        try:
            entry = json.loads(line)
            is_known = number > 1 or entry["transcript"] == FORMAT
            exchange = _exchange(place, entry) if "request" in entry else None
        except (ValueError, KeyError, TypeError, AttributeError):
            if 1 < number == len(lines):
                return  # the process was killed while it wrote
            raise TranscriptError(f"{place} is not an entry of a transcript") from None
        if not is_known:
            raise TranscriptError(f"{place}: another version of the provider has written it")
        if exchange is not None:
            yield exchange


def _exchange(place: str, entry: dict[str, Any]) -> RecordedExchange:
    request = entry["request"]
    return RecordedExchange(
        place,
        datetime.fromisoformat(entry["at"]),
        request["method"],
        request["target"],
        request.get("content_type"),
        request.get("body"),
        "body" in request or "omitted" in request,
        entry.get("answer"),
        entry.get("failure"),
    )
