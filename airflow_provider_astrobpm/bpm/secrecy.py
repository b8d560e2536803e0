"""What becomes of a server's words before anybody reads them: secrets are masked, length is cut, control characters escaped.

Whatever a server, or a gateway or proxy before it, may have sent goes through here on its way into an error or a log. It may
repeat what it was sent, in any of the forms that ``disguises`` knows.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.bpm import disguises, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MASK = "***"
MASK_IN_DATA = texts.REPLACEMENT * 3  # no name that an author may give holds it, so it is never taken for one
LONGEST_QUOTE = 500  # characters of the server's own words in an error
MOST_READ = 4096  # characters of them that are looked at for that, and as many more as a secret may take
LONGEST_ENCODED = 12  # characters that encodings take for one
MOST_READ_IN_DATA = (
    256 * 1024
)  # characters of a body that hold secrets; beyond that, such a text is masked as a whole
SHORTEST_IN_DATA = 16  # characters of a secret that cannot be part of a name by chance


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


def quote(text: str, secrets: Iterable[str], longest: int = LONGEST_QUOTE) -> str:
    """Return a server's words on one line, short, without the secrets and without control characters.

    :param text: what came.
    :param secrets: what must not show.
    :param longest: characters at most; what is cut off is shown by an ellipsis.
    """
    known = tuple(filter(None, secrets))
    # Of a secret that is longer the part that is read is found.
    margin = LONGEST_ENCODED * min(2 * disguises.LONG, max(map(len, known), default=0))
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
    known = tuple(secret for secret in dict.fromkeys(secrets) if len(secret) >= SHORTEST_IN_DATA)
    if not known or not disguises.may_hold(body, known):
        return body
    try:
        value = json.loads(body, strict=False)
        without = _Masking(known).of(value)
    except ValueError:
        return body  # It cannot be read by anybody else either.
    except RecursionError:
        return json.dumps(MASK_IN_DATA).encode()
    return body if without == value else json.dumps(without).encode()


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
        if len(text) < disguises.SHORTEST_PART:
            return text
        if not disguises.may_hold(text.encode("utf-8", "surrogatepass"), self._secrets):
            return text
        self._left -= len(text)
        if self._left < 0:
            return MASK_IN_DATA
        return _masked(text, self._secrets, MASK_IN_DATA, len(text), parts=False)


def _masked(text: str, secrets: tuple[str, ...], mask: str, shown: int, *, parts: bool = True) -> str:
    """Return the beginning of a text, with what is secret replaced, and parts of long secrets if asked to."""
    if not secrets:
        return text[:shown]
    found = disguises.spans(text, secrets, parts=parts)
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
