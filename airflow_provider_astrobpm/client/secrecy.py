"""Prepares a server's words for errors and logs: masks secrets, limits the length, escapes control characters.

Everything that a server, gateway or proxy sent passes through here before it reaches an error or a log. It may repeat the
request, with secrets in any of the forms that ``_disguises`` knows.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.client import _disguises, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MASK = "***"
MASK_IN_DATA = texts.REPLACEMENT * 3  # validation rejects it in names, so masked data never equals a name
MAX_QUOTE_CHARS = 500  # characters of the server's words in an error
MAX_QUOTE_INPUT_CHARS = 4096  # that are read to make a quote, plus the room that an encoded secret may need
MAX_ENCODED_CHARS = 12  # characters that encodings may use for one character
# Of suspicious strings that are searched in one body; beyond that they are masked as a whole.
MAX_MASKED_DATA_CHARS = 256 * 1024
MIN_SECRET_CHARS_IN_DATA = 16  # characters; a shorter secret may be part of a name by chance


class LibraryFilter(logging.Filter):
    """Keeps secrets out of the log lines that an HTTP library writes about a request.

    :param secrets: returns the secrets of the request that this thread or task is sending, or ``None`` if it is sending none.
    """

    def __init__(self, secrets: Callable[[], tuple[str, ...] | None]) -> None:
        super().__init__()
        self._secrets = secrets

    def attach(self, *libraries: str) -> None:
        """Attach this filter to all existing loggers of some libraries. Attaching again has no effect.

        :param libraries: the names of their top-level packages.
        """
        for name in tuple(logging.root.manager.loggerDict):
            if name.partition(".")[0] in libraries:
                logging.getLogger(name).addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the secrets in a record. No record is dropped."""
        secrets = self._secrets()
        if secrets is not None:
            try:
                message = record.getMessage()
            except Exception as error:  # noqa: BLE001 - a bug of the library
                message = f"a log message that cannot be formatted ({type(error).__name__})"
            record.msg, record.args = quote(message, secrets), ()
            # The errors in a traceback may quote the answer.
            record.exc_info = record.exc_text = record.stack_info = None
        return True


def quote(text: str, secrets: Iterable[str], longest: int = MAX_QUOTE_CHARS) -> str:
    """Return a server's words on one line, shortened, without secrets and control characters.

    :param longest: the maximum length in characters; an ellipsis marks a cut.
    """
    known = tuple(filter(None, secrets))
    # A secret that is longer than this margin is still found by the part that is read.
    margin = MAX_ENCODED_CHARS * min(2 * _disguises.MIN_LONG_SECRET_CHARS, max(map(len, known), default=0))
    read = text[: MAX_QUOTE_INPUT_CHARS + margin]
    # The end of the input may cut a secret in two, which would not be found. So that end is not shown.
    shown = len(read) if len(read) == len(text) else MAX_QUOTE_INPUT_CHARS
    line = " ".join(_masked(read, known, MASK, shown).split())
    line = texts.storable(line).replace(MASK_IN_DATA, MASK)
    is_cut = len(line) > longest or shown < len(text)
    return _escaped(line[:longest]) + ("…" if is_cut else "")


def masked(text: str, secrets: Iterable[str]) -> str:
    """Return a text with its secrets masked and otherwise unchanged."""
    return _masked(text, tuple(filter(None, secrets)), MASK, len(text))


def masked_json(body: bytes, secrets: Iterable[str]) -> bytes:
    """Return a storable JSON document with the secrets in its strings masked. Invalid JSON comes back unchanged.

    Names and keys in the document decide what the client does. So only whole secrets are masked, and no short ones, which may
    occur by chance. Without a secret in the document this takes little time.
    """
    known = tuple(secret for secret in dict.fromkeys(secrets) if len(secret) >= MIN_SECRET_CHARS_IN_DATA)
    if not known or not _disguises.may_hold(body, known):
        return body
    try:
        value = json.loads(body, strict=False)
        without = texts.with_strings(value, _text_masker(known))
    except ValueError:
        return body  # no other JSON parser can read it either
    except RecursionError:
        return json.dumps(MASK_IN_DATA).encode()
    return body if without == value else json.dumps(texts.storable(without)).encode()


def _text_masker(secrets: tuple[str, ...]) -> Callable[[str], str]:
    """Return a function that masks the strings of one body."""
    left = MAX_MASKED_DATA_CHARS

    def mask(text: str) -> str:
        nonlocal left
        if len(text) < _disguises.MIN_PART_CHARS:
            return text
        if not _disguises.may_hold(text.encode("utf-8", "surrogatepass"), secrets):
            return text
        left -= len(text)
        return MASK_IN_DATA if left < 0 else _masked(text, secrets, MASK_IN_DATA, len(text), parts=False)

    return mask


def _masked(text: str, secrets: tuple[str, ...], mask: str, shown: int, *, parts: bool = True) -> str:
    """Return the first ``shown`` characters of a text, with secrets, and parts of long ones if asked to, masked."""
    if not secrets:
        return text[:shown]
    shown_parts, end = [], 0
    for start, stop in _disguises.spans(text, secrets, parts=parts):
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
