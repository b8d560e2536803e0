"""Settings of a client for one Astro Zero environment. A ``repr`` never shows secrets."""

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

SHORT_TIMEOUT_SECONDS = 5.0  # to connect, and to wait for an answer, when a person waits for the result


@dataclass(frozen=True)
class ClientCredentials:
    """A machine user's OAuth client."""

    client_id: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True)
class StaticToken:
    """An access token that the connection provides. It is never renewed."""

    token: str = field(repr=False)


@dataclass(frozen=True)
class Settings:
    """One environment, its credentials, and timeouts and limits.

    :param connection: the Airflow connection id, for messages.
    :param base_url: scheme, host, port and base path, without a trailing slash.
    :param credentials: how to get an access token.
    :param verify: whether to check the server's certificate, or the path of a CA bundle.
    :param client_cert: path of a certificate for mutual TLS.
    :param client_key: path of its key, if it is not in the same file.
    :param proxy: URL of a proxy for all calls that may use one.
    :param allow_http: whether plain http may go to other machines, and so through a proxy.
    :param connect_timeout: seconds to reach the server.
    :param read_timeout: seconds to wait for the next part of an answer.
    :param answer_timeout: seconds for the whole answer, counted from the end of the request.
    :param max_attempts: the maximum number of attempts of a call that may be resent.
    :param max_wait: the maximum seconds between two attempts, even if the server asks for more.
    :param max_response_bytes: the maximum size of an answer in bytes, after decompression.
    :param csrf: whether writes carry a CSRF token.
    :param timezone: the time zone of the API's timestamps.
    :param start_grace: seconds after which a started instance is certain to be in the lists.
    :param instance_lookup: how to find one instance by its id.
    :param instance_url: template for the URL of an instance's page.
    :param record: the folder in which each process writes what it sends and receives; ``None`` to record nothing.
    """

    connection: str
    base_url: str
    credentials: ClientCredentials | StaticToken
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
    record: str | None = None

    def secrets(self) -> tuple[str, ...]:
        """Return the secrets that no log may show. The secret of the credentials comes first."""
        credentials = self.credentials
        own = credentials.token if isinstance(credentials, StaticToken) else credentials.client_secret
        return (own, *secrets_of_proxy(self.proxy)) if self.proxy else (own,)

    def with_short_timeouts(self, **limits: Any) -> Settings:
        """Return these settings with short timeouts, for calls that a person waits for.

        :param limits: other settings to replace.
        """
        return replace(
            self,
            connect_timeout=min(self.connect_timeout, SHORT_TIMEOUT_SECONDS),
            read_timeout=min(self.read_timeout, SHORT_TIMEOUT_SECONDS),
            **limits,
        )

    def page_url(self, instance_id: str) -> str | None:
        """Return the URL of an instance's page, or ``None`` if no template is set."""
        if self.instance_url is None:
            return None
        host = urlsplit(self.base_url).netloc
        return self.instance_url.format(host=host, instance_id=quote(instance_id, safe=""))


def secrets_of_proxy(url: str) -> tuple[str, ...]:
    """Return the password of a proxy's URL, as it is written and in the forms in which it is sent."""
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
