"""Chooses the proxy for a request. Both transports share it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from requests.utils import get_environ_proxies, select_proxy

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
