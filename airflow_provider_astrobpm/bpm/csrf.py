"""By which method an endpoint gives its CSRF tokens. The API reference does not say, so what was seen is remembered."""

from __future__ import annotations

from typing import Literal

Method = Literal["POST", "GET"]
FIRST: Method = "POST"  # as clients in the field do it
NO_SUCH_METHOD = frozenset({404, 405, 501})
"""How a server says that there is nothing by this method: as documented for HTTP, and as gateways do that know no path by it."""


class CsrfMethod:
    """What is known of one endpoint. Threads may share it."""

    def __init__(self) -> None:
        self._works: Method | None = None

    def in_order(self) -> tuple[Method, Method]:
        """Return the methods to try, the one first that has got a token before."""
        return ("GET", "POST") if (self._works or FIRST) == "GET" else ("POST", "GET")

    def works(self, method: Method) -> None:
        """Remember that this method got a token."""
        self._works = method
