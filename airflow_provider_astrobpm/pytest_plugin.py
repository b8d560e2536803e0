"""The pytest plugin that comes with the provider: the fixture ``astro_zero_emulator``, for tests of DAGs.

pytest imports this module wherever the provider is installed, so it imports nothing that a test has not asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_astrobpm.emulator.running import EmulatorServer
    from airflow_provider_astrobpm.testing.emulator import AstroZeroEmulator


@pytest.fixture(scope="session")
def astro_zero_emulator_server() -> Iterator[EmulatorServer]:
    """Run the one server behind ``astro_zero_emulator``, from its first use to the end of the session."""
    from airflow_provider_astrobpm.emulator.running import EmulatorServer  # noqa: PLC0415

    with EmulatorServer() as server:
        yield server


@pytest.fixture
def astro_zero_emulator(
    astro_zero_emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> AstroZeroEmulator:
    """Return a local Astro Zero that is empty, and to which the connection ``astro_zero_default`` leads."""
    from airflow_provider_astrobpm.bpm.token import TOKENS  # noqa: PLC0415
    from airflow_provider_astrobpm.testing.emulator import AstroZeroEmulator  # noqa: PLC0415

    emulator = AstroZeroEmulator(astro_zero_emulator_server, monkeypatch.setenv)
    emulator.reset()
    emulator.connect()
    # What this process has learnt of the server in an earlier test.
    TOKENS.clear()
    monkeypatch.setattr("airflow_provider_astrobpm.bpm.search._ENDPOINTS", {})
    return emulator
