"""Finds secrets in a text, also where they are encoded or split over lines, as gateways do with what they quote.

A text is read in several ways at once. Each way (percent-encoding undone, then HTML entities, and so on) gives a stream of
bytes, and each byte knows its place in the original text. A secret that appears in a stream is in the text. For a long
secret a part is enough, because servers truncate what they quote.
"""

from __future__ import annotations

import base64
import html
import re
import unicodedata
from contextlib import suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Meaning = Callable[[re.Match[bytes]], bytes]

MIN_LONG_SECRET_CHARS = 24  # characters; of a secret this long or longer, parts are masked too
MIN_PART_CHARS = 12  # characters that a part must have to be masked
GRAM_CHARS, STRIDE_CHARS = 8, 4  # length and distance of the pieces by which parts are found
MAX_PART_BYTES = 1024 * 1024  # of a long text that one call changes
MAX_NESTED_ENCODINGS = 3  # how many encodings, one inside the other, are undone

_BREAK = r"[\x00-\x20]|<\s*w?br\s*(?:/\s*)?>|[^\x00-\x7e]"  # a line break, or a character that may be one
_BREAKS = re.compile(_BREAK, re.IGNORECASE)
_SOFT_BREAKS = re.compile(rf"=[ \t]*\r?\n|{_BREAK}", re.IGNORECASE)
_PERCENT = re.compile(rb"%([0-9a-fA-F]{2})")
_QUOTED_PRINTABLE = re.compile(rb"=([0-9a-fA-F]{2})")
_ENTITY = re.compile(rb"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,8});")
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([^\n]))")
_ESCAPED_BREAKS = b"nrtbf"

# For the quick search of a whole text, without positions. Each pattern begins with a rare literal character, so that a text
# without it is rejected fast.
_BLANKS = b" \n\r\t="  # "=" precedes a soft line break in quoted-printable
_ESCAPED_BREAK = re.compile(rb"\\+(?:[nrt] *|u200[bB-fF]|u00[aA][dD])")
_ESCAPED_LETTER = re.compile(rb"\\+(?:u00([2-7][0-9a-fA-F])|x([2-7][0-9a-fA-F]))")
_TAG_BREAK = re.compile(rb"<w?br/?>", re.IGNORECASE)
_INVISIBLE = re.compile(rb"\xe2\x80[\x8b-\x8f]|\xc2\xad")
_PERCENTS = re.compile(rb"%(?:0|25|[2-7][0-9a-fA-F]%)")


class _Stream(NamedTuple):
    """A text read in one way: its bytes, and for each byte the start and end of its origin in the text."""

    data: bytes
    starts: tuple[int, ...]
    ends: tuple[int, ...]


class _Needles(NamedTuple):
    """The forms of one secret that are searched for in decoded text, all in lower case."""

    whole: tuple[bytes, ...]
    grams: dict[bytes, list[tuple[bytes, int]]]


def spans(text: str, secrets: tuple[str, ...], *, parts: bool = True) -> list[tuple[int, int]]:
    """Return the start and end of each secret in a text, in the order of the text. Spans may overlap.

    :param text: the text to search; a thousand characters take about a millisecond.
    :param secrets: the secrets to find.
    :param parts: whether to find parts of long secrets too.
    """
    found = {span for stream in _decodings(text) for span in _spans(stream, secrets, parts=parts)}
    for secret in secrets:
        if secret in text:
            found.update(match.span() for match in re.finditer(re.escape(secret), text))
    return sorted(found)


def may_hold(raw: bytes, secrets: tuple[str, ...]) -> bool:
    """Return whether a text may contain a secret. ``False`` is certain, ``True`` is usually a false alarm.

    The cost is little more than scanning the text once for each form.

    :param raw: the text, in UTF-8; escapes in JSON are undone.
    :param secrets: the secrets to find.
    """
    marks = [mark for secret in secrets for mark in _search_marks(secret)]
    for _ in range(1 + MAX_NESTED_ENCODINGS):
        if any(mark in raw for mark in marks):
            return True
        plain = raw
        if b"\\" in plain:
            plain = _by_parts(plain, _without_escapes)
        if b"%" in plain and _PERCENTS.search(plain):
            plain = _by_parts(plain, unquote_to_bytes)
        if b"&#" in plain:
            plain = _by_parts(plain, _without_entities)
        if b"\n" in plain or b"\t" in plain or b"\r" in plain or b"<" in plain:
            plain = _TAG_BREAK.sub(b"", plain.translate(None, _BLANKS))
        if not plain.isascii():
            plain = _by_parts(plain, partial(_INVISIBLE.sub, b""))
        if plain == raw:
            break
        raw = plain
    return False


def _by_parts(raw: bytes, change: Callable[[bytes], bytes], size: int = MAX_PART_BYTES) -> bytes:
    """Change a text part by part, because one call for a long text would block all other threads.

    A part ends before a quotation mark, which is in no encoding that is undone here, so that no encoded character is cut.
    """
    parts, start = [], 0
    while start < len(raw):
        end = start + size
        if end < len(raw):
            end = max(raw.rfind(b'"', start + 1, end), 0) or raw.find(b'"', end)
        parts.append(change(raw[start : end if end > 0 else len(raw)]))
        start = end if end > 0 else len(raw)
    return b"".join(parts)


def _without_escapes(plain: bytes) -> bytes:
    return _ESCAPED_LETTER.sub(_letter, _ESCAPED_BREAK.sub(b"", plain))


def _without_entities(plain: bytes) -> bytes:
    return html.unescape(plain.decode(errors="replace")).encode()


def _letter(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1] or match[2], 16)])


def _decodings(text: str) -> Iterator[_Stream]:
    """Yield a text without line breaks, then with one encoding after another undone."""
    kinds_of_breaks = (_BREAKS, _SOFT_BREAKS) if "=" in text else (_BREAKS,)
    streams = {first.data: first for first in (_without_breaks(text, breaks) for breaks in kinds_of_breaks)}
    newest = list(streams.values())
    yield from newest
    for _ in range(MAX_NESTED_ENCODINGS):
        found = {}
        for stream in newest:
            for pattern, meaning in _ENCODINGS:
                decoded = _decoded(stream, pattern, meaning)
                if decoded is not None and decoded.data not in streams:
                    found[decoded.data] = decoded
        streams |= found
        newest = list(found.values())
        yield from newest


def _without_breaks(text: str, breaks: re.Pattern[str]) -> _Stream:
    """Return the bytes of a text without line breaks and invisible characters."""
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
        if len(found) == 1 and not found.isascii() and not _is_break(found):
            encoded = found.encode("utf-8", "surrogatepass")
            data += encoded
            starts += [match.start()] * len(encoded)
            ends += [at] * len(encoded)
    copy(at, len(text))
    return _Stream(bytes(data), tuple(starts), tuple(ends))


def _decoded(stream: _Stream, pattern: re.Pattern[bytes], meaning: Meaning) -> _Stream | None:
    """Return a stream with one encoding undone, or ``None`` if there is nothing to undo."""
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
    """Return whether a character is whitespace or invisible, so that it only splits a text."""
    return character.isspace() or unicodedata.category(character) in ("Cc", "Cf")


def _byte(match: re.Match[bytes], group: int = 1) -> bytes:
    found = bytes([int(match[group], 16)])
    return b"" if found.isspace() else found


def _entity(match: re.Match[bytes]) -> bytes:
    return _unbroken(html.unescape(match[0].decode()))


def _escape(match: re.Match[bytes]) -> bytes:
    if match[1] is not None:
        return _unbroken(chr(int(match[1], 16)))
    if match[2] is not None:
        return _byte(match, 2)
    return b"" if match[3] in _ESCAPED_BREAKS else match[3]


def _unbroken(text: str) -> bytes:
    return "".join(each for each in text if not _is_break(each)).encode("utf-8", "surrogatepass")


_ENCODINGS: tuple[tuple[re.Pattern[bytes], Meaning], ...] = (
    (_PERCENT, _byte),
    (_ENTITY, _entity),
    (_ESCAPE, _escape),
    (_QUOTED_PRINTABLE, _byte),
)


@lru_cache(maxsize=32)
def _needles(secret: str) -> _Needles:
    raw = secret.encode("utf-8", "surrogatepass")
    forms = {raw, raw.replace(b" ", b"+"), raw.decode("latin-1").encode()}
    with suppress(UnicodeEncodeError):
        forms.add(secret.encode("latin-1"))
    if len(raw) > MIN_PART_CHARS // 2:  # the middle of a shorter secret occurs by chance
        forms |= {raw.hex().encode(), *_base64_forms(raw)}
    whole = tuple({b"".join(form.split()).lower() for form in forms} - {b""})
    grams: dict[bytes, list[tuple[bytes, int]]] = {}
    for needle in whole:
        if len(needle) >= MIN_LONG_SECRET_CHARS:
            for at in range(0, len(needle) - GRAM_CHARS + 1, STRIDE_CHARS):
                places = grams.setdefault(needle[at : at + GRAM_CHARS], [])
                if len(places) < STRIDE_CHARS:
                    places.append((needle, at))
    return _Needles(whole, grams)


def _base64_forms(raw: bytes) -> set[bytes]:
    """Return the texts of which one is in the base64 of any text that contains the secret, at any offset."""
    forms = set()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw)
        # The letters at both ends depend on the bytes next to the secret.
        first = -(-before * 8 // 6)
        last = (before + len(raw)) * 8 // 6
        core = encoded[first:last]
        forms |= {core, core.replace(b"+", b"-").replace(b"/", b"_")}
    return forms


@lru_cache(maxsize=32)
def _search_marks(secret: str) -> tuple[bytes, ...]:
    """Return short texts, one of which is in every body that contains the secret as plain text, base64 or hexadecimal."""
    raw = secret.encode("utf-8", "surrogatepass")
    longest = max(re.findall(rb"[A-Za-z0-9]+", raw), key=len, default=raw)
    written = raw.hex().encode()
    forms = (longest, *_base64_forms(raw), written, written.upper())
    return tuple(sorted({_middle(form) for form in forms}))


def _middle(text: bytes) -> bytes:
    start = max(0, (len(text) - GRAM_CHARS) // 2)
    return text[start : start + GRAM_CHARS]


def _spans(stream: _Stream, secrets: tuple[str, ...], *, parts: bool) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each secret in the text, and of parts of long secrets if asked to."""
    data = stream.data.lower()
    pieces = {data[at : at + GRAM_CHARS] for at in range(len(data) - GRAM_CHARS + 1)} if parts else set()
    for secret in secrets:
        needles = _needles(secret)
        for needle in needles.whole:
            at = data.find(needle)
            while at >= 0:
                yield stream.starts[at], stream.ends[at + len(needle) - 1]
                at = data.find(needle, at + 1)
        if not needles.grams.keys().isdisjoint(pieces):
            yield from _parts(stream, data, needles)


def _parts(stream: _Stream, data: bytes, needles: _Needles) -> Iterator[tuple[int, int]]:
    at = 0
    while at <= len(data) - GRAM_CHARS:
        longest = 0
        for needle, place in needles.grams.get(data[at : at + GRAM_CHARS], ()):
            start, end = _common_run(data, at, needle, place)
            if end - start >= max(MIN_PART_CHARS, longest):
                longest = end - start
                yield stream.starts[start], stream.ends[end - 1]
        at += longest or 1


def _common_run(data: bytes, at: int, needle: bytes, place: int) -> tuple[int, int]:
    """Return the start and end of the longest common run of two texts around a position in each."""
    before = 0
    while before < min(at, place) and data[at - before - 1] == needle[place - before - 1]:
        before += 1
    after = GRAM_CHARS
    while (
        at + after < len(data) and place + after < len(needle) and data[at + after] == needle[place + after]
    ):
        after += 1
    return at - before, at + after
