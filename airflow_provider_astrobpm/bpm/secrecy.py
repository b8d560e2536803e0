"""What becomes of a server's words before anybody reads them: secrets are masked, length is cut, control characters escaped.

Whatever a server, or a gateway or proxy before it, may have sent goes through here on its way into an error or a log. It may
repeat what it was sent, and not only letter by letter: gateways escape what they quote and wrap it over lines.

So a text is read in many ways at once. Each way (percent signs undone, then HTML entities, and so on) gives a stream of bytes of
which each knows from where in the text it comes. A secret that shows in a stream is masked in the text. Of a long secret a part
counts too, because servers cut what they quote.
"""

from __future__ import annotations

import base64
import html
import json
import logging
import re
import unicodedata
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_astrobpm.bpm import texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MASK = "***"
MASK_IN_DATA = (
    texts.REPLACEMENT * 3
)  # no name that an author may give holds it, so what was masked is never taken for a name
LONGEST_QUOTE = 500  # characters of the server's own words in an error
MOST_READ = 4096  # characters of them that are looked at for that, and as many more as a secret may take
LONGEST_ENCODED = 12  # characters that encodings take for one
MOST_READ_IN_DATA = (
    256 * 1024
)  # characters of one body; what may hold a secret beyond that is masked as a whole
SHORTEST_IN_DATA = 16  # characters of a secret that cannot be part of a name by chance
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

# One of these is in a body that holds a secret neither letter by letter nor in base64. Each begins with a letter that is found
# at once, or not at all.
_SIGNS_IN_BODY = (
    re.compile(rb"\\(?:u00[0-7]|u00[aA][dD]|u20|u2[dD]|u[fF][eE]|[nrtbf])"),
    re.compile(rb"&#"),
    re.compile(rb"%(?:0|[2-7][0-9a-fA-F]%)"),
    re.compile(rb"<\s*[wW]?[bB][rR]"),
    re.compile(rb"\xe2\x80[\x8b-\x8f]"),
    re.compile(rb"\xc2\xad"),
)
_SIGN_IN_TEXT = re.compile(
    r"[\x00-\x1f\x7f-\xa0\xad\u200b-\u200f\u2028-\u202f\u2060-\u2064\ufeff]"
    r"|\\[ux]|&#|%(?:0|[2-7][0-9a-fA-F]%)|<\s*w?br",
    re.IGNORECASE,
)


class LibraryFilter(logging.Filter):
    """Lets what an HTTP library logs about a request show no more of the answer than an error would.

    :param secrets: tells what must not show of what is being sent here, in this thread or task; ``None`` where nothing is.
    """

    def __init__(self, secrets: Callable[[], tuple[str, ...] | None]) -> None:
        super().__init__()
        self._secrets = secrets

    def attach(self, *libraries: str) -> None:
        """Attach it to every logger of some libraries that there is by now, once.

        :param libraries: their names.
        """
        for name in tuple(logging.root.manager.loggerDict):
            if name.partition(".")[0] in libraries:
                logging.getLogger(name).addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite a record; all of them pass."""
        secrets = self._secrets()
        if secrets is not None:
            try:
                message = record.getMessage()
            except Exception as error:  # noqa: BLE001 - the library's own mistake
                message = f"a message that cannot be written ({type(error).__name__})"
            record.msg, record.args = quote(message, secrets), ()
            # A traceback quotes its errors, which quote the answer.
            record.exc_info = record.exc_text = record.stack_info = None
        return True


class _Stream(NamedTuple):
    """A text, read in one way: bytes, and from where to where in the text each of them comes from."""

    data: bytes
    starts: tuple[int, ...]
    ends: tuple[int, ...]


class _Needles(NamedTuple):
    """One secret, in the forms that are looked for once a text is decoded. All in lower case."""

    whole: tuple[bytes, ...]
    grams: dict[bytes, list[tuple[bytes, int]]]


def quote(text: str, secrets: Iterable[str], longest: int = LONGEST_QUOTE) -> str:
    """Return a server's words on one line, short, without the secrets and without control characters.

    :param text: what came.
    :param secrets: what must not show.
    :param longest: characters at most; what is cut off is shown by an ellipsis.
    """
    known = tuple(filter(None, secrets))
    # Of a secret that is longer the part that is read is found.
    margin = LONGEST_ENCODED * min(2 * LONG, max(map(len, known), default=0))
    read = text[: MOST_READ + margin]
    # A secret that the end of what is read cuts in two would not be found, so that end is not shown.
    shown = len(read) if len(read) == len(text) else MOST_READ
    line = " ".join(_masked(read, known, MASK, shown).split())
    line = texts.storable(line).replace(MASK_IN_DATA, MASK)
    is_cut = len(line) > longest or shown < len(text)
    return _escaped(line[:longest]) + ("…" if is_cut else "")


def masked(text: str, secrets: Iterable[str]) -> str:
    """Return a text without the secrets, and else as it is.

    :param text: what is to be shown.
    :param secrets: what must not show.
    """
    return _masked(text, tuple(filter(None, secrets)), MASK, len(text))


def masked_json(body: bytes, secrets: Iterable[str]) -> bytes:
    """Return a JSON document whose texts hold none of the secrets; what is none comes back as it is.

    What a name or a key holds decides what is done, so only what is too long to be there by chance is masked: whole secrets, and
    no short ones. It takes little time where there is no secret.

    :param body: the document.
    :param secrets: what must not show.
    """
    known = tuple(secret for secret in secrets if len(secret) >= SHORTEST_IN_DATA)
    if not known or not _may_hold(body, known):
        return body
    try:
        value = json.loads(body, strict=False)
        without = _Masking(known).of(value)
    except ValueError:
        return body  # It cannot be read by anybody else either.
    except RecursionError:
        return json.dumps(MASK_IN_DATA).encode()
    return body if without == value else json.dumps(without).encode()


def _may_hold(body: bytes, secrets: tuple[str, ...]) -> bool:
    return any(mark in body for secret in secrets for mark in _marks(secret)) or any(
        sign.search(body) for sign in _SIGNS_IN_BODY
    )


class _Masking:
    """Masks the texts of one body.

    :param secrets: what must not show.
    """

    def __init__(self, secrets: tuple[str, ...]) -> None:
        self._secrets = secrets
        self._left = MOST_READ_IN_DATA

    def of(self, value: Any) -> Any:
        """Return a value without the secrets."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return {self._text(name): self.of(each) for name, each in value.items()}
        return [self.of(each) for each in value] if isinstance(value, list) else value

    def _text(self, text: str) -> str:
        if len(text) < SHORTEST_PART or not self._may_be_in(text):
            return text
        self._left -= len(text)
        if self._left < 0:
            return MASK_IN_DATA
        return _masked(text, self._secrets, MASK_IN_DATA, len(text), parts=False)

    def _may_be_in(self, text: str) -> bool:
        if _SIGN_IN_TEXT.search(text):
            return True
        raw = text.encode("utf-8", "surrogatepass")
        return any(mark in raw for secret in self._secrets for mark in _marks(secret))


def _masked(text: str, secrets: tuple[str, ...], mask: str, shown: int, *, parts: bool = True) -> str:
    """Return the beginning of a text, with what is secret replaced, and parts of long secrets if asked to."""
    if not secrets:
        return text[:shown]
    found = sorted(
        {span for stream in _readings(text) for span in _spans(stream, secrets, parts=parts)}.union(
            match.span() for secret in secrets for match in re.finditer(re.escape(secret), text)
        )
    )
    shown_parts, end = [], 0
    for start, stop in found:
        if start >= shown:
            break
        if start >= end:
            shown_parts += [text[end:start], mask]
        end = max(end, stop)
    return "".join([*shown_parts, text[end:shown]])


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


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
    """Return whether a character only breaks a text: a blank, or one that nobody sees."""
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
    """Return texts of which a body holds one that has the secret in it, letter by letter, in base64 or in hexadecimal."""
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
