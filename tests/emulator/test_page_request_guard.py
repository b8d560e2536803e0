"""The requests that the page and the control API accept."""

from __future__ import annotations

import pytest

from airflow_provider_astrobpm.emulator.page.request_guard import (
    refused_command,
    refused_host,
    refused_sender,
)

HERE = "127.0.0.1:8765"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        HERE,
        "10.1.2.3:80",
        "[::1]:8765",
        "[fe80::1]",
        "localhost",
        "LOCALHOST:8765",
        "localhost.:8765",
        "emulator.localhost:8765",
        "mine.example:8765",
        "Mine.Example.",
    ],
)
def test_addresses_and_local_names_are_accepted(host: str) -> None:
    assert refused_host(host, {"Mine.example"}) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8765",
        "evil.example",
        "localhost.evil.example",
        "notlocalhost",
        "127.0.0.1.evil.example:8765",
        "127.0.0.1@evil.example",
        "2130706433",
        "[evil]",
        "[::1",
        "",
    ],
)
def test_a_foreign_host_name_is_refused(host: str) -> None:
    assert "--allowed-host" in str(refused_host(host, {"mine.example"}))


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": f"http://{HERE}"},
        {"Origin": f"https://{HERE}"},
        {"Origin": f"http://{HERE}", "Sec-Fetch-Site": "same-origin"},
    ],
)
def test_a_form_from_the_page_is_accepted(headers: dict[str, str]) -> None:
    assert refused_sender({"Host": HERE, **headers}) is None


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "without the header Origin"),
        ({"Origin": "null"}, "from 'null'"),
        ({"Origin": "http://evil.example"}, "from 'http://evil.example'"),
        ({"Origin": "http://127.0.0.1:9999"}, "from 'http://127.0.0.1:9999'"),
        ({"Origin": f"http://{HERE}.evil.example"}, "from 'http://127.0.0.1:8765.evil"),
        ({"Origin": f"http://{HERE}", "Sec-Fetch-Site": "same-site"}, "nothing was done"),
        ({"Origin": f"http://{HERE}", "Sec-Fetch-Site": "cross-site"}, "nothing was done"),
        ({"Origin": "http://", "Host": ""}, "nothing was done"),
    ],
)
def test_a_form_from_elsewhere_is_refused(headers: dict[str, str], words: str) -> None:
    refused = refused_sender({"Host": HERE, **headers})
    assert refused is not None
    assert words in refused


@pytest.mark.parametrize(
    ("method", "headers", "accepted"),
    [
        ("POST", {"Host": HERE}, True),
        ("POST", {"Host": "emulator:8765"}, False),
        ("GET", {"Host": "evil.example"}, False),
        ("GET", {}, False),
        ("GET", {"Host": HERE, "Sec-Fetch-Site": "none"}, True),
        ("GET", {"Host": "evil.example", "Sec-Fetch-Site": "same-origin"}, False),
        ("POST", {"Host": HERE, "Origin": f"http://{HERE}", "Sec-Fetch-Site": "same-origin"}, True),
        ("POST", {"Host": HERE, "Origin": "http://evil.example"}, False),
        ("POST", {"Host": HERE, "Sec-Fetch-Site": "cross-site"}, False),
        ("POST", {"Host": "evil.example", "Origin": "http://evil.example"}, False),
    ],
)
def test_control_commands_are_accepted_from_programs_and_the_page(
    method: str, headers: dict[str, str], accepted: bool
) -> None:
    """Programs must use a name of this machine; foreign web pages are refused."""
    assert (refused_command(method, headers, set()) is None) is accepted
