"""In which forms a secret may stand in a text: gateways escape what they quote, and wrap it over lines.

A text is read in many ways at once. Each way (percent signs undone, then HTML entities, and so on) gives a stream of bytes of
which each knows from where in the text it comes. A secret that shows in a stream stands there in the text. Of a long secret a part
counts too, because servers cut what they quote.
"""

from __future__ import annotations

import base64
import html
import re
import unicodedata
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONG = 24  # characters of a secret of which parts are masked too
SHORTEST_PART = 12  # characters of such a part
GRAM, STRIDE = 8, 4  # characters by which parts are found
DEPTH = 3  # encodings within each other that are undone

_BREAK = r"[\x00-\x20]|<\s*w?br\s*/?\s*>|[^\x00-\x7e]"  # or what may be one
_BREAKS = re.compile(_BREAK, re.IGNORECASE)
_SOFT_BREAKS = re.compile(rf"=[ \t]*\r?\n|{_BREAK}", re.IGNORECASE)
_PERCENT = re.compile(rb"%([0-9a-fA-F]{2})")
_QUOTED_PRINTABLE = re.compile(rb"=([0-9a-fA-F]{2})")
_ENTITY = re.compile(rb"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,8});")
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([^\n]))")
_ESCAPED_BREAKS = b"nrtbf"

# Where a text is searched as a whole, without knowing what stands where. Each pattern begins with a character that is found at
# once, or not at all.
_BLANKS = b" \n\r\t="  # the last one stands before a break in quoted-printable
_ESCAPED_BREAK = re.compile(rb"\\+(?:[nrt] *|u200[bB-fF]|u00[aA][dD])")
_ESCAPED_LETTER = re.compile(rb"\\+(?:u00([2-7][0-9a-fA-F])|x([2-7][0-9a-fA-F]))")
_TAG_BREAK = re.compile(rb"<w?br/?>", re.IGNORECASE)
_UNSEEN = re.compile(rb"\xe2\x80[\x8b-\x8f]|\xc2\xad")
_PERCENTS = re.compile(rb"%(?:0|25|[2-7][0-9a-fA-F]%)")


class _Stream(NamedTuple):
    """A text, read in one way: bytes, and from where to where in the text each of them comes from."""

    data: bytes
    starts: tuple[int, ...]
    ends: tuple[int, ...]


class _Needles(NamedTuple):
    """One secret, in the forms that are looked for once a text is decoded. All in lower case."""

    whole: tuple[bytes, ...]
    grams: dict[bytes, list[tuple[bytes, int]]]


def spans(text: str, secrets: tuple[str, ...], *, parts: bool = True) -> list[tuple[int, int]]:
    """Return from where to where in a text a secret stands, in the order of the text; they may overlap.

    :param text: what is searched; it takes about a millisecond for a thousand characters.
    :param secrets: what is looked for.
    :param parts: whether a part of a long secret counts too.
    """
    found = {span for stream in _readings(text) for span in _spans(stream, secrets, parts=parts)}
    for secret in secrets:
        found.update(match.span() for match in re.finditer(re.escape(secret), text))
    return sorted(found)


def may_hold(raw: bytes, secrets: tuple[str, ...]) -> bool:
    """Return whether a text may hold a secret; it hardly ever does where this says so, and never where not.

    It takes little more than reading the text once for each form.

    :param raw: the text, in UTF-8; JSON counts as what it means.
    :param secrets: what is looked for.
    """
    marks = [mark for secret in secrets for mark in _marks(secret)]
    for _ in range(1 + DEPTH):
        if any(mark in raw for mark in marks):
            return True
        plain = raw
        if b"\\" in plain:
            plain = _ESCAPED_LETTER.sub(_letter, _ESCAPED_BREAK.sub(b"", plain))
        if b"%" in plain and _PERCENTS.search(plain):
            plain = unquote_to_bytes(plain)
        if b"&#" in plain:
            plain = html.unescape(plain.decode(errors="replace")).encode()
        if b"\n" in plain or b"\t" in plain or b"\r" in plain or b"<" in plain:
            plain = _TAG_BREAK.sub(b"", plain.translate(None, _BLANKS))
        if not plain.isascii():
            plain = _UNSEEN.sub(b"", plain)
        if plain == raw:
            break
        raw = plain
    return False


def _letter(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1] or match[2], 16)])


# How a text is read.


def _readings(text: str) -> Iterator[_Stream]:
    """Yield a text without line breaks, and that with one encoding after another undone."""
    streams = {first.data: first for first in (_written(text, _BREAKS), _written(text, _SOFT_BREAKS))}
    newest = list(streams.values())
    yield from newest
    for _ in range(DEPTH):
        found = {}
        for stream in newest:
            for pattern, meaning in _ENCODINGS:
                decoded = _decoded(stream, pattern, meaning)
                if decoded is not None and decoded.data not in streams:
                    found[decoded.data] = decoded
        streams |= found
        newest = list(found.values())
        yield from newest


def _written(text: str, breaks: re.Pattern[str]) -> _Stream:
    """Return the bytes of a text, without what only breaks it."""
    data = bytearray()
    starts: list[int] = []
    ends: list[int] = []

    def copy(start: int, end: int) -> None:
        data.extend(text[start:end].encode("ascii"))
        starts.extend(range(start, end))
        ends.extend(range(start + 1, end + 1))

    at = 0
    for match in breaks.finditer(text):
        copy(at, match.start())
        at = match.end()
        found = match[0]
        if not found.isascii() and not _is_break(found):
            encoded = found.encode("utf-8", "surrogatepass")
            data += encoded
            starts += [match.start()] * len(encoded)
            ends += [at] * len(encoded)
    copy(at, len(text))
    return _Stream(bytes(data), tuple(starts), tuple(ends))


def _decoded(
    stream: _Stream, pattern: re.Pattern[bytes], meaning: Callable[[re.Match[bytes]], bytes]
) -> _Stream | None:
    """Return a stream with one encoding undone; ``None`` where there is nothing to undo."""
    data, starts, ends, at = bytearray(), [], [], 0
    for match in pattern.finditer(stream.data):
        start, end = match.span()
        decoded = meaning(match)
        data += stream.data[at:start] + decoded
        starts += [*stream.starts[at:start], *[stream.starts[start]] * len(decoded)]
        ends += [*stream.ends[at:start], *[stream.ends[end - 1]] * len(decoded)]
        at = end
    if at == 0:
        return None
    return _Stream(bytes(data + stream.data[at:]), (*starts, *stream.starts[at:]), (*ends, *stream.ends[at:]))


def _is_break(character: str) -> bool:
    """Return whether a character is a blank or invisible, so that it only splits a text."""
    return character.isspace() or unicodedata.category(character) in ("Cc", "Cf")


def _byte(match: re.Match[bytes]) -> bytes:
    found = bytes([int(match[1], 16)])
    return b"" if found.isspace() else found


def _entity(match: re.Match[bytes]) -> bytes:
    return _unbroken(html.unescape(match[0].decode()))


def _escape(match: re.Match[bytes]) -> bytes:
    if match[1] is not None:
        return _unbroken(chr(int(match[1], 16)))
    if match[2] is not None:
        found = bytes([int(match[2], 16)])
        return b"" if found.isspace() else found
    return b"" if match[3] in _ESCAPED_BREAKS else match[3]


def _unbroken(text: str) -> bytes:
    return "".join(each for each in text if not _is_break(each)).encode("utf-8", "surrogatepass")


_ENCODINGS: tuple[tuple[re.Pattern[bytes], Callable[[re.Match[bytes]], bytes]], ...] = (
    (_PERCENT, _byte),
    (_ENTITY, _entity),
    (_ESCAPE, _escape),
    (_QUOTED_PRINTABLE, _byte),
)


# What is looked for.


@lru_cache(maxsize=32)
def _needles(secret: str) -> _Needles:
    raw = secret.encode("utf-8", "surrogatepass")
    forms = {raw, raw.replace(b" ", b"+"), raw.decode("latin-1").encode()}
    with suppress(UnicodeEncodeError):
        forms.add(secret.encode("latin-1"))
    if len(raw) > SHORTEST_PART // 2:  # the middle of a shorter one may be part of anything
        forms |= {raw.hex().encode(), *_base64_forms(raw)}
    whole = tuple({b"".join(form.split()).lower() for form in forms} - {b""})
    grams: dict[bytes, list[tuple[bytes, int]]] = {}
    for needle in whole:
        if len(needle) >= LONG:
            for at in range(0, len(needle) - GRAM + 1, STRIDE):
                places = grams.setdefault(needle[at : at + GRAM], [])
                if len(places) < STRIDE:
                    places.append((needle, at))
    return _Needles(whole, grams)


def _base64_forms(raw: bytes) -> set[bytes]:
    """Return what every base64 of a text holds in which the secret stands, wherever that is."""
    forms = set()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw)
        # The letters at both ends depend on what stands beside the secret.
        first = -(-before * 8 // 6)
        last = (before + len(raw)) * 8 // 6
        core = encoded[first:last]
        forms |= {core, core.replace(b"+", b"-").replace(b"/", b"_")}
    return forms


@lru_cache(maxsize=32)
def _marks(secret: str) -> tuple[bytes, ...]:
    """Return texts of which a body holds one that has a secret in it, letter by letter, in base64 or in hexadecimal.

    :param secret: what is looked for.
    """
    raw = secret.encode("utf-8", "surrogatepass")
    longest = max(re.findall(rb"[A-Za-z0-9]+", raw), key=len, default=raw)
    written = raw.hex().encode()
    forms = (longest, *_base64_forms(raw), written, written.upper())
    return tuple(sorted({_middle(form) for form in forms}))


def _middle(text: bytes) -> bytes:
    start = max(0, (len(text) - GRAM) // 2)
    return text[start : start + GRAM]


def _spans(stream: _Stream, secrets: tuple[str, ...], *, parts: bool) -> Iterator[tuple[int, int]]:
    """Yield from where to where in the text a secret stands, or a part of a long one if asked to."""
    data = stream.data.lower()
    for secret in secrets:
        needles = _needles(secret)
        for needle in needles.whole:
            at = data.find(needle)
            while at >= 0:
                yield stream.starts[at], stream.ends[at + len(needle) - 1]
                at = data.find(needle, at + 1)
        if parts and needles.grams:
            yield from _parts(stream, data, needles)


def _parts(stream: _Stream, data: bytes, needles: _Needles) -> Iterator[tuple[int, int]]:
    at = 0
    while at <= len(data) - GRAM:
        longest = 0
        for needle, place in needles.grams.get(data[at : at + GRAM], ()):
            start, end = _common(data, at, needle, place)
            if end - start >= max(SHORTEST_PART, longest):
                longest = end - start
                yield stream.starts[start], stream.ends[end - 1]
        at += longest or 1


def _common(data: bytes, at: int, needle: bytes, place: int) -> tuple[int, int]:
    """Return from where to where two texts agree around a place in each."""
    before = 0
    while before < min(at, place) and data[at - before - 1] == needle[place - before - 1]:
        before += 1
    after = GRAM
    while (
        at + after < len(data) and place + after < len(needle) and data[at + after] == needle[place + after]
    ):
        after += 1
    return at - before, at + after
