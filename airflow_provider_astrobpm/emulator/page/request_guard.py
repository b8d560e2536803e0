"""Accept requests from people's browsers and from programs; refuse requests from foreign web pages. Pure.

Neither the page nor the control API has a password, and the API's secret is public: any client that reaches the emulator
may use it. But a foreign web page in a browser on this machine can send forms to the emulator, and can point its own name
at this machine (DNS rebinding). Browsers report both in headers that a web page cannot change: ``Origin`` shows the
first, ``Host`` the second. So requests for a foreign host name are refused.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


def name_of(host: str) -> str:
    """Return the name or address in a ``Host`` header, without port, brackets and trailing dot."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def refused_host(host: str, allowed: Collection[str]) -> str | None:
    """Return why a request with this ``Host`` header is refused; ``None`` if it is accepted.

    IP addresses are accepted, because a foreign page cannot own one. A name is accepted if it always means this machine,
    or is in ``allowed``.
    """
    name = name_of(host)
    mine = {"localhost", *(each.lower() for each in allowed)}
    if _is_address(name) or name in mine or name.endswith(".localhost"):
        return None
    return (
        f"The emulator does not accept the host name {name!r}: a foreign web page can point its own name at this machine,"
        " and could then do here what you can do. Use an IP address or localhost. If the name is your own, start the"
        f" emulator with --allowed-host {name or 'NAME'}."
    )


def refused_sender(headers: Mapping[str, str]) -> str | None:
    """Return why a form is refused; ``None`` if the page itself sent it.

    :param headers: the headers; names are case-insensitive.
    """
    origin, site = headers.get("Origin", ""), headers.get("Sec-Fetch-Site", "same-origin")
    # The scheme does not matter, only the sender.
    sender = origin.partition("://")[2]
    if site == "same-origin" and sender and sender == headers.get("Host", ""):
        return None
    came_from = f"from {origin!r}" if origin else "without the header Origin"
    return (
        f"The form was sent {came_from}, not from this page, so nothing was done. Open the page and send the form there."
        " Programs use the control API under /_emulator instead."
    )


def refused_command(method: str, headers: Mapping[str, str], allowed: Collection[str]) -> str | None:
    """Return why a control API command is refused; ``None`` if it is accepted.

    Programs send neither ``Origin`` nor ``Sec-Fetch-Site``. Browsers do for requests that can change something.

    :param headers: the headers; names are case-insensitive.
    """
    if refused := refused_host(headers.get("Host", ""), allowed):
        return refused
    if "Origin" not in headers and "Sec-Fetch-Site" not in headers:
        return None
    if method == "GET" or refused_sender(headers) is None:
        return None
    return (
        f"A web page sent this, from {headers.get('Origin', 'an unknown origin')!r}, so nothing was done."
        " The control API is for programs, which send no Origin header."
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
