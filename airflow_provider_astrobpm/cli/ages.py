"""How old an instance is, as filters ask for it. Pure.

The API's timestamps have no zone, so an age is known only where the connection says which zone they are in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

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
        if start_time is None:
            return None
        try:
            local = datetime.strptime(start_time, "%Y-%m-%d %H:%M:%S").replace(tzinfo=self.timezone)
        except ValueError:
            return None
        # Where clocks are put back an hour comes twice, and it may be either.
        verdicts = {self._admits(now - local.replace(fold=fold).timestamp()) for fold in (0, 1)}
        return verdicts.pop() if len(verdicts) == 1 else None

    def _admits(self, age: float) -> bool:
        if self.older_than is not None and age <= self.older_than:
            return False
        return self.younger_than is None or age < self.younger_than
