"""Format states, ages, time zones, foreign text and values for the page. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_astrobpm.client.states import SUSPENDED

if TYPE_CHECKING:
    from airflow_provider_astrobpm.emulator.engine import Engine
    from airflow_provider_astrobpm.emulator.instances import Instance

# The units of an age, largest first, with their seconds.
_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))
# Control characters, characters that change the text direction, and surrogates; but not tabs and line feeds.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def badges(instance: Instance, engine: Engine) -> tuple[str, ...]:
    """Return the state that the API shows, plus ``Suspended`` if the instance is suspended in another state."""
    shown = engine.shown_state(instance)
    return (shown, SUSPENDED) if instance.suspended and shown != SUSPENDED else (shown,)


def age(seconds: float) -> str:
    """Format a duration with its two largest units, such as ``2 h 5 min``, rounded down to minutes."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for name, size in _UNITS:
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {name}" if count else "")
    return " ".join(filter(None, parts[:2])) or "under a minute"


def zone(utc_offset: float) -> str:
    """Return the name of the time zone of the server's timestamps.

    :param utc_offset: hours ahead of UTC.
    """
    minutes = round(abs(utc_offset) * 60)
    if not minutes:
        return "UTC"
    rest = f":{minutes % 60:02}" if minutes % 60 else ""
    return f"UTC{'+' if utc_offset > 0 else '-'}{minutes // 60}{rest}"


def visible(text: str, limit: int = 1_000) -> str:
    """Return text with invisible characters, and those that change its direction, written as escapes.

    :param limit: the maximum length; the number of omitted characters is appended.
    """
    rest = len(text) - limit
    shown = _UNSEEN.sub(lambda match: f"\\u{ord(match.group()):04x}", text[:limit])
    return f"{shown}… ({rest:,} more characters)" if rest > 0 else shown


def value_text(value: Any) -> str:
    """Format the value of a variable: text unchanged, everything else as JSON."""
    if isinstance(value, str):
        return value
    # Lists and objects get one line for each element.
    several = isinstance(value, (dict, list)) and len(value) > 0
    return msgspec.json.format(msgspec.json.encode(value), indent=2 if several else 0).decode()
