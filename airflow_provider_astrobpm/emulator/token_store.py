"""Access tokens, which are random, expire by the clock and can be revoked, and the CSRF token of each."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class TokenStore:
    """The valid tokens.

    :param clock: returns seconds since the epoch.
    :param lifetime: the seconds for which a token is valid.
    """

    def __init__(self, clock: Callable[[], float], lifetime: int) -> None:
        self._clock = clock
        self.lifetime = lifetime
        self._expiry: dict[str, float] = {}

    def issue(self, *, concurrent: bool) -> str:
        """Return a new token. Older tokens stay valid only if ``concurrent`` is true."""
        now = self._clock()
        self._expiry = {token: end for token, end in self._expiry.items() if concurrent and end > now}
        token = secrets.token_urlsafe(32)
        self._expiry[token] = now + self.lifetime
        return token

    def is_valid(self, token: str) -> bool:
        """Return whether a token is valid."""
        return self._expiry.get(token, 0.0) > self._clock()

    def csrf_of(self, token: str) -> str:
        """Return the CSRF token that belongs to a token."""
        return hashlib.sha256(token.encode()).hexdigest()

    def revoke_all(self) -> int:
        """Invalidate every token, and return how many were valid."""
        valid = sum(map(self.is_valid, self._expiry))
        self._expiry.clear()
        return valid
