"""Which texts can be handed to Airflow: none that holds a NUL or half a surrogate pair.

PostgreSQL refuses both, and a triggerer dies of an event that its database refuses. So the answers of the server are
cleaned where they are read, and what triggers and tasks hand to Airflow is cleaned once more.

Each such character becomes U+FFFD, which people see. No name that an author may give holds that one (see ``checks``), so a
text that was cleaned never equals one that was asked for.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import Any, TypeVar

T = TypeVar("T")

REPLACEMENT = "\ufffd"
_REFUSED = re.compile("[\0\ud800-\udfff]")

# An escaped backslash and a whole pair are matched so that their parts are not. Anything else may stay where it is.
_ESCAPES = re.compile(
    rb"\\\\"
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|\\u0000"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_ESCAPED_REPLACEMENT = rb"\ufffd"
_ESCAPE_LENGTH = len(_ESCAPED_REPLACEMENT)


def is_storable(text: str) -> bool:
    """Return whether Airflow's database takes a text."""
    return _REFUSED.search(text) is None


def storable(value: T) -> T:
    """Return plain JSON with every character replaced that Airflow's database refuses, in names too."""
    return value if _is_all_storable(value) else _replaced(value)


def _is_all_storable(value: Any) -> bool:
    if isinstance(value, str):
        return is_storable(value)
    if isinstance(value, dict):
        return all(map(_is_all_storable, value)) and all(map(_is_all_storable, value.values()))
    return all(map(_is_all_storable, value)) if isinstance(value, (list, tuple)) else True


def _replaced(value: Any) -> Any:
    if isinstance(value, str):
        return _REFUSED.sub(REPLACEMENT, value)
    if isinstance(value, dict):
        return {_replaced(name): _replaced(each) for name, each in value.items()}
    return [_replaced(each) for each in value] if isinstance(value, (list, tuple)) else value


def storable_json(body: bytes) -> bytes:
    """Return a JSON document without a byte order mark, and with every character replaced that cannot be stored.

    What is no JSON comes back as it is, or as broken as it was. It takes no time to speak of where nothing is replaced.
    """
    body = body.removeprefix(codecs.BOM_UTF8)
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError:
            body = body.decode(errors="replace").encode()
    return _ESCAPES.sub(_mended_escape, body) if b"\\" in body else body


def _mended_escape(match: re.Match[bytes]) -> bytes:
    found = match[0]
    return _ESCAPED_REPLACEMENT if len(found) == _ESCAPE_LENGTH else found


def strict_json(body: bytes) -> bytes:
    """Return a JSON document that is read strictly of one that has control characters in its texts.

    :raises ValueError: if it is no JSON all the same, or holds a number that no other JSON can hold.
    """
    value = json.loads(body, strict=False, parse_constant=lambda _: None)
    return json.dumps(storable(value), allow_nan=False).encode()
