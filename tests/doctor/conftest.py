"""Fixtures to run the doctor against the emulator, with simulated waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_astrobpm.client.operations import start
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings
from airflow_provider_astrobpm.client.sync_client import BpmClient
from airflow_provider_astrobpm.doctor.probe_sender import ProbeSender
from airflow_provider_astrobpm.doctor.report import Report
from airflow_provider_astrobpm.doctor.run import run_doctor
from airflow_provider_astrobpm.doctor.start_markers import make_key
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer

PROCESS = "SupplierOnboarding"
KEY = make_key("of-the-tests")
REFUSED_KEY = make_key("refused-test")
WRITES = ("start", "action", "delete", "variables", "csrf")

Examine = Callable[..., Report]


@pytest.fixture
def settings(emulator: EmulatorControl, emulator_server: EmulatorServer) -> Settings:
    credentials = emulator_server.settings
    return Settings(
        connection="my_conn",
        base_url=emulator_server.url,
        credentials=ClientCredentials(credentials.client_id, credentials.client_secret),
    )


@pytest.fixture
def make_sender(emulator: EmulatorControl, settings: Settings) -> Iterator[Callable[..., ProbeSender]]:
    """Make a sender that advances the emulator's clock instead of waiting."""
    senders: list[ProbeSender] = []

    def make(kind: type[ProbeSender] = ProbeSender, **changes: Any) -> ProbeSender:
        slept = 0.0

        def sleep(seconds: float) -> None:
            nonlocal slept
            slept += seconds
            emulator.advance(seconds)

        sender = kind(replace(settings, **changes), sleep=sleep, clock=lambda: time.time() + slept)
        senders.append(sender)
        return sender

    yield make
    for sender in senders:
        sender.close()


@pytest.fixture
def run(make_sender: Callable[..., ProbeSender]) -> Examine:
    """Run the doctor read-only, or with instances of a process."""

    def run_it(process: str | None = None, **changes: Any) -> Report:
        return run_doctor(make_sender(**changes), process=process, key=KEY, refused_key=REFUSED_KEY)

    return run_it


@pytest.fixture
def populate(emulator: EmulatorControl, settings: Settings) -> Callable[..., None]:
    """Create five open instances of another user, one of the machine user, and one that has ended."""

    def fill(more: int = 0) -> None:
        for number in range(5 + more):
            emulator.start(PROCESS, business_key=f"supplier-{number}")
            emulator.advance(1)
        with BpmClient(settings) as client:
            client.call(start(PROCESS, business_key="supplier-of-the-machine"))
        emulator.start("Instant")
        # Longer than every lag, but close enough to this machine's clock to derive the zone of the timestamps.
        emulator.advance(max(60, 120 - more))
        emulator.reset_counts()

    return fill


@pytest.fixture
def own_instances(emulator: EmulatorControl) -> Callable[[], list[dict[str, Any]]]:
    """Return the instances that the doctor started."""
    return lambda: [each for each in emulator.instances() if each["business_key"] in (KEY, REFUSED_KEY)]
