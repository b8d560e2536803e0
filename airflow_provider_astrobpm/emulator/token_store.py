"""Access tokens and their CSRF tokens: they are random, expire by the clock, and can be revoked."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class _Issued:
    expires: float
    csrf: str


class TokenStore:
    """The valid tokens.

    :param clock: returns seconds since the epoch.
    :param lifetime: the seconds for which a token is valid.
    """

    def __init__(self, clock: Callable[[], float], lifetime: int) -> None:
        self._clock = clock
        self.lifetime = lifetime
        self._issued: dict[str, _Issued] = {}

    def issue(self, *, concurrent: bool = True) -> str:
        """Return a new token.

        :param concurrent: whether older tokens stay valid.
        """
        now = self._clock()
        self._issued = {
            token: entry for token, entry in self._issued.items() if concurrent and entry.expires > now
        }
        token = secrets.token_urlsafe(32)
        self._issued[token] = _Issued(now + self.lifetime, secrets.token_urlsafe(16))
        return token

    def is_valid(self, token: str | None) -> bool:
        """Return whether a token is valid."""
        entry = self._issued.get(token or "")
        return entry is not None and entry.expires > self._clock()

    def csrf_of(self, token: str) -> str:
        """Return the CSRF token that belongs to a valid token."""
        return self._issued[token].csrf

    def revoke_all(self) -> int:
        """Invalidate every token, and return how many were valid."""
        valid = sum(map(self.is_valid, self._issued))
        self._issued.clear()
        return valid
