"""Conversion of connections to settings, field by field, and the error for each mistake."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_astrobpm.client.errors import SettingsError
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings, StaticToken
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
from airflow_provider_astrobpm.hooks.connection import EXTRAS, settings_from
from airflow_provider_astrobpm.provider_info import get_provider_info

SECRET, TOKEN = "the-client-secret", "the-access-token"


@dataclass
class Connection:
    conn_id: str = "my_conn"
    host: str | None = "host.example"
    port: int | None = None
    schema: str | None = None
    login: str | None = "client"
    password: str | None = SECRET
    extra: str | None = None


def read(extra: dict[str, Any] | None = None, **fields: Any) -> Settings:
    return settings_from(Connection(**fields, extra=None if extra is None else json.dumps(extra)))


def test_minimal_connection() -> None:
    assert read() == Settings("my_conn", "https://host.example", ClientCredentials("client", SECRET))


@pytest.mark.parametrize(
    ("fields", "base_url"),
    [
        ({"host": "host.example"}, "https://host.example"),
        ({"host": "host.example", "schema": "https"}, "https://host.example"),
        ({"host": "host.example", "port": 32000}, "https://host.example:32000"),
        ({"host": "https://host.example:32000/"}, "https://host.example:32000"),
        ({"host": "https://host.example/portal/x/"}, "https://host.example/portal/x"),
        ({"host": "host.example/portal"}, "https://host.example/portal"),
        ({"host": "HOST.example "}, "https://host.example"),
        ({"host": "127.0.0.1", "schema": "http", "port": 8080}, "http://127.0.0.1:8080"),
        ({"host": "http://localhost:8080"}, "http://localhost:8080"),
        ({"host": "http://[::1]:8080"}, "http://[::1]:8080"),
        ({"host": "10.0.0.7"}, "https://10.0.0.7"),
        ({"host": "http://host.example", "extra": '{"allow_http": true}'}, "http://host.example"),
        ({"host": "2001:db8::1"}, "https://[2001:db8::1]"),
        ({"host": "2001:DB8::1", "port": 8443}, "https://[2001:db8::1]:8443"),
        ({"host": "[2001:db8::1]"}, "https://[2001:db8::1]"),
        ({"host": "::1", "schema": "http", "port": 8765}, "http://[::1]:8765"),
        ({"host": "https://[2001:db8::1]:8443/portal"}, "https://[2001:db8::1]:8443/portal"),
    ],
)
def test_base_url(fields: dict[str, Any], base_url: str) -> None:
    assert settings_from(Connection(**fields)).base_url == base_url


@pytest.mark.parametrize("as_text", [False, True])
def test_every_extra_as_value_and_as_form_text(as_text: bool) -> None:
    extra: dict[str, Any] = {
        "verify": False,
        "client_cert": "/c.pem",
        "client_key": "/k.pem",
        "proxy": "http://user:pw@proxy.example:3128",
        "connect_timeout": 3,
        "read_timeout": 4.5,
        "max_attempts": 2,
        "max_wait": 6,
        "max_response_bytes": 1000,
        "csrf": True,
        "timezone": "Asia/Shanghai",
        "start_grace": 20,
        "instance_lookup": "list",
        "instance_url": "https://{host}/studio/{instance_id}",
        "allow_http": True,
        "access_token": TOKEN,
        "record": "/data/transcripts",
    }
    assert set(extra) == set(EXTRAS)
    settings = read({name: str(value) for name, value in extra.items()} if as_text else extra)
    assert settings == Settings(
        connection="my_conn",
        base_url="https://host.example",
        credentials=StaticToken(TOKEN),
        verify=False,
        client_cert="/c.pem",
        client_key="/k.pem",
        proxy="http://user:pw@proxy.example:3128",
        allow_http=True,
        connect_timeout=3,
        read_timeout=4.5,
        max_attempts=2,
        max_wait=6,
        max_response_bytes=1000,
        csrf=True,
        timezone=ZoneInfo("Asia/Shanghai"),
        start_grace=20,
        instance_lookup="list",
        instance_url="https://{host}/studio/{instance_id}",
        record="/data/transcripts",
    )
    assert set(settings.secrets()) == {TOKEN, "pw", "dXNlcjpwdw=="}


@pytest.mark.parametrize(
    ("uri", "base_url"),
    [
        ("astro-zero://client:secret@[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        ("astro-zero://client:secret@[2001:db8::1]/https", "https://[2001:db8::1]"),
        ("astro-zero://client:secret@[::1]:8765/http", "http://[::1]:8765"),
        ("astro-zero://client:secret@host.example", "https://host.example"),
    ],
)
def test_connection_uri(uri: str, base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MY_CONN", uri)
    assert AstroZeroHook("my_conn").settings.base_url == base_url


@pytest.mark.parametrize("around", ["{}\n", " {}\r\n", "\t{} "])
def test_surrounding_whitespace_of_credentials_is_stripped(around: str) -> None:
    settings = read(login=around.format("client"), password=around.format(SECRET))
    assert settings.credentials == ClientCredentials("client", SECRET)
    assert settings.secrets() == (SECRET,)


@pytest.mark.parametrize(
    ("value", "hours"),
    [
        ("+08:00", 8),
        ("+0800", 8),
        ("+8", 8),
        ("UTC+8", 8),
        ("UTC+08:00", 8),
        ("-03:30", -3.5),
        ("+14:00", 14),
    ],
)
def test_timezone_as_offset(value: str, hours: float) -> None:
    zone = read({"timezone": value}).timezone
    assert zone == timezone(timedelta(hours=hours))
    assert read({"timezone": str(zone)}).timezone == zone, "the doctor writes it so"


def test_empty_form_fields_are_ignored() -> None:
    assert read(dict.fromkeys(EXTRAS, "")) == read()
    assert read(dict.fromkeys(EXTRAS)) == read()


@pytest.mark.parametrize(
    ("value", "verify"), [("True", True), ("false", False), ("/ca.pem", "/ca.pem"), (True, True)]
)
def test_verify_is_a_boolean_or_a_path(value: Any, verify: bool | str) -> None:
    assert read({"verify": value}).verify == verify


def test_instance_url() -> None:
    settings = read({"instance_url": "https://{host}/i/{instance_id}"}, host="https://host.example:32000/x")
    assert settings.page_url("a/b") == "https://host.example:32000/i/a%2Fb"
    assert read().page_url("a") is None
    settings = read({"instance_url": "https://x:1/#/{{a}}/{instance_id}?e={host}"}, host="[::1]")
    assert settings.page_url("1 ä") == "https://x:1/#/{a}/1%20%C3%A4?e=[::1]"


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost", "[::1]:1"])
def test_instance_url_allows_plain_http_only_on_this_machine(host: str) -> None:
    settings = read({"instance_url": f"http://{host}/instances/{{instance_id}}"})
    assert settings.page_url("a") == f"http://{host}/instances/a"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"host": ""}, "host is empty"),
        ({"host": None}, "host is empty"),
        ({"host": "  "}, "host is empty"),
        ({"login": ""}, "login .the client id. is empty"),
        ({"password": None}, "password .the client secret. is empty"),
        ({"host": "http://host.example"}, "http:// to 'host.example' would send the secret unencrypted"),
        ({"host": "host.example", "schema": "http"}, "would send the secret unencrypted"),
        ({"host": "http://127.0.0.1.example"}, "would send the secret unencrypted"),
        ({"host": "ftp://host.example"}, "schema must be https"),
        ({"host": "http://127.0.0.1", "schema": "https"}, "host has scheme 'http', but schema is 'https'"),
        ({"host": "host.example:1", "port": 2}, "host has port 1, but port is 2"),
        ({"host": "https://u:p@host.example"}, "host must contain only a domain"),
        ({"host": f"https://host.example//u:{SECRET}@proxy.example"}, "host must contain only a domain"),
        ({"host": f"host.example/u:{SECRET}@proxy.example"}, "host must contain only a domain"),
        ({"host": "https://@host.example"}, "host must contain only a domain"),
        ({"host": "https://host.example?token=t"}, "host must contain only a domain"),
        ({"host": "https://"}, "is not a domain"),
        ({"host": "host example"}, "is not a domain"),
        ({"host": f"//user:{SECRET}@host example"}, "host must contain only a domain"),
        ({"extra": "[" * 50_000}, "extra is not JSON"),
        ({"host": "host.example:port"}, "port"),
        ({"host": "host.example:99999"}, "[Pp]ort"),
        ({"port": 0}, "port must be from 1 to 65535, not 0"),
        ({"port": -5}, "port must be from 1 to 65535"),
        ({"port": 99999}, "port must be from 1 to 65535"),
        ({"host": f"https://u:{SECRET}\u2100@host.example"}, "host is not a valid URL"),
        ({"schema": "astro_zero"}, "schema must be https .or http., not 'astro_zero'"),
        ({"host": "https://2001:db8::1"}, "an IPv6 address needs brackets, as in https://.2001:db8::1."),
        ({"login": "client\nsecond line"}, "login .the client id. contains a line break"),
        ({"password": f"client\n{SECRET}"}, "password .the client secret. contains a line break"),
        ({"password": "\n"}, "password .the client secret. is empty"),
        ({"extra": "{"}, "extra is not JSON"),
        ({"extra": "[1]"}, "extra must be a JSON object"),
    ],
)
def test_invalid_fields(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        settings_from(Connection(**fields))
    assert str(caught.value).startswith("Connection 'my_conn' cannot be used: ")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"veryfy": False}, "unknown extra 'veryfy'; did you mean 'verify'?"),
        ({"zzz": 1}, "unknown extra 'zzz'; known extras are access_token, "),
        ({"allow_http": "maybe"}, "extra 'allow_http' must be one of 'true', 'false', not 'maybe'"),
        ({"verify": 7}, "extra 'verify'"),
        ({"verify": "no"}, "'verify' must be true, false or the path of a file, not 'no'; write false"),
        ({"csrf": "Yes"}, "'csrf' must be one of 'true', 'false', not 'Yes'; write true"),
        ({"read_timeout": "5m"}, "not '5m'; write 300"),
        ({"timezone": "+15:00"}, "time zone such as Asia/Shanghai or .08:00, not '.15:00'"),
        ({"timezone": "+08:60"}, "time zone"),
        ({"instance_lookup": "byid"}, "not 'byid'; did you mean 'by_id'?"),
        ({"client_key": "/k.pem"}, "'client_key' is set without 'client_cert'"),
        ({"connect_timeout": 0}, "extra 'connect_timeout' must be a number of seconds"),
        ({"read_timeout": "-1"}, "extra 'read_timeout'"),
        ({"read_timeout": "soon"}, "extra 'read_timeout'"),
        ({"read_timeout": "99999999999w"}, "not '99999999999w'[.]$"),
        ({"read_timeout": "1" + "0" * 400 + "d"}, "extra 'read_timeout'"),
        ({"max_wait": True}, "extra 'max_wait'"),
        ({"max_wait": float("inf")}, "extra 'max_wait'"),
        ({"max_attempts": 0}, "extra 'max_attempts' must be a whole number, at least 1, not 0"),
        ({"max_attempts": 1.5}, "extra 'max_attempts'"),
        ({"max_attempts": "inf"}, "extra 'max_attempts'"),
        ({"max_response_bytes": "big"}, "extra 'max_response_bytes'"),
        ({"timezone": "Mars/Olympus"}, "time zone such as Asia/Shanghai or .08:00, not 'Mars/Olympus'"),
        ({"timezone": "../etc/passwd"}, "time zone"),
        ({"instance_lookup": "magic"}, "must be one of 'auto', 'list', 'by_id', not 'magic'"),
        ({"instance_url": "http://x/{instance_id}"}, "or an http:// one of this machine"),
        ({"instance_url": "http://{host}/{instance_id}"}, "or an http:// one of this machine"),
        ({"instance_url": "http://127.0.0.1.example/{instance_id}"}, "or an http:// one of this machine"),
        ({"instance_url": "https://x/{secret}"}, "no placeholders but"),
        ({"instance_url": "https://x/{instance_id.__class__}"}, "no placeholders but"),
        ({"instance_url": "https://x/{"}, "must be an https:// address"),
        (
            {"record": "transcripts"},
            "extra 'record' must be the absolute path of a folder, such as .*, not 'transcripts'",
        ),
        ({"record": True}, "extra 'record'"),
        ({"record": " "}, "extra 'record'"),
        ({"proxy": "proxy:secret-of-proxy"}, "extra 'proxy' must be a URL"),
        ({"proxy": 5}, "extra 'proxy' must be a URL"),
        ({"access_token": f"{TOKEN}\nX: y"}, "extra 'access_token' must be a token without blanks"),
        ({"access_token": "   "}, "extra 'access_token' must be a token without blanks"),
        ({"access_token": f"{TOKEN}\u20ac"}, "extra 'access_token' must be a token without blanks"),
        ({"proxy": "http://u:secret-of-proxy\u2100@proxy.example"}, "extra 'proxy' is not a valid URL"),
        ({"proxy": "http://proxy.example:secret-of-proxy"}, "extra 'proxy' is not a valid URL"),
        ({"read_timeout": 1e12}, "extra 'read_timeout' must be .* at most 1e.09"),
        ({"connect_timeout": 10**400}, "extra 'connect_timeout'"),
        ({"instance_url": "https://x/{instance_id:d}"}, "no placeholders but"),
        ({"instance_url": "https://x/{host!r}"}, "no placeholders but"),
        ({"access_token": 5}, "extra 'access_token'"),
        ({"instance_url": 5}, "extra 'instance_url' must be a text"),
        ({"instance_url": "javascript:alert(1)//{instance_id}"}, "must be an https:// address"),
        ({"instance_url": "//x/{instance_id}"}, "must be an https:// address"),
        ({"instance_url": "https://x/{}"}, "no placeholders but"),
        ({"instance_url": "https://x/{0}"}, "no placeholders but"),
        ({"instance_url": "https://x/{instance_id[0]}"}, "no placeholders but"),
        ({"instance_url": "https://u:secret-of-proxy@x/{"}, "not 'https://[*]{3}@x/{'"),
        ({"instance_url": "https://u:secret-of-proxy@x/\ud800"}, "lone surrogates, not 'https://[*]{3}@x"),
        ({"instance_url": "https:///{instance_id}"}, "must be an address with a host"),
        ({"instance_url": "https://x/ {instance_id}"}, "without a user, blanks and line breaks"),
        ({"instance_url": "https://x/\n{instance_id}"}, "without a user, blanks and line breaks"),
        ({"instance_url": "https://u:secret-of-proxy@x/{instance_id}"}, "without a user"),
        ({"instance_url": "http://u:secret-of-proxy@x/{instance_id}"}, "without a user"),
        ({"instance_url": "https://x//u:secret-of-proxy@y/{instance_id}"}, "an @ in its path as %40"),
    ],
)
def test_invalid_extras(extra: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        read(extra)
    text = str(caught.value)
    assert "'my_conn'" in text
    assert not [secret for secret in (SECRET, TOKEN, "secret-of-proxy") if secret in text]


def test_form_has_exactly_one_field_per_extra() -> None:
    (connection_type,) = get_provider_info()["connection-types"]
    assert set(connection_type["conn-fields"]) == set(EXTRAS)
