"""The method for CSRF tokens, with an emulator that offers only GET."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
from airflow_provider_astrobpm.client.errors import RefusedError
from airflow_provider_astrobpm.client.protocol import NeedToken
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings, StaticToken
from airflow_provider_astrobpm.client.sync_client import BpmClient
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer

BPM = "SupplierOnboarding"

Start = Callable[[Settings], None]


@pytest.fixture
def settings(emulator_server: EmulatorServer, emulator: EmulatorControl) -> Settings:
    del emulator  # the fixture resets it
    known = emulator_server.settings
    credentials = ClientCredentials(known.client_id, known.client_secret)
    return Settings("my_conn", emulator_server.url, credentials, csrf=True)


def start(settings: Settings) -> None:
    with BpmClient(settings) as client:
        client.call(operations.start(BPM))


def start_async(settings: Settings) -> None:
    async def main() -> None:
        async with AsyncBpmClient(settings) as client:
            await client.call(operations.start(BPM))

    asyncio.run(main())


@pytest.mark.parametrize(("first", "then"), [(start, start_async), (start_async, start)])
def test_all_clients_of_the_process_remember_the_working_method(
    settings: Settings, emulator: EmulatorControl, first: Start, then: Start
) -> None:
    emulator.switch(csrf_required=True, csrf_method="get")

    def methods(start: Start, settings: Settings) -> list[str]:
        emulator.reset_counts()
        start(settings)
        return [each["method"] for each in emulator.requests() if each["kind"] == "csrf"]

    assert methods(first, settings) == ["POST", "GET"]
    assert methods(then, settings) == ["GET"]
    with BpmClient(settings) as client:
        token = client._token(NeedToken()) or ""
    assert methods(first, replace(settings, credentials=StaticToken(token))) == ["GET"]
    emulator.switch(csrf_method="post")
    assert methods(then, settings) == ["GET", "POST"]
    assert methods(first, settings) == ["POST"]


@pytest.mark.parametrize("start", [start, start_async])
def test_error_if_neither_method_returns_a_token(
    settings: Settings, emulator: EmulatorControl, start: Start
) -> None:
    emulator.switch(csrf_required=True)
    emulator.fault("csrf", "status", status=405, times=2)
    with pytest.raises(RefusedError, match=r"Could not get a CSRF token .*HTTP 405"):
        start(settings)
    assert (emulator.counts()["csrf"], emulator.counts()["start"]) == (2, 0)
