"""Shared by all tests: a scratch home for Airflow, and the emulator with a connection to it."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import gc
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import hypothesis
import pytest

# Before anything imports Airflow: each test process gets its own home and removes it at the end.
_HOME = tempfile.mkdtemp(prefix="astrobpm-tests-")
os.environ |= {
    "AIRFLOW_HOME": _HOME,
    # Otherwise each process makes one, unless it finds airflow.cfg, and cannot decrypt what another has stored.
    "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(bytes(32)).decode(),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent.parent / "example_dags"),
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
}

# Airflow's modules emit warnings about each other at their first import. If that happened during a connection lookup,
# Airflow would swallow the error that pytest makes of a warning.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import airflow.models.dag  # noqa: F401
    from airflow.sdk.execution_time import context as execution_context

# Before Airflow 3.3, which brought it, tests play the task state store.
vars(execution_context).setdefault("NEVER_EXPIRE", timedelta.max)

from airflow_provider_astrobpm.client.settings import INSTANCE_LOOKUPS  # noqa: E402
from airflow_provider_astrobpm.client.sync_client import BpmClient  # noqa: E402
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl  # noqa: E402
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer  # noqa: E402
from airflow_provider_astrobpm.emulator.switches import Switches  # noqa: E402
from airflow_provider_astrobpm.testing.emulator_fixture import AstroZeroEmulator  # noqa: E402

# The duration of an example depends more on the machine than on the code.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")
# For each of thousands of mutants: see [tool.mutmut] in pyproject.toml.
hypothesis.settings.register_profile(
    "mutants",
    deadline=None,
    database=None,
    derandomize=True,
    max_examples=20,
    suppress_health_check=list(hypothesis.HealthCheck),
)

pytest_plugins = [
    "pytester",
    "tests.support.plans",
    "tests.support.run_time",
    "tests.support.warm_python",
]  # runs pytest itself, for the tests of the pytest plugin


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests, so that none of them runs alone at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish() -> None:
    """Take all that was imported and collected out of the garbage collector's sight: it stays until the end."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes ``-n auto`` starts: three for each core, because about half of the time a test waits."""
    return 3 * (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


NUMBERS: dict[str, list[float | None]] = {
    "row_cap": [None, 1, 37, 100],
    "start_lag": [0, 30],
    "action_lag": [0, 30],
    "utc_offset": [0, 8],
    "clock_skew": [0, -15, 15, -100],
}


def positions() -> list[tuple[str, Any]]:
    """Return every switch in every position. Numbers have examples; a new switch without examples fails here."""
    found: list[tuple[str, Any]] = []
    for name, kind in get_type_hints(Switches).items():
        if get_origin(kind) is Literal:
            found += [(name, position) for position in get_args(kind)]
        elif kind is bool:
            found += [(name, True), (name, False)]
        else:
            found += [(name, position) for position in NUMBERS[name]]
    return found


def cases() -> list[tuple[str, str, Any]]:
    """Return every position with every lookup method. Positions without reads by id are tested separately."""
    impossible = [("by_id", "get_by_id", "absent"), ("by_id", "get_by_id", "not_allowed")]
    every = [(lookup, *position) for lookup in INSTANCE_LOOKUPS for position in positions()]
    return [case for case in every if case not in impossible]


def pairs() -> list[tuple[str, str, Any]]:
    """Return every position once, with the lookup methods in turn.

    For tests of what lies above the client. The client's have every combination.
    """
    possible = set(cases())
    lookups = {
        position: [each for each in INSTANCE_LOOKUPS if (each, *position) in possible]
        for position in positions()
    }
    return [
        (methods[number % len(methods)], *position)
        for number, (position, methods) in enumerate(lookups.items())
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with the arguments lookup, switch and position for all of their combinations, or for ``pairs``."""
    if {"lookup", "switch", "position"} <= set(metafunc.fixturenames):
        in_turn = metafunc.definition.get_closest_marker("lookups_in_turn")
        metafunc.parametrize(("lookup", "switch", "position"), pairs() if in_turn else cases())


@pytest.fixture(scope="session")
def emulator_server(astro_zero_emulator_server: EmulatorServer) -> EmulatorServer:
    """The server behind ``emulator``: the one of the pytest plugin."""
    return astro_zero_emulator_server


@pytest.fixture
def emulator(astro_zero_emulator: AstroZeroEmulator) -> AstroZeroEmulator:
    """An emulator in its initial state, with the connection ``astro_zero_default`` to it."""
    return astro_zero_emulator


def keep_emulator_time(client: BpmClient, emulator: EmulatorControl) -> None:
    """Make a client advance the emulator's clock instead of sleeping, and use the same time itself."""
    slept = 0.0

    def sleep(seconds: float) -> None:
        nonlocal slept
        slept += seconds
        emulator.advance(seconds)

    client._sleep = sleep
    client.clock = lambda: time.time() + slept
    client.steady = lambda: time.monotonic() + slept


@pytest.fixture
def emulator_time() -> Callable[[BpmClient, EmulatorControl], None]:
    return keep_emulator_time


@pytest.fixture
def free_port() -> int:
    """An unused port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def airflow_database(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Create Airflow's database in the scratch home of this test process.

    The first process of a run that needs one makes it, and the others copy the file.
    """
    shared = tmp_path_factory.getbasetemp().parent / "airflow.db"
    own = Path(_HOME) / shared.name
    with (shared.parent / "airflow.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if "PYTEST_XDIST_WORKER" in os.environ and shared.exists():
            copy_database(shared, own)
            return
        subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True, timeout=180
        )
        copy_database(own, shared)


def copy_database(source: Path, target: Path) -> None:
    """Copy an SQLite database. A copy of its file lacks what only the log next to the file has, while a connection is open."""
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as written:
        read.backup(written)


@pytest.fixture(scope="session")
def fire() -> Callable[[Any], Any]:
    """Return a function that runs a trigger, recreated from its serialized form, and returns the payload of its event."""

    async def first_event(trigger: Any) -> Any:
        events = trigger.run()
        try:
            return (await asyncio.wait_for(events.__anext__(), 30)).payload
        finally:
            await events.aclose()

    def fire(trigger: Any) -> Any:
        path, arguments = trigger.serialize()
        assert path == f"{type(trigger).__module__}.{type(trigger).__name__}"
        return asyncio.run(first_event(type(trigger)(**arguments)))

    return fire
