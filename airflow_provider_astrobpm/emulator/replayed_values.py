"""The values of the stand-ins of a transcript during a replay, and the comparison of a request with an entry.

The client that replays has other names, ids and keys than the recorded one. So each stand-in takes the value that first
appears in its place, and must have the same value from then on.
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from airflow_provider_astrobpm.emulator.transcript_reader import MARK, SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from airflow_provider_astrobpm.emulator.transcript_reader import RequestEntry

MAX_SHIFT = timedelta(days=4000)  # a timestamp further from its entry is no moment of the recording
_TIMESTAMP = re.compile(r"\s*(\d{4})([-/])(\d\d)[-/](\d\d) (\d\d:\d\d:\d\d)\s*")
_MAX_VALUE_CHARS = 80  # of a value in a message
_MAX_NAMES = 10  # of fields in a message


class DiffersError(Exception):
    """A request differs from a recorded one; the message says where."""


class ReplayedValues:
    """The values of the stand-ins: those that the client sent, and those that it was only shown."""

    def __init__(self) -> None:
        self._sent: dict[str, str] = {}
        self._shown: dict[str, str] = {}
        self._known: set[str] = set()

    def comparison(self) -> RequestComparison:
        """Return a comparison of one request with one entry."""
        return RequestComparison(self._sent, self._shown, self._known)

    def keep(self, comparison: RequestComparison) -> None:
        """Keep the values that a comparison without a difference has found."""
        self._sent |= comparison.new

    def of(self, text: str, at: datetime, now: datetime) -> str:
        """Return what to show for a text of an entry.

        :param at: when the entry was recorded.
        """
        value = self._sent.get(text, self._shown.get(text))
        if value is None:
            value = self._changed(text) if text.startswith(MARK) else _shifted(text, now - at, at)
            self._shown[text] = value
            self._known.add(value)
        return value

    def _changed(self, text: str) -> str:
        """Return the value of a text that a server may have made of a sent one: cut, padded, or in upper case."""
        stripped = text.rstrip()
        for known, value in self._sent.items():
            if len(text) > len(MARK) and known.startswith(text):
                return value[: len(text) - len(MARK)]
            if stripped == known:
                return value.ljust(len(text) - len(MARK))
            if stripped == known.upper():
                return value.upper()
        return text.removeprefix(MARK)


class RequestComparison:
    """Compares a request with an entry. The first difference ends the comparison.

    ``new`` has the stand-ins that this request gives a value.
    """

    def __init__(self, sent: Mapping[str, str], shown: Mapping[str, str], known: AbstractSet[str]) -> None:
        self.new: dict[str, str] = {}
        self._sent = sent
        self._shown = shown
        self._known = known

    def target(self, recorded: RequestEntry, parts: list[str]) -> None:
        """Compare the stand-ins of the address.

        :raises DiffersError: if one of them had another value before.
        """
        for kept, part in zip(SEPARATOR.split(recorded.target), parts, strict=True):
            if kept.startswith(MARK):
                self._bind(unquote(kept), unquote(part), "the address")

    def body(self, recorded: RequestEntry, content_type: str, body: bytes) -> None:
        """Compare the content type and the body.

        :raises DiffersError: if they differ in anything but the values of stand-ins.
        """
        if recorded.content_type is not None and recorded.content_type.lower() != content_type.lower():
            raise DiffersError(
                f"the content type is {content_type!r}; the transcript has {recorded.content_type!r}"
            )
        if not recorded.has_body:
            if body:
                raise DiffersError("it has a body; the transcript has none")
            return
        try:
            if "urlencoded" in content_type:
                sent: Any = dict(parse_qsl(body.decode(), keep_blank_values=True))
            else:
                sent = json.loads(body)
        except ValueError:
            raise DiffersError("its body is not JSON") from None
        if recorded.body is not None:
            self._values(recorded.body, sent, "body")

    def _values(self, recorded: Any, sent: Any, where: str) -> None:
        is_stand_in = isinstance(recorded, dict) and recorded.keys() == {MARK}
        if is_stand_in:
            recorded = recorded[MARK]
        if _kind(recorded) != _kind(sent):
            raise DiffersError(f"{where} is {_kind(sent)}; the transcript has {_kind(recorded)}")
        if isinstance(recorded, dict):
            self._objects(recorded, sent, where)
        elif isinstance(recorded, list):
            if len(recorded) != len(sent):
                raise DiffersError(f"{where} has {len(sent)} items; the transcript has {len(recorded)}")
            for number, (each, own) in enumerate(zip(recorded, sent, strict=True)):
                self._values(each, own, f"{where}[{number}]")
        elif isinstance(recorded, str) and recorded.startswith(MARK):
            self._bind(recorded, sent, where)
        elif not is_stand_in and recorded != sent:
            raise DiffersError(f"{where} is {_quoted(sent)}; the transcript has {_quoted(recorded)}")

    def _objects(self, recorded: dict[str, Any], sent: dict[str, Any], where: str) -> None:
        """Compare two objects. Names that were replaced belong together in the order in which they stand."""
        kept = [name for name in recorded if not name.startswith(MARK)]
        missing = [name for name in kept if name not in sent]
        if missing:
            raise DiffersError(f"{where} has no {missing[0]!r}; the transcript has one")
        replaced = [name for name in recorded if name.startswith(MARK)]
        others = [name for name in sent if name not in kept]
        if difference := len(others) - len(replaced):
            fields = "1 field" if abs(difference) == 1 else f"{abs(difference)} fields"
            shown = others[:_MAX_NAMES] + ["…"] * (len(others) > _MAX_NAMES)
            own = f"{len(others)} of your own ({', '.join(shown)})" if others else "none of your own"
            raise DiffersError(
                f"{where} has {fields} too {'many' if difference > 0 else 'few'}: {own}, "
                f"where the transcript has {len(replaced) or 'none'}"
            )
        for name in kept:
            self._values(recorded[name], sent[name], f"{where}.{name}")
        for name, own in zip(replaced, others, strict=True):
            self._bind(name, own, f"a name in {where}")
            self._values(recorded[name], sent[own], f"{where}.{own}")

    def _bind(self, stand_in: str, value: str, where: str) -> None:
        """Give a stand-in its value, or compare with the value that it has.

        What an answer has shown for it is no reason to differ, unless the client was shown the value for another stand-in.
        """
        before = self.new.get(stand_in, self._sent.get(stand_in))
        if before is None and value in self._known:
            before = self._shown.get(stand_in)
        if before is not None and before != value:
            raise DiffersError(
                f"{where} is {_quoted(value)}, and the same stand-in {stand_in!r} was {_quoted(before)} before"
            )
        self.new[stand_in] = value


def _shifted(text: str, by: timedelta, at: datetime) -> str:
    """Return a timestamp moved by the time since it was recorded, so that it is as long ago as it was then."""
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return text
    year, separator, month, day, clock = match.groups()
    try:
        moment = datetime.strptime(f"{year}-{month}-{day} {clock}", "%Y-%m-%d %H:%M:%S").replace(
            tzinfo=timezone.utc
        )
    except ValueError:
        return text
    if abs(moment - at) > MAX_SHIFT:
        return text
    return text.replace(text.strip(), (moment + by).strftime(f"%Y{separator}%m{separator}%d %H:%M:%S"))


def _kind(value: object) -> str:
    names = {type(None): "null", bool: "a boolean", str: "text", dict: "an object", list: "a list"}
    return names.get(type(value), "a number")


def _quoted(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_VALUE_CHARS else f"{text[:_MAX_VALUE_CHARS]}…"
