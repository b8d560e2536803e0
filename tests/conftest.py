"""What all tests share: a scratch home for Airflow, and the emulator with a connection to it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything imports Airflow: each test process gets a home of its own and leaves nothing behind.
_HOME = tempfile.mkdtemp(prefix="astrobpm-tests-")
os.environ |= {
    "AIRFLOW_HOME": _HOME,
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent.parent / "example_dags"),
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
}

from airflow_provider_astrobpm.bpm.token import TOKENS  # noqa: E402
from airflow_provider_astrobpm.emulator.remote import EmulatorControl  # noqa: E402
from airflow_provider_astrobpm.emulator.running import EmulatorServer  # noqa: E402


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def emulator_server() -> Iterator[EmulatorServer]:
    with EmulatorServer() as server:
        yield server


@pytest.fixture
def emulator(emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> EmulatorControl:
    """The emulator as it began, with the connection ``astro_zero_default`` to it and nothing learnt about it yet."""
    control = emulator_server.control
    control.reset()
    TOKENS.clear()
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", emulator_server.connection_json())
    monkeypatch.setattr("airflow_provider_astrobpm.hooks.astro_zero._ENDPOINTS", {})
    return control


@pytest.fixture
def free_port() -> int:
    """A port at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """Airflow's database, in the scratch home of this test process."""
    subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True, timeout=180
    )
