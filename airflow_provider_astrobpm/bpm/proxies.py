"""Which proxy a request takes: both transports ask here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from requests.utils import get_environ_proxies, select_proxy

if TYPE_CHECKING:
    from airflow_provider_astrobpm.bpm.settings import Settings


def proxy_for(settings: Settings, origin: str) -> str | None:
    """Return the URL of the proxy of the settings, or else of the environment, as ``requests`` reads it; ``None`` for none.

    This machine is reached without a proxy, and so is any host by plain http unless that is allowed: the proxy may be on another
    machine, and the secret would be readable on the way to it and on it.

    :param settings: which environment.
    :param origin: its scheme, host and port, as a URL.
    """
    if not settings.may_use_proxy():
        return None
    return settings.proxy or select_proxy(origin, get_environ_proxies(origin))
