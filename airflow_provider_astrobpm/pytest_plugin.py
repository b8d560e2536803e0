"""The provider's pytest plugin: the fixture ``astro_zero_emulator`` for DAG tests.

pytest imports this module wherever the provider is installed, so it imports nothing until a test uses a fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
    from airflow_provider_astrobpm.testing.emulator_fixture import AstroZeroEmulator


LIKE = "astro_zero_like"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting ``astro_zero_like``."""
    parser.addini(
        LIKE,
        "a report of the doctor, below the root folder: astro_zero_emulator behaves like that environment",
        default="",
    )


@pytest.fixture(scope="session")
def astro_zero_emulator_server(pytestconfig: pytest.Config) -> Iterator[EmulatorServer]:
    """Run the server behind ``astro_zero_emulator``, from the first use to the end of the session."""
    from airflow_provider_astrobpm.emulator.doctor_report import ReportError, read_report  # noqa: PLC0415
    from airflow_provider_astrobpm.emulator.emulator_state import EmulatorSettings  # noqa: PLC0415
    from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer  # noqa: PLC0415

    settings = EmulatorSettings()
    if file := pytestconfig.getini(LIKE):
        try:
            settings = read_report(pytestconfig.rootpath / file).applied_to(settings)
        except ReportError as error:
            raise pytest.UsageError(f"{LIKE}: {error}") from None
    with EmulatorServer(settings) as server:
        yield server


@pytest.fixture
def astro_zero_emulator(
    astro_zero_emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[AstroZeroEmulator]:
    """Provide an empty local Astro Zero, with the connection ``astro_zero_default`` to it.

    The test fails if an action that it planned does not happen.
    """
    from airflow_provider_astrobpm.client import process_state  # noqa: PLC0415
    from airflow_provider_astrobpm.testing.emulator_fixture import AstroZeroEmulator  # noqa: PLC0415

    emulator = AstroZeroEmulator(astro_zero_emulator_server, monkeypatch.setenv)
    emulator.reset()
    emulator.connect()
    process_state.reset()
    yield emulator
    if not emulator.is_checked:  # a test that requested the fixture at run time, or a unittest test
        emulator.assert_all_happened()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test if an action that it planned did not happen, unless the test has already failed."""
    emulator: AstroZeroEmulator | None = getattr(item, "funcargs", {}).get("astro_zero_emulator")
    try:
        result = yield
        if emulator is not None:
            emulator.assert_all_happened()
    finally:
        if emulator is not None:
            emulator.is_checked = True
    return result
