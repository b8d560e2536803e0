"""The route to an environment, for both transports: which proxy, which certificate files, and the TLS context."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies, select_proxy
from urllib3.util.ssl_ import create_urllib3_context

from airflow_provider_astrobpm.client.errors import SettingsError
from airflow_provider_astrobpm.client.settings import is_loopback

if TYPE_CHECKING:
    from airflow_provider_astrobpm.client.settings import Settings


def proxy_for(settings: Settings, origin: str) -> str | None:
    """Return the URL of the proxy from the settings, or from the environment as ``requests`` reads it, or ``None``.

    This machine is reached without a proxy. So is any host over plain http, unless ``allow_http`` is set: the proxy may be on
    another machine, and then the secret would be readable on the way to it and on it.

    :param settings: the settings of the environment.
    :param origin: its scheme, host and port, as a URL.
    """
    base = urlsplit(settings.base_url)
    if is_loopback(base.hostname or "") or not (base.scheme == "https" or settings.allow_http):
        return None
    return settings.proxy or select_proxy(origin, get_environ_proxies(origin))


def check_files(settings: Settings) -> None:
    """Load the certificate files once, so that an unusable file is reported before anything is sent.

    :raises SettingsError: if a file is unusable.
    """
    _load_files(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), settings)


def create_context(settings: Settings) -> ssl.SSLContext:
    """Return a TLS context that trusts the same authorities as ``requests``. Reads files.

    :raises SettingsError: if a file that the settings name is unusable.
    :raises OSError: if a CA bundle that the environment names is unusable.
    """
    verify = ssl.CERT_NONE if settings.verify is False else ssl.CERT_REQUIRED
    made = create_urllib3_context(cert_reqs=verify)
    made.set_alpn_protocols(["http/1.1"])
    _load_files(made, settings)
    if settings.verify is True:
        _trust(made, _bundle_of_environment() or DEFAULT_CA_BUNDLE_PATH)
    return made


def trusted(settings: Settings) -> bool | str:
    """Return what ``requests`` is to trust: the path of a bundle, ``True`` for its own, or ``False`` for every server."""
    return (_bundle_of_environment() or True) if settings.verify is True else settings.verify


def _bundle_of_environment() -> str | None:
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")


def _load_files(made: ssl.SSLContext, settings: Settings) -> None:
    extra, files = "verify", str(settings.verify)
    try:
        if isinstance(settings.verify, str):
            _trust(made, settings.verify)
        if settings.client_cert:
            extra = "client_cert"
            files = " and ".join(filter(None, (settings.client_cert, settings.client_key)))
            made.load_cert_chain(settings.client_cert, settings.client_key, password=_no_password)
    except (OSError, ValueError) as error:
        raise SettingsError(f"extra {extra!r} names {files}: {error}", settings.connection) from None


def _trust(made: ssl.SSLContext, bundle: str) -> None:
    made.load_verify_locations(**{"capath" if Path(bundle).is_dir() else "cafile": bundle})


def _no_password() -> str:
    """Refuse an encrypted key. Without this, OpenSSL would ask for the password at the terminal."""
    raise ValueError("the key is encrypted, which is not supported")
