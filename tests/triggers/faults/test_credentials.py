"""Tokens and credentials that end while a trigger waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import get_args, get_type_hints

import pytest
import requests

from airflow_provider_astrobpm.bpm import api, errors
from airflow_provider_astrobpm.emulator.remote import EmulatorControl
from airflow_provider_astrobpm.emulator.running import EmulatorServer
from airflow_provider_astrobpm.emulator.switches import Switches
from tests.triggers.faults.helpers import (
    FAIL,
    FOR_EVER,
    SUCCEED,
    Connect,
    Gate,
    Play,
    looks,
    notes,
    status,
    until,
    waiting,
)

END_OF_TOKENS: dict[str, Callable[[EmulatorControl], object]] = {
    "expired": lambda emulator: emulator.advance(601),
    "revoked": lambda emulator: emulator.revoke_tokens(),
}


async def a_token_ends(how: str, emulator: EmulatorControl) -> None:
    instance_id = waiting(emulator)
    gate = Gate(instance_id)
    await until(lambda: looks(emulator))
    END_OF_TOKENS[how](emulator)
    await until(lambda: looks(emulator) >= 3)  # one of them was refused, the next one is its repetition
    assert emulator.counts()["token"] == 2
    emulator.act(instance_id, "approve")
    await gate.opens()


@pytest.mark.parametrize("how", END_OF_TOKENS)
def test_a_token_that_ends_is_renewed_without_a_word(
    how: str, real_time: Play, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    real_time(a_token_ends(how, emulator))
    assert emulator.counts()["token"] == 2
    assert notes(capsys) == []


@pytest.mark.parametrize("how", END_OF_TOKENS)
@pytest.mark.parametrize("report", get_args(get_type_hints(Switches)["bad_token"]))
def test_a_token_that_ends_in_whatever_way_that_is_reported(
    report: str,
    how: str,
    fast_time: Play,
    emulator: EmulatorControl,
    capsys: pytest.CaptureFixture[str],
) -> None:
    emulator.switch(bad_token=report)
    fast_time(a_token_ends(how, emulator))
    assert emulator.counts()["token"] == 2
    assert notes(capsys) == []


def test_a_token_is_renewed_before_it_ends(fast_time: Play, emulator: EmulatorControl) -> None:
    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=20)
        await asyncio.sleep(1500)  # a token lives for 600
        emulator.act(instance_id, "approve")
        await gate.opens()

    fast_time(scene())
    assert emulator.counts()["token"] == 3
    assert {request["status"] for request in emulator.requests()} == {200}


@pytest.mark.parametrize("shape", ["text", "absent", "zero", "negative", "words"])
def test_a_token_whose_end_is_told_oddly_or_not_at_all(
    shape: str, fast_time: Play, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.switch(expires_in=shape)

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=20)
        await asyncio.sleep(1500)  # a token lives for 600
        emulator.act(instance_id, "approve")
        await gate.opens()

    fast_time(scene())
    assert notes(capsys) == []
    assert emulator.counts()["token"] == 3
    # What ends unseen is refused once; what says its end, as a text, is renewed before.
    refused = sum(request["status"] == 401 for request in emulator.requests())
    assert refused == (0 if shape == "text" else 2)


@pytest.fixture
def take_token(emulator: EmulatorControl, emulator_server: EmulatorServer) -> Callable[[], str]:
    """Request a token as another process with the same client does."""
    fields = {
        "grant_type": "client_credentials",
        "client_id": emulator_server.settings.client_id,
        "client_secret": emulator_server.settings.client_secret,
    }

    def take() -> str:
        answer = requests.post(emulator_server.url + api.TOKEN_PATH, data=fields, timeout=10)
        return str(answer.json()["access_token"])

    return take


@pytest.mark.parametrize("report", ["401", "403_html", "500_602"])
def test_fifty_waits_where_each_new_token_ends_the_older_one(
    report: str,
    fast_time: Play,
    emulator: EmulatorControl,
    take_token: Callable[[], str],
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A task that begins every second requests a token of its own."""
    emulator.switch(concurrent_tokens=False, bad_token=report)
    connect()  # with as many attempts as usual

    async def tasks() -> None:
        while True:
            await asyncio.to_thread(take_token)
            await asyncio.sleep(1)

    async def scene() -> None:
        ids = [waiting(emulator) for _ in range(50)]
        gates = [Gate(each, poll_interval=5) for each in ids]
        others = asyncio.ensure_future(tasks())
        await asyncio.sleep(120)
        for each in ids:
            emulator.act(each, "approve")
        await asyncio.gather(*[gate.opens() for gate in gates])
        others.cancel()

    fast_time(scene())
    assert notes(capsys) == []  # not one poll failed


def test_a_race_for_tokens_that_is_lost_again_and_again(
    fast_time: Play, emulator: EmulatorControl, connect: Connect, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each fresh token is refused for 300 s: the wait outlives it, and does not ask all the time."""
    connect(instance_lookup="list")

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=10)
        await until(lambda: looks(emulator))
        emulator.fault("query", **status(401), times=FOR_EVER)
        await asyncio.sleep(300)
        assert not gate.has_fired
        emulator.clear_faults()
        emulator.act(instance_id, "approve")
        await gate.opens()

    fast_time(scene())
    assert notes(capsys) == [FAIL, SUCCEED]
    assert emulator.counts()["token"] <= 1 + 8 * 5  # polls of five attempts, further and further apart


@pytest.fixture
def change_secret(
    emulator_server: EmulatorServer, emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Let the server know another secret, and none of the tokens that it gave for the old one."""

    def change(secret: str) -> None:
        inside = emulator_server._emulator
        monkeypatch.setattr(inside, "settings", replace(inside.settings, client_secret=secret))
        emulator.revoke_tokens()

    return change


def test_credentials_that_are_refused_fail_the_wait_at_once(
    real_time: Play,
    emulator: EmulatorControl,
    change_secret: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scene() -> None:
        gates = [Gate(waiting(emulator)) for _ in range(2)]
        await until(lambda: looks(emulator))
        change_secret("another-secret")
        for gate in gates:
            await gate.fails(errors.AuthenticationError, "the client id or the secret was refused")

    real_time(scene())
    counts = emulator.counts()
    assert counts["token"] == 1 + 2  # it may be sent in two encodings
    assert counts["query"] <= 3
    assert notes(capsys) == []


def test_a_changed_connection_is_read_anew(
    real_time: Play,
    emulator: EmulatorControl,
    change_secret: Callable[[str], None],
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scene() -> None:
        ids = [waiting(emulator) for _ in range(3)]
        gates = [Gate(each) for each in ids]
        await until(lambda: looks(emulator))
        change_secret("another-secret")
        connect(password="another-secret", max_attempts=1, instance_lookup="list")
        await until(lambda: emulator.counts()["token"] >= 4)
        for each in ids:
            emulator.act(each, "approve")
        await asyncio.gather(*[gate.opens() for gate in gates])

    real_time(scene())
    assert emulator.counts()["token"] == 1 + 2 + 1
    assert notes(capsys) == ["The connection has changed"] * 3


def test_a_connection_that_was_changed_for_the_worse(
    fast_time: Play,
    emulator: EmulatorControl,
    change_secret: Callable[[str], None],
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scene() -> None:
        gate = Gate(waiting(emulator))
        await until(lambda: looks(emulator))
        change_secret("another-secret")
        connect(password="a-third-secret", max_attempts=1, instance_lookup="list")
        await gate.fails(errors.AuthenticationError, "the client id or the secret was refused")

    fast_time(scene())
    assert notes(capsys) == ["The connection has changed"]


def test_a_changed_connection_is_read_anew_whatever_the_token_endpoint_says(
    fast_time: Play,
    emulator: EmulatorControl,
    change_secret: Callable[[str], None],
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The old secret is refused in a way that may mean anything, so the polls have to fail for a while first."""

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, max_poll_failure_time=100)
        await until(lambda: looks(emulator))
        emulator.fault("token", **status(403), times=FOR_EVER)
        change_secret("another-secret")
        connect(password="another-secret", max_attempts=1, instance_lookup="list")
        before = gate.trigger._poller
        await until(lambda: gate.trigger._poller is not before, 200)
        emulator.clear_faults()
        emulator.act(instance_id, "approve")
        await gate.opens()

    fast_time(scene())
    assert notes(capsys)[:2] == [FAIL, "The connection has changed"]


@pytest.mark.parametrize("good_at_first", [False, True])
def test_a_ready_token_that_is_refused(
    good_at_first: bool,
    real_time: Play,
    emulator: EmulatorControl,
    emulator_server: EmulatorServer,
    connect: Connect,
) -> None:
    token = "never-valid"
    if good_at_first:
        fields = {
            "grant_type": "client_credentials",
            "client_id": emulator_server.settings.client_id,
            "client_secret": emulator_server.settings.client_secret,
        }
        token = requests.post(emulator_server.url + api.TOKEN_PATH, data=fields, timeout=10).json()[
            "access_token"
        ]
    connect(access_token=token, max_attempts=1, instance_lookup="list")

    async def scene() -> None:
        gate = Gate(waiting(emulator))
        await until(lambda: looks(emulator))
        emulator.revoke_tokens()
        await gate.fails(errors.AuthenticationError, "the access token was refused", "'access_token'")

    real_time(scene())
    assert emulator.counts()["token"] == int(good_at_first)  # the one above
