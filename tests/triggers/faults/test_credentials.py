"""Tokens and credentials that end while a trigger waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import get_args, get_type_hints

import pytest
import requests

from airflow_provider_astrobpm.client import errors, operations
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.emulator.switches import Switches
from tests.triggers.faults.helpers import (
    FAIL,
    FOR_EVER,
    SUCCEED,
    ApprovalWait,
    Connect,
    RunScenario,
    notes,
    polls,
    status,
    until,
    waiting,
)

WAYS_TO_END_A_TOKEN: dict[str, Callable[[EmulatorControl], object]] = {
    "expired": lambda emulator: emulator.advance(601),
    "revoked": lambda emulator: emulator.revoke_tokens(),
}


async def renew_ended_token(how: str, emulator: EmulatorControl) -> None:
    instance_id = waiting(emulator)
    approval = ApprovalWait(instance_id)
    await until(lambda: polls(emulator))
    WAYS_TO_END_A_TOKEN[how](emulator)
    await until(lambda: polls(emulator) >= 3)  # one of them was refused, and the next one repeats it
    assert emulator.counts()["token"] == 2
    emulator.act(instance_id, "approve")
    await approval.succeeds()


@pytest.mark.parametrize("how", WAYS_TO_END_A_TOKEN)
def test_renews_an_ended_token_silently_in_real_time(
    how: str, real_time: RunScenario, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    real_time(renew_ended_token(how, emulator))
    assert emulator.counts()["token"] == 2
    assert notes(capsys) == []


@pytest.mark.parametrize("how", WAYS_TO_END_A_TOKEN)
@pytest.mark.parametrize("report", get_args(get_type_hints(Switches)["bad_token"]))
def test_renews_an_ended_token_silently(
    report: str,
    how: str,
    fast_time: RunScenario,
    emulator: EmulatorControl,
    capsys: pytest.CaptureFixture[str],
) -> None:
    emulator.switch(bad_token=report)
    fast_time(renew_ended_token(how, emulator))
    assert emulator.counts()["token"] == 2
    assert notes(capsys) == []


def test_a_token_is_renewed_before_it_ends(fast_time: RunScenario, emulator: EmulatorControl) -> None:
    async def scenario() -> None:
        instance_id = waiting(emulator)
        approval = ApprovalWait(instance_id, poll_interval=20)
        await asyncio.sleep(1500)  # a token lives for 600
        emulator.act(instance_id, "approve")
        await approval.succeeds()

    fast_time(scenario())
    assert emulator.counts()["token"] == 3
    assert {request["status"] for request in emulator.requests()} == {200}


@pytest.mark.parametrize("shape", ["text", "absent", "zero", "negative", "words"])
def test_renews_a_token_with_an_odd_or_missing_expiry(
    shape: str, fast_time: RunScenario, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.switch(expires_in=shape)

    async def scenario() -> None:
        instance_id = waiting(emulator)
        approval = ApprovalWait(instance_id, poll_interval=20)
        await asyncio.sleep(1500)  # a token lives for 600
        emulator.act(instance_id, "approve")
        await approval.succeeds()

    fast_time(scenario())
    assert notes(capsys) == []
    assert emulator.counts()["token"] == 3
    # An unannounced end costs one refusal; an end announced as text does not.
    refused = sum(request["status"] == 401 for request in emulator.requests())
    assert refused == (0 if shape == "text" else 2)


@pytest.fixture
def take_token(emulator: EmulatorControl, emulator_server: EmulatorServer) -> Callable[[], str]:
    """Request a token, like another process with the same client id."""
    fields = {
        "grant_type": "client_credentials",
        "client_id": emulator_server.settings.client_id,
        "client_secret": emulator_server.settings.client_secret,
    }

    def take() -> str:
        answer = requests.post(emulator_server.url + operations.TOKEN_PATH, data=fields, timeout=10)
        return str(answer.json()["access_token"])

    return take


@pytest.mark.parametrize("report", ["401", "403_html", "500_602"])
def test_fifty_waits_survive_an_endpoint_with_one_valid_token(
    report: str,
    fast_time: RunScenario,
    emulator: EmulatorControl,
    take_token: Callable[[], str],
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A new task starts every second and requests its own token: always between two polls, which begin at full seconds."""
    emulator.switch(concurrent_tokens=False, bad_token=report)
    connect()  # with the default number of attempts

    async def tasks() -> None:
        await asyncio.sleep(0.5)
        while True:
            await asyncio.to_thread(take_token)
            await asyncio.sleep(1)

    async def scenario() -> None:
        ids = [waiting(emulator) for _ in range(50)]
        approvals = [ApprovalWait(each, poll_interval=5) for each in ids]
        others = asyncio.ensure_future(tasks())
        await asyncio.sleep(120)
        for each in ids:
            emulator.act(each, "approve")
        await asyncio.gather(*[approval.succeeds() for approval in approvals])
        others.cancel()

    fast_time(scenario())
    assert notes(capsys) == []  # not one poll failed


def test_survives_refused_fresh_tokens_for_some_minutes(
    fast_time: RunScenario, emulator: EmulatorControl, connect: Connect, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each fresh token is refused for 300 s. The wait survives that, and backs off."""
    connect(instance_lookup="list")

    async def scenario() -> None:
        instance_id = waiting(emulator)
        approval = ApprovalWait(instance_id, poll_interval=10)
        await until(lambda: polls(emulator))
        emulator.fault("query", **status(401), times=FOR_EVER)
        await asyncio.sleep(300)
        assert not approval.has_fired
        emulator.clear_faults()
        emulator.act(instance_id, "approve")
        await approval.succeeds()

    fast_time(scenario())
    assert notes(capsys) == [FAIL, SUCCEED]
    assert emulator.counts()["token"] <= 1 + 8 * 5  # polls of five attempts, with growing pauses


@pytest.fixture
def change_secret(
    emulator_server: EmulatorServer, emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Change the secret that the server accepts, and revoke all tokens."""

    def change(secret: str) -> None:
        inside = emulator_server._emulator
        monkeypatch.setattr(inside, "settings", replace(inside.settings, client_secret=secret))
        emulator.revoke_tokens()

    return change


def test_refused_credentials_fail_the_wait_at_once(
    real_time: RunScenario,
    emulator: EmulatorControl,
    change_secret: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scenario() -> None:
        approvals = [ApprovalWait(waiting(emulator)) for _ in range(2)]
        await until(lambda: polls(emulator))
        change_secret("another-secret")
        for approval in approvals:
            await approval.fails(errors.AuthenticationError, "the client id or the secret was refused")

    real_time(scenario())
    counts = emulator.counts()
    assert counts["token"] == 1 + 2  # it may be sent in two encodings
    assert counts["query"] <= 3
    assert notes(capsys) == []


def test_reads_a_changed_connection_again(
    real_time: RunScenario,
    emulator: EmulatorControl,
    change_secret: Callable[[str], None],
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scenario() -> None:
        ids = [waiting(emulator) for _ in range(3)]
        approvals = [ApprovalWait(each) for each in ids]
        await until(lambda: polls(emulator))
        change_secret("another-secret")
        connect(password="another-secret", max_attempts=1, instance_lookup="list")
        await until(lambda: emulator.counts()["token"] >= 4)
        for each in ids:
            emulator.act(each, "approve")
        await asyncio.gather(*[approval.succeeds() for approval in approvals])

    real_time(scenario())
    assert emulator.counts()["token"] == 1 + 2 + 1
    assert notes(capsys) == ["The connection has changed"] * 3


def test_fails_if_the_changed_connection_is_refused_too(
    fast_time: RunScenario,
    emulator: EmulatorControl,
    change_secret: Callable[[str], None],
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scenario() -> None:
        approval = ApprovalWait(waiting(emulator))
        await until(lambda: polls(emulator))
        change_secret("another-secret")
        connect(password="a-third-secret", max_attempts=1, instance_lookup="list")
        await approval.fails(errors.AuthenticationError, "the client id or the secret was refused")

    fast_time(scenario())
    assert notes(capsys) == ["The connection has changed"]


def test_reads_a_changed_connection_again_after_an_unclear_refusal(
    fast_time: RunScenario,
    emulator: EmulatorControl,
    change_secret: Callable[[str], None],
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The refusal of the old secret may have other causes, so polls have to fail for a while first."""

    async def scenario() -> None:
        instance_id = waiting(emulator)
        approval = ApprovalWait(instance_id, max_poll_failure_time=100)
        await until(lambda: polls(emulator))
        emulator.fault("token", **status(403), times=FOR_EVER)
        change_secret("another-secret")
        connect(password="another-secret", max_attempts=1, instance_lookup="list")
        before = approval.trigger._poller
        await until(lambda: approval.trigger._poller is not before, 200)
        emulator.clear_faults()
        emulator.act(instance_id, "approve")
        await approval.succeeds()

    fast_time(scenario())
    assert notes(capsys)[:2] == [FAIL, "The connection has changed"]


@pytest.mark.parametrize("good_at_first", [False, True])
def test_a_refused_static_token_fails_the_wait(
    good_at_first: bool,
    real_time: RunScenario,
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
        token = requests.post(emulator_server.url + operations.TOKEN_PATH, data=fields, timeout=10).json()[
            "access_token"
        ]
    connect(access_token=token, max_attempts=1, instance_lookup="list")

    async def scenario() -> None:
        approval = ApprovalWait(waiting(emulator))
        await until(lambda: polls(emulator))
        emulator.revoke_tokens()
        await approval.fails(errors.AuthenticationError, "the access token was refused", "'access_token'")

    real_time(scenario())
    assert emulator.counts()["token"] == int(good_at_first)  # the request above
