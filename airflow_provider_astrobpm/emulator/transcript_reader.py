"""Reads transcripts, which the client writes. The guide to bug reports describes their entries."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MARK = "~"
"""Precedes the stand-in of a text. A number or boolean is marked by an object with this name only."""
FORMAT = 1
MAX_OMITTED_BYTES = 1024 * 1024 * 1024  # of a body that a replay makes up
SEPARATOR = re.compile(r"([/?&=,]|%2[cC])")
"""What is between the parts of an address, of which each is replaced or kept."""


class TranscriptError(ValueError):
    """A file is not a transcript; the message says why."""


class OmittedBody(msgspec.Struct, frozen=True):
    """What is known of a body that the transcript does not contain."""

    form: Literal["long", "blank", "html", "broken JSON", "text"]
    bytes: Annotated[int, msgspec.Meta(ge=0, le=MAX_OMITTED_BYTES)]


class RecordedAnswer(msgspec.Struct, frozen=True):
    """An answer of the server."""

    status: Annotated[int, msgspec.Meta(ge=100, le=999)]
    headers: dict[str, str]
    body: Any = None
    omitted: OmittedBody | None = None
    byte_order_mark: bool = False


class _Request(msgspec.Struct, frozen=True):
    method: str
    target: str
    content_type: str | None = None
    body: Any = msgspec.UNSET
    omitted: OmittedBody | None = None


class _Entry(msgspec.Struct, frozen=True):
    at: Annotated[datetime, msgspec.Meta(tz=True)]
    request: _Request
    answer: RecordedAnswer | None = None
    failure: str | None = None


@dataclass(frozen=True)
class RecordedExchange:
    """One entry of a transcript.

    :param place: the file and line, for messages.
    :param body: the body of the request; ``None`` if the transcript does not contain it.
    :param answer: the answer; ``None`` if none came.
    :param failure: what happened instead of an answer; ``None`` if one came.
    """

    place: str
    at: datetime
    method: str
    target: str
    content_type: str | None
    body: Any
    has_body: bool
    answer: RecordedAnswer | None
    failure: str | None

    @cached_property
    def form(self) -> tuple[str, ...]:
        """The parts of the target, without stand-ins: requests of one form are answered in order."""
        return tuple("" if part.startswith(MARK) else part for part in SEPARATOR.split(self.target))

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
        except (ValueError, LookupError, TypeError, RecursionError, msgspec.ValidationError):
            if 1 < number == len(lines):
                return  # the process was killed while it wrote
            raise TranscriptError(f"{place} is not an entry of a transcript") from None
        if not is_known:
            raise TranscriptError(f"{place}: another version of the provider has written it")
        if exchange is not None:
            yield exchange


def _exchange(place: str, raw: dict[str, Any]) -> RecordedExchange:
    entry = msgspec.convert(raw, _Entry)
    request = entry.request
    has_body = request.body is not msgspec.UNSET
    return RecordedExchange(
        place,
        entry.at,
        request.method,
        request.target,
        request.content_type,
        request.body if has_body else None,
        has_body or request.omitted is not None,
        entry.answer,
        entry.failure,
    )
