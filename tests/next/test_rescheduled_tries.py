"""Rescheduled tries of real tasks in this process: the number of the try, and what the server receives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroStartBpmBatchOperator,
    AstroZeroStartBpmInstanceOperator,
)
from airflow_provider_astrobpm.policies.bpm import astro_zero_retry_policy
from airflow_provider_astrobpm.testing.emulator_fixture import AstroZeroEmulator

pytestmark = [
    pytest.mark.next,
    pytest.mark.usefixtures("airflow_database"),
    pytest.mark.filterwarnings("ignore"),  # Airflow's own warnings
]

BPM = "PublishApproval"
LAUNCHES = {"one": 1, "batch": 2}


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


def tries_of(kind: str, before_run: Callable[[int], None], **policy: Any) -> tuple[str, list[int]]:
    """Run a task whose pauses are short. Return how its run ended, and the number of the try of each run of the task.

    :param before_run: is called before each run of the task, with the number of runs so far.
    :param policy: more arguments of the retry policy.
    """
    tries: list[int] = []

    def note(context: Any) -> None:
        tries.append(context["ti"].try_number)
        before_run(len(tries))

    common: dict[str, Any] = {
        "task_id": "approve",
        "bp_statuses": ["Approved"],
        "poll_interval": 1,
        "deferrable": False,
        "max_poll_failure_time": 1,
        "retries": 1,
        "retry_delay": timedelta(0),
        "retry_policy": astro_zero_retry_policy(max_delay=0.1, **policy),
        "pre_execute": note,
    }
    with DAG(f"rescheduled_{kind}", schedule=None) as dag:
        if kind == "one":
            AstroZeroStartBpmInstanceOperator(bpm_name=BPM, **common)
        else:
            AstroZeroStartBpmBatchOperator(launches=[{"bpm_name": BPM}] * 2, **common)
    return str(dag.test().state), tries


@pytest.fixture
def server(emulator: AstroZeroEmulator) -> EmulatorControl:
    """The emulator, for a connection that neither resends nor waits long."""
    emulator.connect(max_attempts=1, start_grace=1)
    return emulator


@pytest.mark.parametrize("kind", LAUNCHES)
def test_an_outage_uses_up_no_retry(kind: str, server: EmulatorControl) -> None:
    server.outage()

    def end_outage(runs: int) -> None:
        if runs == 3:
            server.outage(on=False)

    with approving(server):
        assert tries_of(kind, end_outage) == ("success", [1, 1, 1])
    assert len(server.instances()) == LAUNCHES[kind]


@pytest.mark.parametrize("is_started", [True, False], ids=["started", "not started"])
@pytest.mark.parametrize("kind", LAUNCHES)
def test_a_start_in_doubt_has_one_instance(kind: str, is_started: bool, server: EmulatorControl) -> None:
    """The answers to the starts are lost, and so are the answers to the searches of the first run."""
    launches = LAUNCHES[kind]
    server.fault("start", "drop_after" if is_started else "drop_before", times=launches)
    server.fault("query", "status", status=503, times=1000)

    def end_faults(runs: int) -> None:
        if runs == 2:
            server.clear_faults()

    with approving(server):
        assert tries_of(kind, end_faults) == ("success", [1, 1])
    assert len(server.instances()) == launches
    assert server.counts()["start"] == (launches if is_started else 2 * launches)


def test_an_outage_past_its_limit_uses_up_retries(server: EmulatorControl) -> None:
    server.outage()
    ended, tries = tries_of("one", lambda _: None, max_reschedules=1, reschedule_timeout=None)
    assert (ended, tries) == ("failed", [1, 1, 2, 2])
