"""An emulator in a thread for the tests of a folder, reset before each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_astrobpm.emulator import EmulatorControl, EmulatorServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def server() -> Iterator[EmulatorServer]:
    with EmulatorServer() as running:
        yield running


@pytest.fixture
def control(server: EmulatorServer) -> EmulatorControl:
    server.control.reset()
    return server.control
