"""How old an instance is, as filters ask for it. Pure.

The API's timestamps have no zone, so an age is known only where the connection says which zone they are in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.bpm import checks, timestamps

if TYPE_CHECKING:
    from datetime import tzinfo

UNITS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_AGE = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)
_LONGEST = 12  # characters of an age; what is longer than centuries is a slip


def parse_age(text: str, argument: str) -> float:
    """Read an age such as ``90s``, ``15m``, ``2h``, ``7d`` or ``1d12h``, and return its seconds.

    :param text: what was given.
    :param argument: where, for the error.
    :raises ValueError: if it is no age.
    """
    match = _AGE.fullmatch(text.strip().lower())
    if not match or not any(match.groups()) or len(text) > _LONGEST:
        raise ValueError(f"{argument} must be an age such as 90s, 15m, 2h, 7d or 1d12h, not {text!r}")
    return float(
        sum(int(count) * size for count, size in zip(match.groups(), UNITS.values(), strict=True) if count)
    )


def seconds_of(value: object, argument: str) -> float:
    """Return the seconds of an age: a text as ``parse_age`` reads it, a ``timedelta``, or a number of seconds."""
    return parse_age(value, argument) if isinstance(value, str) else checks.seconds(value, argument)


def limits(
    older_than: float | None, younger_than: float | None, *, timezone: tzinfo | None, connection: str
) -> AgeLimits | None:
    """Return between which ages an instance has to be; ``None`` where any age will do.

    :param older_than: seconds since its start at least.
    :param younger_than: seconds since its start at most.
    :param timezone: the zone of the API's timestamps, if the connection says it.
    :param connection: the connection id, for the error.
    :raises ValueError: if the zone is not known, or the two exclude each other.
    """
    if older_than is None and younger_than is None:
        return None
    if timezone is None:
        raise ValueError(
            f"how old an instance is cannot be told on connection {connection!r}: Astro Zero's timestamps have no zone. Set "
            "the extra 'timezone' of the connection to the zone they are in, such as Asia/Shanghai"
        )
    if older_than is not None and younger_than is not None and older_than >= younger_than:
        raise ValueError(
            f"no instance is older than {older_than:g} s and younger than {younger_than:g} s at once"
        )
    return AgeLimits(timezone, older_than, younger_than)


@dataclass(frozen=True)
class AgeLimits:
    """Between which ages an instance has to be.

    :param timezone: the zone of the API's timestamps.
    :param older_than: seconds since its start at least.
    :param younger_than: seconds since its start at most.
    """

    timezone: tzinfo
    older_than: float | None = None
    younger_than: float | None = None

    def admit(self, start_time: str | None, now: float) -> bool | None:
        """Tell whether an instance of this start is meant; ``None`` if its age cannot be known.

        :param start_time: when it was started, as the API sends it.
        :param now: the time, in seconds since the epoch.
        """
        if (read := timestamps.parse(start_time)) is None:
            return None
        local = read.replace(tzinfo=self.timezone)
        # Where clocks are put back an hour comes twice, and it may be either.
        verdicts = {self._admits(now - local.replace(fold=fold).timestamp()) for fold in (0, 1)}
        return verdicts.pop() if len(verdicts) == 1 else None

    def _admits(self, age: float) -> bool:
        if self.older_than is not None and age <= self.older_than:
            return False
        return self.younger_than is None or age < self.younger_than
