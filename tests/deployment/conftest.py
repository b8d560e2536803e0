"""An Airflow of separate processes against the emulator, started once, and the actions of the tests on it.

``Airflow`` is that deployment, through its REST API and its logs; ``Wait`` is one run of a DAG of ``dags/``. What
must happen is awaited until a deadline that only a broken deployment misses. For what must not happen, the tests watch
for a while. That begins when everything that could cause it has verifiably happened.
"""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import airflow as installed
import pytest
from packaging.version import Version

from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.emulator.token_store import TokenStore
from local_stack import SIGNALS, Child, Deployment, Emulator, Stack, Whom, living
from tests.support.deployed import (
    MEASURED,
    PATIENCE,
    DeployedAirflow,
    Found,
    measured,
    seconds_of,
    show_measured,
)

__all__ = ["Found", "measured"]

DAGS = Path(__file__).parent / "dags"
TASK = "wait"
ASKS_PEOPLE = Version(installed.__version__) >= Version(
    "3.1"
)  # Airflow itself, with its ``ApprovalOperator``
HEALTH_THRESHOLD = 8  # seconds without a heartbeat after which another triggerer takes over
QUIET = 8.0  # seconds in which something must not happen

SETTINGS = {
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    "AIRFLOW__CORE__PARALLELISM": "8",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(HEALTH_THRESHOLD),
}

# The extras of a second connection, ``astro_zero_with_link``.
WITH_LINK = {"instance_url": "https://astro-zero.example/instances/{instance_id}", "start_grace": 2}

# Log lines of a triggerer about a trigger. Each task and triggerer has its own log.
TriggerEvent = Literal["started", "fired", "killed", "completed"]
WORDS: dict[TriggerEvent, str] = {
    "started": r"trigger .+ starting",
    "fired": "Trigger fired event",
    "killed": "Trigger cancelled by user action, invoking on_kill",
    "completed": "trigger completed",
}


class Airflow(DeployedAirflow):
    """The deployment, and the runs of its DAGs."""

    def __init__(self, deployment: Deployment, home: Path, control: EmulatorControl) -> None:
        super().__init__(deployment, home, control)
        self.triggerers: list[Child] = []
        self._numbers = count(1)

    @property
    def triggerer(self) -> Child:
        """The newest triggerer."""
        return self.triggerers[-1]

    def start_triggerer(self) -> None:
        self.triggerers.append(self.deployment.start_triggerer())

    def settle(self) -> None:
        """Stop all triggerers except the newest, and start one if that is gone, wherever a test has stopped."""
        for triggerer in self.triggerers:
            triggerer.signal(signal.SIGCONT)
        for triggerer in self.triggerers[:-1]:
            self.gone.append(triggerer)
            triggerer.stop()
        self.triggerers = self.triggerers[-1:]
        if not self.triggerer.members():
            self.gone.append(self.triggerer)
            self.start_triggerer()

    def freeze(self, triggerer: Child, whom: Whom) -> None:
        """Freeze processes of a triggerer, but not within a transaction.

        There it would hold the only lock of the database, and block all other components.
        """

        database = self.deployment.database
        assert database is not None

        def frozen_and_harmless() -> bool | None:
            triggerer.signal(signal.SIGSTOP, whom)
            with closing(sqlite3.connect(database, timeout=3)) as connection:
                try:
                    connection.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    triggerer.signal(signal.SIGCONT)
                    return None
                return True

        self.until("the triggerer is frozen", frozen_and_harmless)

    def run(self, dag_id: str) -> Wait:
        """Start a run."""
        run_id = f"{dag_id}-{next(self._numbers)}"
        self.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None, "dag_run_id": run_id})
        return Wait(self, dag_id, run_id)

    def has_reported_end(self, dag_id: str, run_id: str, task_id: str, tries: int = 1) -> bool:
        """Return whether the scheduler knows that the process of a task has ended.

        If it learns that only when the task has resumed, which a busy machine makes possible, it takes the task for one that was
        killed from outside.
        """
        done = (
            f"Received executor event with state success for task instance TaskInstanceKey(dag_id='{dag_id}', "
            f"task_id='{task_id}', run_id='{run_id}', try_number={tries},"
        )
        return done in self.scheduler.output()

    def working_tasks(self) -> list[str]:
        """Return the run ids of all tasks that hold a worker, or are about to."""
        found = self.call("GET", "/api/v2/dags/~/dagRuns/~/taskInstances?state=running&state=queued")
        return [each["dag_run_id"] for each in found["task_instances"]]

    def actions(self) -> list[tuple[str, str]]:
        """Return the actions on instances through the API since the test began: action and instance id."""
        entries = [entry for entry in self.control.requests() if entry["kind"] in {"action", "delete"}]
        counts = self.control.counts()
        assert len(entries) == counts["action"] + counts["delete"], "the log is too short"
        return [(entry["detail"], entry["path"].rpartition("/")[2]) for entry in entries]

    def newest_request(self) -> int:
        """Return the number of the newest request that the emulator has seen."""
        return max((entry["number"] for entry in self.control.requests()), default=0)

    def until_polled(self, wait: Wait, *, since: int | None = None) -> None:
        """Wait until the emulator has answered a query: until a trigger has polled its instance.

        :param since: the number of the request after which a query counts; without it one that comes from now on.
        """
        known = self.newest_request() if since is None else since

        def polled() -> bool | None:
            queries = [entry for entry in self.control.requests() if entry["kind"] == "query"]
            return any(entry["number"] > known and entry["status"] == 200 for entry in queries) or None

        wait.until("a trigger polls its instance", polled)

    def assert_no_action(self, seconds: float = QUIET) -> None:
        """Watch the emulator for a while, and check that no action is sent."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.actions() == []
            time.sleep(0.2)


@dataclass(frozen=True)
class Wait:
    """One run of a DAG whose task waits for one instance."""

    airflow: Airflow
    dag_id: str
    run_id: str

    @property
    def log_folder(self) -> Path:
        return self.airflow.home / f"logs/dag_id={self.dag_id}/run_id={self.run_id}/task_id={TASK}"

    @property
    def task(self) -> dict[str, Any]:
        """The task instance, as the REST API shows it."""
        found: dict[str, Any] = self.airflow.call("GET", f"{self._path}/taskInstances/{TASK}")
        return found

    @property
    def instances(self) -> list[dict[str, Any]]:
        """Every instance that this run started, oldest first, as the emulator has it."""
        return self.airflow.control.instances(business_key=self.run_id)

    @property
    def instance(self) -> dict[str, Any]:
        """The only instance that this run started."""
        (instance,) = self.instances
        return instance

    @property
    def returned(self) -> dict[str, Any]:
        """What the task returned."""
        found = self.airflow.call(
            "GET", f"{self._path}/taskInstances/{TASK}/xcomEntries/return_value?deserialize=true"
        )
        value: dict[str, Any] = found["value"]
        return value

    @property
    def ended(self) -> float:
        """When the task ended, in seconds since the epoch."""
        return seconds_of(self.task["end_date"])

    def until_deferred(self, *, by_other_than: int | None = None, tries: int = 1) -> int:
        """Wait until a triggerer runs the trigger and the scheduler knows that the worker has ended. Return the triggerer's id.

        :param by_other_than: a triggerer that does not count.
        :param tries: the try that waits.
        """

        def triggerer() -> int | None:
            task = self.task
            found: int | None = (task["trigger"] or {}).get("triggerer_id")
            if task["state"] != "deferred" or task["try_number"] != tries or found in {None, by_other_than}:
                return None
            started = found and self.logged(found, "started", tries=tries)
            reported = started and self.airflow.has_reported_end(self.dag_id, self.run_id, TASK, tries)
            return found if reported else None

        return self.until(f"{self.run_id} is deferred", triggerer)

    def until_state(self, state: str) -> None:
        """Wait until the task is in this state."""
        self.until(f"{self.run_id} is {state}", lambda: self.task["state"] == state or None)

    def until_logged(self, triggerer: int, event: TriggerEvent) -> float:
        """Wait until a triggerer has logged this about the trigger, and return the time."""
        return self.until(f"the trigger of {self.run_id} is {event}", lambda: self.logged(triggerer, event))

    def until(self, what: str, look: Callable[[], Found | None], seconds: float = PATIENCE) -> Found:
        return self.airflow.until(what, look, seconds, self.log_folder)

    def logged(self, triggerer: int, event: TriggerEvent, *, tries: int = 1) -> float | None:
        """Return when a triggerer logged this about the trigger, in seconds since the epoch, or None if it did not."""
        path = self.log_folder / f"attempt={tries}.log.trigger.{triggerer}.log"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        for line in lines:
            entry = json.loads(line) if line.endswith("\n") else {}  # the last line may be half written
            if re.fullmatch(WORDS[event], entry.get("event", "")):
                return seconds_of(entry["timestamp"])
        return None

    def mark(self, state: str) -> None:
        """Mark the task as a user does, and try again if Airflow's database is busy."""

        def marked() -> bool | None:
            try:
                self.airflow.call("PATCH", f"{self._path}/taskInstances/{TASK}", {"new_state": state})
            except AssertionError as error:
                if "Database error" not in str(error):
                    raise
                return None
            return True

        self.until(f"{self.run_id} is marked as {state}", marked)

    def clear(self) -> None:
        """Clear the task as a user does: it runs again."""
        body = {"dry_run": False, "dag_run_id": self.run_id, "task_ids": [TASK], "only_failed": False}
        self.airflow.call("POST", f"/api/v2/dags/{self.dag_id}/clearTaskInstances", body)

    def fail_run(self) -> None:
        """Mark the whole run as failed, as a user does."""
        self.airflow.call("PATCH", self._path, {"state": "failed"})

    def approve(self) -> dict[str, Any]:
        """Approve the newest instance as a person in Astro Zero does, and return it afterwards."""
        return self.airflow.control.act(self.instances[-1]["id"], "approve")

    def assert_waits(self) -> None:
        """Check that the task and its only instance still wait."""
        assert self.task["state"] == "deferred"
        instance = self.airflow.control.instance(self.instance["id"])
        assert (instance["closed"], instance["suspended"]) == (False, False)
        assert [event["what"] for event in instance["history"]] == ["entered Submit", "entered Approve"]

    def assert_approval_succeeds(self) -> None:
        """Approve, and check that the task succeeds with the instance that it started, and with no other."""
        approved = self.approve()
        self.until_state("success")
        assert self.returned["id"] == self.instance["id"] == approved["id"]
        assert self.returned["bp_status"] == "Approved"

    @property
    def _path(self) -> str:
        return f"/api/v2/dags/{self.dag_id}/dagRuns/{self.run_id}"


@pytest.fixture(scope="session")
def issued_tokens() -> Iterator[list[str]]:
    """Every token that the emulator issues."""
    tokens: list[str] = []
    issue = TokenStore.issue

    def noting(store: TokenStore, **options: bool) -> str:
        token = issue(store, **options)
        tokens.extend((token, store.csrf_of(token)))
        return token

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TokenStore, "issue", noting)
        yield tokens


@pytest.fixture(scope="session")
def watched_server() -> Iterator[EmulatorServer]:
    """The Astro Zero of the watchers. It is separate, because their polls would count as those of waiting tasks."""
    with EmulatorServer() as server:
        yield server


@pytest.fixture(scope="session")
def deployed(
    emulator_server: EmulatorServer,
    watched_server: EmulatorServer,
    issued_tokens: list[str],
    pytestconfig: pytest.Config,
) -> Iterator[Airflow]:
    """The deployment, up; after all tests its files and logs are checked."""
    with Stack() as stack:
        for number in SIGNALS:
            signal.signal(number, signal.default_int_handler)  # ends the session, including this fixture
        emulator = Emulator(emulator_server.url, emulator_server.connection_json())
        with_link = {**json.loads(emulator.connection), "extra": WITH_LINK}
        linked = {"AIRFLOW_CONN_ASTRO_ZERO_WITH_LINK": json.dumps(with_link)}
        watched = {"AIRFLOW_CONN_WATCHED_ZERO": watched_server.connection_json()}
        deployment = Deployment(stack, emulator, **SETTINGS, **linked, **watched)
        airflow = Airflow(deployment, stack.home, emulator_server.control)
        deployment.start()
        airflow.start_triggerer()
        if ASKS_PEOPLE:
            airflow.until_up(dags=21)
        else:
            airflow.until_up(dags=20, refused=["two_approvals.py"])
        assert living(stack.home)
        yield airflow
        for child in reversed(deployment.components):
            child.stop()
        # Instance ids are in the files, except those of a batch that was stopped while it started. So a search that finds them
        # would find a secret as well.
        titles = {each["id"]: each["title"] for each in airflow.control.instances()}
        single = [found for found, title in titles.items() if not title or "(run " in title]
        assert all(map(airflow.files_with, single))
        secrets = [emulator_server.settings.client_secret, *issued_tokens]
        assert len(secrets) > 1
        assert {secret: files for secret in secrets if (files := airflow.files_with(secret))} == {}
        locked = sum(child.output().count("database is locked") for child in deployment.components)
        pytestconfig.stash.setdefault(MEASURED, []).append(f"'database is locked' in the logs: {locked}")
    assert living(stack.home) == []
    assert not stack.home.exists()


@pytest.fixture
def airflow(deployed: Airflow) -> Airflow:
    """The deployment, up, with one triggerer, and the emulator's counts at zero."""
    deployed.settle()
    deployed.control.reset_counts()
    return deployed


pytest_terminal_summary = show_measured
