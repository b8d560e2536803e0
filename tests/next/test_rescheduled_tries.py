"""Rescheduled tries of real tasks in this process: the number of the try, and what the server receives."""

from __future__ import annotations

import runpy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.testing.emulator_fixture import AstroZeroEmulator

pytestmark = [
    pytest.mark.next,
    pytest.mark.usefixtures("airflow_database"),
    pytest.mark.filterwarnings("ignore"),  # Airflow's own warnings
]

DAGS = Path(__file__).parent / "dags"
LAUNCHES = {"outage": 1, "outage_of_batch": 2}


@contextmanager
def approving(emulator: EmulatorControl) -> Iterator[None]:
    """Approve every instance that waits for people."""
    over = threading.Event()

    def approve() -> None:
        while not over.wait(0.1):
            for instance in emulator.instances(state="Waiting for user interaction"):
                if instance["outcomes"]:
                    emulator.act(instance["id"], "approve")

    person = threading.Thread(target=approve)
    person.start()
    try:
        yield
    finally:
        over.set()
        person.join()


def tries_of(dag_id: str, before_run: Callable[[int], None]) -> tuple[str, list[int]]:
    """Run the task of a DAG. Return how its run ended, and the number of the try of each run of the task.

    :param before_run: is called before each run of the task, with the number of runs so far.
    """
    tries: list[int] = []

    def note(context: Any) -> None:
        tries.append(context["ti"].try_number)
        before_run(len(tries))

    dag = runpy.run_path(str(DAGS / "rescheduled.py"))[dag_id]
    task = dag.get_task("approve")
    task.deferrable, task._pre_execute_hook = False, note
    return str(dag.test().state), tries


@pytest.fixture
def server(emulator: AstroZeroEmulator) -> EmulatorControl:
    """The emulator, for a connection that neither resends nor waits long."""
    emulator.connect("astro_zero_outage", max_attempts=1, start_grace=1)
    return emulator


@pytest.mark.parametrize("dag_id", LAUNCHES)
def test_an_outage_uses_up_no_retry(dag_id: str, server: EmulatorControl) -> None:
    server.outage()

    def end_outage(runs: int) -> None:
        if runs == 3:
            server.outage(on=False)

    with approving(server):
        assert tries_of(dag_id, end_outage) == ("success", [1, 1, 1])
    assert len(server.instances()) == LAUNCHES[dag_id]


@pytest.mark.parametrize("is_started", [True, False], ids=["started", "not started"])
@pytest.mark.parametrize("dag_id", LAUNCHES)
def test_a_start_in_doubt_has_one_instance(dag_id: str, is_started: bool, server: EmulatorControl) -> None:
    """The answers to the starts are lost, and so are the answers to the searches of the first run."""
    launches = LAUNCHES[dag_id]
    server.fault("start", "drop_after" if is_started else "drop_before", times=launches)
    server.fault("query", "status", status=503, times=1000)

    def end_faults(runs: int) -> None:
        if runs == 2:
            server.clear_faults()

    with approving(server):
        assert tries_of(dag_id, end_faults) == ("success", [1, 1])
    assert len(server.instances()) == launches
    assert server.counts()["start"] == (launches if is_started else 2 * launches)


def test_an_outage_past_its_limit_uses_up_retries(server: EmulatorControl) -> None:
    server.outage()
    assert tries_of("outage_too_long", lambda _: None) == ("failed", [1, 1, 2, 2])
