"""Filters instances by age. Pure.

The API's timestamps have no time zone. An age is known only if the connection names the zone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.client import timestamps, validation

if TYPE_CHECKING:
    from datetime import tzinfo

UNITS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_AGE = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)
_MAX_AGE_CHARS = 12  # an age longer than centuries is a mistake


def parse_age(text: str, argument: str) -> float:
    """Parse an age such as ``90s``, ``15m``, ``2h``, ``7d`` or ``1d12h``, and return its seconds.

    :raises ValueError: if it is not an age; it names the argument.
    """
    match = _AGE.fullmatch(text.strip().lower())
    if not match or not any(match.groups()) or len(text) > _MAX_AGE_CHARS:
        raise ValueError(
            f"{argument} must be an age such as 90s, 15m, 2h, 7d or 1d12h, not {validation.shown(text)}"
        )
    return float(
        sum(int(count) * size for count, size in zip(match.groups(), UNITS.values(), strict=True) if count)
    )


def age_seconds(value: object, argument: str) -> float:
    """Return an age in seconds. It may be a text for ``parse_age``, a ``timedelta``, or a number of seconds."""
    return parse_age(value, argument) if isinstance(value, str) else validation.seconds(value, argument)


def limits(
    older_than: float | None, younger_than: float | None, *, timezone: tzinfo | None, connection: str
) -> AgeLimits | None:
    """Return the limits for the age of an instance, in seconds, or ``None`` if any age will do.

    :param timezone: the time zone of the API's timestamps, if the connection names it.
    :param connection: the connection id, for the error.
    :raises ValueError: if the time zone is unknown, or the limits exclude each other.
    """
    if older_than is None and younger_than is None:
        return None
    if timezone is None:
        raise ValueError(
            f"the age of an instance is unknown on connection {connection!r}: Astro Zero's timestamps have no time zone. Set "
            "the extra 'timezone' of the connection to their time zone, such as Asia/Shanghai"
        )
    if older_than is not None and younger_than is not None and older_than >= younger_than:
        raise ValueError(
            f"no instance is both older than {older_than:g} s and younger than {younger_than:g} s"
        )
    return AgeLimits(timezone, older_than, younger_than)


@dataclass(frozen=True)
class AgeLimits:
    """Limits for the age of an instance.

    :param timezone: the time zone of the API's timestamps.
    :param older_than: the minimum seconds since its start.
    :param younger_than: the maximum seconds since its start.
    """

    timezone: tzinfo
    older_than: float | None = None
    younger_than: float | None = None

    def includes(self, start_time: str | None, now: float) -> bool | None:
        """Return whether an instance is within the limits, or ``None`` if its age is unknown.

        :param now: the time, in seconds since the epoch.
        """
        if (read := timestamps.parse(start_time)) is None:
            return None
        local = read.replace(tzinfo=self.timezone)
        # When clocks are put back, one hour occurs twice, and the timestamp may mean either.
        verdicts = {self._admits(now - local.replace(fold=fold).timestamp()) for fold in (0, 1)}
        return verdicts.pop() if len(verdicts) == 1 else None

    def _admits(self, age: float) -> bool:
        is_old = self.older_than is None or age > self.older_than
        return is_old and (self.younger_than is None or age < self.younger_than)
