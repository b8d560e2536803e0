"""Checks the certificate files of an environment before anything is sent, and builds the TLS context."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.util.ssl_ import create_urllib3_context

from airflow_provider_astrobpm.client.errors import SettingsError

if TYPE_CHECKING:
    from airflow_provider_astrobpm.client.settings import Settings


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
        named = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        _trust(made, named or DEFAULT_CA_BUNDLE_PATH)
    return made


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
