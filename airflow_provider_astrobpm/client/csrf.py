"""Remembers an endpoint's CSRF tokens: the HTTP method that returns them, and the most recent ones.

The API reference does not say which method it is. A later answer may repeat an earlier token, so recent tokens are masked.
"""

from __future__ import annotations

from typing import Literal

Method = Literal["POST", "GET"]
METHOD_NOT_OFFERED_STATUSES = frozenset({404, 405, 501})
"""HTTP statuses for a method that the path does not offer. Gateways that do not know the path answer 404."""

MAX_RECENT_TOKENS = 4  # recent tokens that are kept, so that messages can mask them


class CsrfMemory:
    """What this process knows about the CSRF tokens of one endpoint. Threads may share it."""

    def __init__(self) -> None:
        self.methods: tuple[Method, Method] = ("POST", "GET")
        """The methods to try. The one that returned a token before comes first; at first the one of clients in the field."""
        self.recent_tokens: tuple[str, ...] = ()
        """The most recent tokens, the newest last."""

    def remember(self, token: str, method: str) -> None:
        """Remember a token and the method that returned it."""
        self.methods = ("GET", "POST") if method == "GET" else ("POST", "GET")
        if token not in self.recent_tokens:
            self.recent_tokens = (*self.recent_tokens, token)[-MAX_RECENT_TOKENS:]
