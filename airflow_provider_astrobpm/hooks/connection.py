"""Converts an Airflow connection of type ``astro_zero`` to ``Settings``. Pure: nothing is read or sent.

The connection form delivers numbers and booleans as texts, and an empty field as an empty text. So each extra is read by a
function that accepts both.
"""

from __future__ import annotations

import ipaddress
import json
import re
from datetime import timedelta, timezone
from pathlib import PurePath
from string import Formatter
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo

from airflow_provider_astrobpm.client import validation
from airflow_provider_astrobpm.client.errors import SettingsError
from airflow_provider_astrobpm.client.settings import (
    INSTANCE_LOOKUPS,
    ClientCredentials,
    Settings,
    StaticToken,
    is_loopback,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import tzinfo

BOOLEAN_WORDS = {True: "true", False: "false"}
"""How the two booleans are written in an extra."""
MAX_URL_COLONS = 2  # colons in a URL with a scheme and a port
_USER = re.compile(r"//.*@", re.DOTALL)
_OFFSET = re.compile(r"(?:UTC|GMT)?(?P<sign>[+-])(?P<hours>0?\d|1[0-4])(?::?(?P<minutes>[0-5]\d))?", re.ASCII)
"""A time zone given as an offset of at most 14 hours from UTC."""


class AirflowConnection(Protocol):
    """The fields of an Airflow connection that are read here."""

    conn_id: str
    host: str | None
    port: int | None
    schema: str | None
    login: str | None
    password: str | None
    extra: str | None


def settings_from(connection: AirflowConnection) -> Settings:
    """Read a connection.

    :param connection: the Airflow connection.
    :raises SettingsError: if it cannot be used; the message names the connection and the field, and never shows a secret.
    """
    try:
        extras = _extras(connection.extra)
        allow_http = extras.pop("allow_http", False)
        credentials = _credentials(connection, extras.pop("access_token", None))
        return Settings(
            connection=connection.conn_id,
            base_url=_base_url(connection, allow_http=allow_http),
            credentials=credentials,
            allow_http=allow_http,
            **extras,
        )
    except ValueError as error:
        raise SettingsError(str(error), connection.conn_id) from None
    except RecursionError:
        raise SettingsError("extra is not JSON", connection.conn_id) from None


def _credentials(connection: AirflowConnection, access_token: str | None) -> ClientCredentials | StaticToken:
    if access_token is not None:
        return StaticToken(access_token)
    return ClientCredentials(
        _pasted(connection.login, "login (the client id)"),
        _pasted(connection.password, "password (the client secret)"),
    )


def _pasted(value: str | None, field: str) -> str:
    """Return a credential that may have been pasted from a file, without surrounding blanks and line breaks."""
    text = (value or "").strip()
    if not text:
        raise ValueError(f"{field} is empty, and so is the extra 'access_token'")
    if not text.isprintable():
        raise ValueError(
            f"{field} contains a line break or a control character; paste one line of the downloaded file"
        )
    return text


def _base_url(connection: AirflowConnection, *, allow_http: bool) -> str:
    """Return scheme, host, port and base path. The host field may contain all of them."""
    host = (connection.host or "").strip()
    if not host:
        raise ValueError(
            "host is empty; set it to the environment's domain, such as appcube.cn-north-4.huaweicloud.com"
        )
    if _is_ipv6(host):
        host = f"[{host}]"
    given_scheme = (connection.schema or "").strip().lower()
    parts = _split(host if "://" in host else f"{given_scheme or 'https'}://{host}", "host")
    if "@" in host or parts.query or parts.fragment:  # what looks like a user may be in the path
        raise ValueError("host must contain only a domain, a port and a base path")
    if parts.scheme not in ("http", "https"):
        raise ValueError(
            f"schema must be https (or http), not {validation.shown(given_scheme or parts.scheme)}"
        )
    if given_scheme and given_scheme != parts.scheme:
        raise ValueError(
            f"host has scheme {validation.shown(parts.scheme)}, but schema is {validation.shown(given_scheme)}"
        )
    if not parts.hostname or any(character.isspace() for character in host):
        raise ValueError(f"host {validation.shown(host)} is not a domain")
    if connection.port is not None and parts.port and connection.port != parts.port:
        raise ValueError(f"host has port {parts.port}, but port is {connection.port}")
    if parts.scheme == "http" and not allow_http and not is_loopback(parts.hostname):
        raise ValueError(
            f"http:// to {validation.shown(parts.hostname)} would send the secret unencrypted; use https, or set the extra "
            "'allow_http' to true if this is intended"
        )
    port = parts.port if connection.port is None else connection.port
    if port is not None and not 1 <= port <= 65535:
        raise ValueError(f"port must be from 1 to 65535, not {port}")
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{name}{f':{port}' if port else ''}{parts.path.rstrip('/')}"


def _split(url: str, argument: str) -> SplitResult:
    """Parse a URL. Errors do not show it, because it may contain a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port, parts.hostname  # reading these may fail too
    except ValueError:
        hint = (
            "; an IPv6 address needs brackets, as in https://[2001:db8::1]"
            if url.count(":") > MAX_URL_COLONS
            else ""
        )
        raise ValueError(f"{argument} is not a valid URL, or its port is invalid{hint}") from None
    return parts


def _without_user(url: str) -> str:
    """Return a URL without user and password, for a message."""
    return _USER.sub("//***@", url)


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def _extras(extra: str | None) -> dict[str, Any]:
    """Return the extras that are set, each converted and checked."""
    try:
        given = json.loads(extra) if extra and extra.strip() else {}
    except ValueError:
        raise ValueError("extra is not JSON") from None
    if not isinstance(given, dict):
        raise ValueError("extra must be a JSON object")
    read: dict[str, Any] = {}
    for name, value in given.items():
        if name not in EXTRAS:
            near = validation.nearest(name, EXTRAS)
            hint = f"did you mean {near!r}?" if near else f"known extras are {', '.join(EXTRAS)}"
            raise ValueError(f"unknown extra {validation.shown(name)}; {hint}")
        if value is not None and value != "":
            read[name] = EXTRAS[name](value, f"extra {name!r}")
    if "client_key" in read and "client_cert" not in read:
        raise ValueError("extra 'client_key' is set without 'client_cert'")
    return read


def _truth(value: object, argument: str) -> bool:
    known = {"true": True, "false": False}
    if (text := str(value).strip().lower()) not in known:
        instead = validation.boolean_hint(value, BOOLEAN_WORDS)
        raise ValueError(f"{argument} must be one of 'true', 'false', not {validation.shown(value)}{instead}")
    return known[text]


def _truth_or_path(value: object, argument: str) -> bool | str:
    if str(value).strip().lower() in ("true", "false"):
        return _truth(value, argument)
    if instead := validation.boolean_hint(value, BOOLEAN_WORDS):
        raise ValueError(
            f"{argument} must be true, false or the path of a file, not {validation.shown(value)}{instead}"
        )
    return validation.non_blank(value, argument)


def _number(value: object, argument: str) -> object:
    """Convert a text from the form to a number. Any other value is returned unchanged, for the check."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _seconds(value: object, argument: str) -> float:
    return validation.seconds(_number(value, argument), argument, least=0.001, in_code=False)


def _count(value: object, argument: str) -> int:
    number = _number(value, argument)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or number < 1 or number % 1 != 0:
        raise ValueError(f"{argument} must be a whole number, at least 1, not {validation.shown(value)}")
    return int(number)


def _token(value: object, argument: str) -> str:
    if not isinstance(value, str) or not validation.is_token(value.strip()):
        raise ValueError(f"{argument} must be a token without blanks")
    return value.strip()


def _proxy(value: object, argument: str) -> str:
    parts = _split(value, argument) if isinstance(value, str) else None
    if not isinstance(value, str) or not parts or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{argument} must be a URL such as http://proxy.example:3128")
    return value


def _timezone(value: object, argument: str) -> tzinfo:
    """Return a time zone from its name or its offset from UTC."""
    try:
        name = validation.non_blank(value, argument).strip()
        if offset := _OFFSET.fullmatch(name):
            ahead = timedelta(hours=int(offset["hours"]), minutes=int(offset["minutes"] or 0))
            return timezone(-ahead if offset["sign"] == "-" else ahead)
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError(
            f"{argument} must be a time zone such as Asia/Shanghai or +08:00, not {validation.shown(value)}"
        ) from None


def _url_template(value: object, argument: str) -> str:
    template = validation.non_blank(value if not isinstance(value, str) else _without_user(value), argument)
    template = str(value)
    try:
        fields = [tuple(field) for _, *field in Formatter().parse(template) if field[0] is not None]
    except ValueError:
        fields = [("?",)]
    plain = {("host", "", None), ("instance_id", "", None)}
    if not template.startswith(("https://", "http://")) or not plain.issuperset(fields):
        raise ValueError(
            f"{argument} must be an https:// address with no placeholders but {{host}} and {{instance_id}}, "
            f"not {validation.shown(_without_user(template))}"
        )
    parts = _split(template, argument)
    if not parts.hostname or _USER.search(template) or not template.isprintable() or " " in template:
        raise ValueError(
            f"{argument} must be an address with a host, and without a user, blanks and line breaks; "
            "write an @ in its path as %40"
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError(
            f"{argument} must be an https:// address, or an http:// one of this machine, such as "
            f"http://127.0.0.1:8765, not {validation.shown(_without_user(template))}"
        )
    return template


def _folder(value: object, argument: str) -> str:
    folder = validation.non_blank(value, argument)
    if not PurePath(folder).is_absolute():
        raise ValueError(
            f"{argument} must be the absolute path of a folder, such as /var/tmp/astro-zero, not {validation.shown(value)}"
        )
    return folder


EXTRAS: dict[str, Callable[[object, str], object]] = {
    "access_token": _token,
    "allow_http": _truth,
    "verify": _truth_or_path,
    "client_cert": validation.non_blank,
    "client_key": validation.non_blank,
    "proxy": _proxy,
    "connect_timeout": _seconds,
    "read_timeout": _seconds,
    "max_attempts": _count,
    "max_wait": _seconds,
    "max_response_bytes": _count,
    "csrf": _truth,
    "timezone": _timezone,
    "start_grace": _seconds,
    "instance_lookup": lambda value, argument: validation.choice(value, argument, INSTANCE_LOOKUPS),
    "instance_url": _url_template,
    "record": _folder,
}
"""Every extra of the connection, and the function that reads it."""
