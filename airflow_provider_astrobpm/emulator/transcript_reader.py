"""Reads transcripts, which the client writes. The guide to bug reports describes their entries."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

MARK = "~"
"""Precedes the stand-in of a text. A number or boolean is marked by an object with this name only."""
FORMAT = 1
MAX_OMITTED_BYTES = 1024 * 1024 * 1024  # of a body that a replay makes up
EXTRAS = (
    "csrf",
    "instance_lookup",
    "max_attempts",
    "max_wait",
    "max_response_bytes",
    "connect_timeout",
    "read_timeout",
    "start_grace",
    "timezone",
)
"""The extras of a connection that a transcript shows: those that change what is sent or accepted."""
SEPARATOR = re.compile(r"([/?&=,]|%2[cC])")
"""What is between the parts of an address, of which each is replaced or kept."""
_BEGINNING = '{"transcript"'
_WRITE_ONE = "The extra 'record' of a connection and 'doctor --record FILE' write transcripts."


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


class RequestEntry(msgspec.Struct, frozen=True):
    """A request of the client."""

    method: str
    target: str
    content_type: str | None = None
    body: Any = None
    """``None`` if the transcript does not contain it, or if it has none."""
    omitted: OmittedBody | None = None

    @property
    def has_body(self) -> bool:
        """Whether it had a body. The client never sends ``null``."""
        return self.body is not None or self.omitted is not None


class RecordedExchange(msgspec.Struct, frozen=True, dict=True):
    """One entry of a transcript: a request, and its answer or what happened instead of one."""

    at: Annotated[datetime, msgspec.Meta(tz=True)]
    request: RequestEntry
    answer: RecordedAnswer | None = None
    failure: str | None = None
    place: str = ""
    """The file and line, for messages."""

    @cached_property
    def form(self) -> tuple[str, ...]:
        """The parts of the target, without stand-ins: requests of one form are answered in order."""
        return tuple("" if part.startswith(MARK) else part for part in SEPARATOR.split(self.request.target))

    def __str__(self) -> str:
        return f"{self.place} ({self.request.method} {self.request.target})"


@dataclass
class Transcript:
    """What was read of one file, or of the files of a folder.

    :param exchanges: all entries, in the order of time.
    :param extras: the extras of the connection that was recorded.
    :param files: how many files were read.
    :param notes: what the files lack, as lines for a person.
    """

    exchanges: list[RecordedExchange] = field(default_factory=list)
    extras: dict[str, Any] = field(default_factory=dict)
    files: int = 0
    notes: list[str] = field(default_factory=list)


def read_transcript(path: Path) -> Transcript:
    """Read a transcript, or all transcripts of a folder.

    :raises TranscriptError: if it cannot be read, is no transcript, or has no exchange.
    """
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise TranscriptError(f"{path} has no transcript, which is a file *.jsonl. {_WRITE_ONE}")
    transcript = Transcript()
    for file in files:
        _read_file(file, transcript)
    if not transcript.exchanges:
        raise TranscriptError(" ".join([f"{path} has no recorded exchange.", *transcript.notes]))
    transcript.exchanges.sort(key=lambda exchange: exchange.at)
    return transcript


def _read_file(file: Path, transcript: Transcript) -> None:
    try:
        lines = file.read_text(encoding="utf-8").splitlines() or [""]
    except OSError as error:
        raise TranscriptError(f"{file} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise TranscriptError(f"{file} is not a transcript: it is not UTF-8. {_WRITE_ONE}") from None
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            if number == 1:
                _read_heading(file, entry, transcript)
            elif "request" in entry:
                exchange = msgspec.convert(entry | {"place": f"{file.name} line {number}"}, RecordedExchange)
                transcript.exchanges.append(exchange)
            elif "cut" in entry:
                transcript.notes.append(
                    f"{file.name} was cut, so later exchanges are missing: {entry['cut']}"
                )
        except TranscriptError:
            raise
        except (ValueError, LookupError, TypeError, RecursionError, msgspec.ValidationError) as error:
            is_ours = number > 1 or _BEGINNING.startswith(line[: len(_BEGINNING)])
            if isinstance(error, json.JSONDecodeError) and number == len(lines) and is_ours:
                transcript.notes.append(
                    f"{file.name} ends within line {number}: its process was killed while it wrote."
                )
                return
            raise TranscriptError(
                f"{file} is not a transcript: line {number} is not an entry of one. {_WRITE_ONE}"
            ) from None


def _read_heading(file: Path, entry: dict[str, Any], transcript: Transcript) -> None:
    if entry["transcript"] != FORMAT:
        raise TranscriptError(f"{file}: another version of the provider has written it")
    extras = msgspec.convert(entry.get("extras", {}), dict[str, bool | int | float | str | None])
    known = {name: extras[name] for name in EXTRAS if extras.get(name) is not None}
    transcript.extras = transcript.extras or known
    transcript.files += 1
