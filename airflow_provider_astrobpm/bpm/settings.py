"""What a client needs to know to talk to one Astro Zero environment. Secrets never show in a ``repr``."""

from __future__ import annotations

import base64
import ipaddress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from datetime import tzinfo

InstanceLookup = Literal["auto", "list", "by_id"]
INSTANCE_LOOKUPS: tuple[InstanceLookup, ...] = ("auto", "list", "by_id")

HURRY = 5.0  # seconds to reach a server, and to wait for its answer, where somebody waits for the outcome


@dataclass(frozen=True)
class ClientCredentials:
    """A machine user's OAuth client."""

    client_id: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True)
class ReadyToken:
    """A token that somebody else got. It is never renewed."""

    token: str = field(repr=False)


@dataclass(frozen=True)
class Settings:
    """One environment, one way to sign in, and the limits of patience.

    :param connection: the Airflow connection id, for messages.
    :param base_url: scheme, host, port and base path, without a slash at the end.
    :param credentials: how to sign in.
    :param verify: whether to check the server's certificate, or the path of a CA bundle.
    :param client_cert: path of a certificate for mutual TLS.
    :param client_key: path of its key, where it is not in the same file.
    :param proxy: URL of a proxy for all calls that may take one.
    :param allow_http: whether plain http may go to other machines, and so through a proxy.
    :param connect_timeout: seconds to reach the server.
    :param read_timeout: seconds to wait for the next part of an answer.
    :param answer_timeout: seconds for a whole answer, from the end of the request on.
    :param max_attempts: how often a call is sent at most, where it may be sent again.
    :param max_wait: seconds between two attempts at most, whatever the server asks for.
    :param max_response_bytes: bytes of an answer at most, unpacked.
    :param csrf: whether writes carry a CSRF token.
    :param timezone: the zone of the API's timestamps.
    :param start_grace: seconds after which an instance that was started certainly shows in the lists.
    :param instance_lookup: how one instance is found by its id.
    :param instance_url: template of an instance's address for people.
    """

    connection: str
    base_url: str
    credentials: ClientCredentials | ReadyToken
    verify: bool | str = True
    client_cert: str | None = None
    client_key: str | None = None
    proxy: str | None = field(default=None, repr=False)
    allow_http: bool = False
    connect_timeout: float = 10
    read_timeout: float = 30
    answer_timeout: float = 300
    max_attempts: int = 5
    max_wait: float = 30
    max_response_bytes: int = 64 * 1024 * 1024
    csrf: bool = False
    timezone: tzinfo | None = None
    start_grace: float = 60
    instance_lookup: InstanceLookup = "auto"
    instance_url: str | None = None

    def secrets(self) -> tuple[str, ...]:
        """Return what no log may show, the credentials' own secret first."""
        credentials = self.credentials
        own = credentials.token if isinstance(credentials, ReadyToken) else credentials.client_secret
        return (own, *secrets_of_proxy(self.proxy)) if self.proxy else (own,)

    def may_use_proxy(self) -> bool:
        """Return whether a request may go through a proxy, whoever names it."""
        parts = urlsplit(self.base_url)
        if is_loopback(parts.hostname or ""):
            return False
        return parts.scheme == "https" or self.allow_http

    def in_a_hurry(self, **limits: Any) -> Settings:
        """Return the same, with little patience for a server that does not answer.

        :param limits: other limits of patience, by their names.
        """
        return replace(
            self,
            connect_timeout=min(self.connect_timeout, HURRY),
            read_timeout=min(self.read_timeout, HURRY),
            **limits,
        )

    def url_of(self, instance_id: str) -> str | None:
        """Return the address of an instance for people, or ``None`` where no template is set."""
        if self.instance_url is None:
            return None
        host = urlsplit(self.base_url).netloc
        return self.instance_url.format(host=host, instance_id=quote(instance_id, safe=""))


def secrets_of_proxy(url: str) -> tuple[str, ...]:
    """Return what no log may show of the URL of a proxy: its password, as it stands there and as it is sent."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        user, password = parts.username or "", parts.password
    except ValueError:
        return ()
    if not password:
        return ()
    sent = f"{unquote(user)}:{unquote(password)}".encode()
    return (password, unquote(password), base64.b64encode(sent).decode())


def is_loopback(host: str) -> bool:
    """Return whether a host is certainly this machine.

    :param host: a name or an address, an IPv6 one without brackets.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.rstrip(".").lower() == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
