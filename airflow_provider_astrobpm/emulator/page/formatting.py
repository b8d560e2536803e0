"""Ages, moments and foreign text, as the page writes them. Pure."""

from __future__ import annotations

import re
from typing import Any

import msgspec

# The units of an age, the greatest first, and how many seconds each has.
_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))
# Control characters, what turns the direction of text around, and halves of characters; not tabs and line feeds.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def age(seconds: float) -> str:
    """Write a length of time with its two greatest units, such as ``2 h 5 min``; it is rounded down to minutes."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for name, size in _UNITS:
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {name}" if count else "")
    return " ".join(filter(None, parts[:2])) or "under a minute"


def zone(utc_offset: float) -> str:
    """Name the zone of the server's timestamps.

    :param utc_offset: hours ahead of UTC.
    """
    minutes = round(abs(utc_offset) * 60)
    if not minutes:
        return "UTC"
    rest = f":{minutes % 60:02}" if minutes % 60 else ""
    return f"UTC{'+' if utc_offset > 0 else '-'}{minutes // 60}{rest}"


def visible(text: str, limit: int) -> str:
    """Return text that shows as what it is: what cannot be seen or turns text around is written as its code.

    :param limit: the most characters; what is cut off is counted.
    """
    rest = len(text) - limit
    shown = _UNSEEN.sub(lambda match: f"\\u{ord(match.group()):04x}", text[:limit])
    return f"{shown}… ({rest:,} more characters)" if rest > 0 else shown


def value_text(value: Any) -> str:
    """Write the value of a variable: text as it is, everything else as JSON."""
    if isinstance(value, str):
        return value
    # Lists and objects take a line for each of their parts.
    several = isinstance(value, (dict, list)) and len(value) > 0
    return msgspec.json.format(msgspec.json.encode(value), indent=2 if several else 0).decode()
