"""Cleans texts that Airflow's database refuses: those with a NUL character or a lone surrogate.

PostgreSQL refuses both, and a triggerer crashes when its database refuses an event. The client therefore cleans the
server's answers as it reads them, and triggers and tasks clean again what they hand to Airflow.

Each such character becomes U+FFFD, which is visible. ``validation`` rejects names with U+FFFD, so a cleaned text never
equals a name that an author asked for.
"""

from __future__ import annotations

import codecs
import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

REPLACEMENT = "\ufffd"
_REFUSED = re.compile("[\0\ud800-\udfff]")

# Escaped backslashes and complete surrogate pairs are matched too, so that the later patterns do not match a part of them.
_ESCAPES = re.compile(
    rb"\\\\"
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|\\u0000"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_ESCAPED_REPLACEMENT = rb"\ufffd"


def is_storable(text: str) -> bool:
    """Return whether Airflow's database accepts a text."""
    return _REFUSED.search(text) is None


def storable(value: T) -> T:
    """Return plain JSON in which each character that Airflow's database refuses is replaced, also in object keys."""
    return value if _is_all_storable(value) else with_strings(value, partial(_REFUSED.sub, REPLACEMENT))


def _is_all_storable(value: Any) -> bool:
    if isinstance(value, str):
        return is_storable(value)
    if isinstance(value, dict):
        return all(map(_is_all_storable, value)) and all(map(_is_all_storable, value.values()))
    return all(map(_is_all_storable, value)) if isinstance(value, (list, tuple)) else True


def with_strings(value: Any, change: Callable[[str], str]) -> Any:
    """Return plain JSON with each of its strings changed, also in object keys."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {with_strings(name, change): with_strings(each, change) for name, each in value.items()}
    return [with_strings(each, change) for each in value] if isinstance(value, (list, tuple)) else value


def storable_json(body: bytes) -> bytes:
    """Return a JSON document without a byte order mark and with each character that cannot be stored replaced.

    Invalid JSON comes back unchanged, or just as invalid. If there is nothing to replace, this takes next to no time.
    """
    body = body.removeprefix(codecs.BOM_UTF8)
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError:
            body = body.decode(errors="replace").encode()
    return _ESCAPES.sub(_mended_escape, body) if b"\\" in body else body


def _mended_escape(match: re.Match[bytes]) -> bytes:
    return _ESCAPED_REPLACEMENT if len(match[0]) == len(_ESCAPED_REPLACEMENT) else match[0]


def strict_json(body: bytes) -> bytes:
    """Convert JSON with control characters in its strings to JSON that a strict parser reads.

    :raises ValueError: if it is still not JSON, or has a number that strict JSON cannot represent.
    """
    value = json.loads(body, strict=False, parse_constant=lambda _: None)
    return json.dumps(storable(value), allow_nan=False).encode()
