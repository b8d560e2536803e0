"""The pytest plugin that comes with the provider: the fixture ``astro_zero_emulator``, for tests of DAGs.

pytest imports this module wherever the provider is installed, so it imports nothing that a test has not asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

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
) -> Iterator[AstroZeroEmulator]:
    """Provide a local Astro Zero that is empty, and to which the connection ``astro_zero_default`` leads.

    What a test orders of it and does not happen fails the test.
    """
    from airflow_provider_astrobpm.bpm.token import TOKENS  # noqa: PLC0415
    from airflow_provider_astrobpm.testing.emulator import AstroZeroEmulator  # noqa: PLC0415

    emulator = AstroZeroEmulator(astro_zero_emulator_server, monkeypatch.setenv)
    emulator.reset()
    emulator.connect()
    # What this process has learnt of the server in an earlier test.
    TOKENS.clear()
    monkeypatch.setattr("airflow_provider_astrobpm.bpm.search._ENDPOINTS", {})
    yield emulator
    if not emulator.is_checked:  # a test that asked for the fixture while it ran, or one of unittest
        emulator.assert_all_happened()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test over what it has ordered of its emulator and did not happen, unless it has failed anyway."""
    emulator: AstroZeroEmulator | None = getattr(item, "funcargs", {}).get("astro_zero_emulator")
    try:
        result = yield
        if emulator is not None:
            emulator.assert_all_happened()
    finally:
        if emulator is not None:
            emulator.is_checked = True
    return result
