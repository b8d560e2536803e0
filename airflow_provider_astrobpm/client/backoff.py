"""The one formula for the pause before something is tried again. No I/O and no randomness."""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_GROWTHS = 64  # more would overflow, and every limit is reached long before


@dataclass(frozen=True)
class Backoff:
    """Pauses that grow with each failure in a row, up to a limit.

    A part of each pause is random, so that tasks that failed together do not come back together.

    :param first: seconds after the first failure, at most.
    :param longest: the longest pause in seconds.
    :param factor: by which a pause is longer than the one before.
    :param jitter: the random share of a pause. With 0.5, a pause has between half of its length and all of it.
    :param longest_asked: the longest pause that the server may ask for; ``longest`` by default.
    """

    first: float
    longest: float = math.inf
    factor: float = 2.0
    jitter: float = 0.5
    longest_asked: float | None = None

    def pause(self, failures: int, chance: float, asked: float | None = None) -> float:
        """Return the seconds until the next attempt.

        :param failures: how many attempts in a row have failed.
        :param chance: a random number from 0 to 1.
        :param asked: seconds that the server asks for (``Retry-After``). The pause is not shorter, and slightly longer by chance.
        """
        grown = min(self.longest, self.first * self.factor ** min(max(failures - 1, 0), MAX_GROWTHS))
        own = grown * (1 - self.jitter * chance)
        return own if asked is None else max(own, self.asked_pause(asked, chance))

    def asked_pause(self, asked: float, chance: float) -> float:
        """Return the seconds until the next attempt if only the server decides. For the parameters see ``pause``."""
        limit = self.longest if self.longest_asked is None else self.longest_asked
        return min(limit, asked + self.first * self.jitter * chance)
