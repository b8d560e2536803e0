"""What is remembered of an endpoint's CSRF tokens: by which method it gives them, and which ones it gave last.

The API reference does not say by which method. A later answer may still repeat an earlier token, so the last ones are masked.
"""

from __future__ import annotations

from typing import Literal

Method = Literal["POST", "GET"]
FIRST: Method = "POST"  # as clients in the field do it
NO_SUCH_METHOD = frozenset({404, 405, 501})
"""How a server says that there is nothing by this method: as documented for HTTP, and as gateways do that know no path by it."""


MOST_EARLIER = 4  # tokens that are remembered, so that messages can mask them


class CsrfMemory:
    """What is known of one endpoint. Threads may share it."""

    def __init__(self) -> None:
        self._works: Method | None = None
        self.earlier: tuple[str, ...] = ()
        """The last tokens, the newest last."""

    def in_order(self) -> tuple[Method, Method]:
        """Return the methods to try, the one first that has got a token before."""
        return ("GET", "POST") if (self._works or FIRST) == "GET" else ("POST", "GET")

    def got(self, token: str, method: Method) -> None:
        """Remember a token, and the method that got it."""
        self._works = method
        if token not in self.earlier:
            self.earlier = (*self.earlier, token)[-MOST_EARLIER:]
