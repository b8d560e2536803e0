"""Who is answered: a browser that shows the page to a person, programs, and no foreign web page in a browser. Pure.

The page has no password, and whoever reaches it may use it; so it is with the control API, which is for programs, and with
the API, whose secret everybody knows. But any web page that a person opens elsewhere can send forms to an address of this
machine, and can give its own name this machine's address (DNS rebinding). Both show in the headers that browsers send, and
that no web page can change: the first in ``Origin``, the second in ``Host``. So a foreign name is not answered at all.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


def name_of(host: str) -> str:
    """Return the name or address in a ``Host`` header: without the port, the brackets and a final dot."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def refused_host(host: str, allowed: Collection[str]) -> str | None:
    """Return why a request with this ``Host`` header is not answered; ``None`` if it is.

    An address cannot be a foreign page's name. Names are answered if they always mean this machine, or are allowed.
    """
    name = name_of(host)
    mine = {"localhost", *(each.lower() for each in allowed)}
    if _is_address(name) or name in mine or name.endswith(".localhost"):
        return None
    return (
        f"The emulator does not answer to the name {name!r}: a foreign web page can give its own name the address of"
        " this machine, and could then do here what you can do. Use an IP address or localhost. If the name is your"
        f" own, start the emulator with --allowed-host {name or 'NAME'}."
    )


def refused_sender(headers: Mapping[str, str]) -> str | None:
    """Return why a form is not taken; ``None`` if it was sent from the page itself.

    :param headers: found by name in any case.
    """
    origin, site = headers.get("Origin", ""), headers.get("Sec-Fetch-Site", "same-origin")
    # Whether over http or https: what matters is who has sent it.
    sender = origin.partition("://")[2]
    if site == "same-origin" and sender and sender == headers.get("Host", ""):
        return None
    came_from = f"from {origin!r}" if origin else "without saying from where (the header Origin)"
    return (
        f"The form was sent {came_from}, and not from this page, so nothing was done. Open the page and send the form"
        " there. Programs use the control API instead, under /_emulator."
    )


def refused_command(method: str, headers: Mapping[str, str], allowed: Collection[str]) -> str | None:
    """Return why an order to the control API is not taken; ``None`` if it is.

    Programs say nothing of where they were loaded from. A browser says it of what can change something.

    :param headers: found by name in any case.
    """
    if refused := refused_host(headers.get("Host", ""), allowed):
        return refused
    if "Origin" not in headers and "Sec-Fetch-Site" not in headers:
        return None
    if method == "GET" or refused_sender(headers) is None:
        return None
    return (
        f"A web page sent this, from {headers.get('Origin', 'an address that it does not say')!r}, so nothing was done."
        " The control API is for programs, which send no header Origin."
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
