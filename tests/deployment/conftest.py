"""An Airflow of separate processes against the emulator, started once, and what the tests do to it and see of it.

``Airflow`` is that deployment, through its REST API and its logs; ``Wait`` is one run of a DAG of ``dags/``. What
must come is waited for until a deadline that only a broken deployment misses; what must not come is looked for during
a while that begins when everything that could lead to it has verifiably happened.
"""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.error import HTTPError

import psutil
import pytest

from airflow_provider_astrobpm.emulator.remote import EmulatorControl
from airflow_provider_astrobpm.emulator.running import EmulatorServer
from airflow_provider_astrobpm.emulator.tokens import TokenStore
from local_stack import SIGNALS, Child, Deployment, Emulator, Stack, Whom

DAGS = Path(__file__).parent / "dags"
TASK = "wait"
HEALTH_THRESHOLD = 8  # seconds without a heartbeat after which another triggerer takes over
PATIENCE = 90.0  # seconds for what must come
QUIET = 8.0  # seconds for what must not come

SETTINGS = {
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    "AIRFLOW__CORE__PARALLELISM": "8",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(HEALTH_THRESHOLD),
}

# What a triggerer writes about a trigger, into a log of its own for each task and triggerer.
TriggerEvent = Literal["started", "fired", "killed", "completed"]
WORDS: dict[TriggerEvent, str] = {
    "started": r"trigger .+ starting",
    "fired": "Trigger fired event",
    "killed": "Trigger cancelled by user action, invoking on_kill",
    "completed": "trigger completed",
}

Found = TypeVar("Found")
MEASURED = pytest.StashKey[list[str]]()


class Airflow:
    """The deployment.

    :param home: the folder that holds all it writes.
    :param control: the emulator that it talks to.
    """

    def __init__(self, deployment: Deployment, home: Path, control: EmulatorControl) -> None:
        self.home = home
        self.control = control
        self.deployment = deployment
        self.triggerers: list[Child] = []
        self._gone: list[Child] = []
        self._numbers = count(1)
        self._direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._token = ""

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Call the REST API; an answer without a body is None."""
        request = urllib.request.Request(
            f"{self.deployment.url}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
            method=method,
        )
        try:
            with self._direct.open(request, timeout=30) as answer:
                return json.loads(answer.read() or b"null")
        except HTTPError as error:
            with error:
                text = error.read().decode(errors="replace")
            raise AssertionError(f"{method} {path}: HTTP {error.code} {text}") from None

    def until_up(self) -> None:
        """Wait until every component works and every DAG is there."""

        def healthy() -> bool | None:
            with suppress(OSError, AssertionError):
                self._token = self.call("GET", "/auth/token")["access_token"]
                states = [part["status"] for part in self.call("GET", "/api/v2/monitor/health").values()]
                return set(states) == {"healthy"} or None
            return None

        def dags() -> bool | None:
            assert self.call("GET", "/api/v2/importErrors")["import_errors"] == []
            return self.call("GET", "/api/v2/dags")["total_entries"] == 4 or None

        self.until("the deployment is up", healthy, 2 * PATIENCE)
        self.until("the DAGs are there", dags)

    @property
    def scheduler(self) -> Child:
        (scheduler,) = (child for child in self.deployment.components if child.name == "scheduler")
        return scheduler

    @property
    def triggerer(self) -> Child:
        """The newest triggerer."""
        return self.triggerers[-1]

    def start_triggerer(self) -> None:
        self.triggerers.append(self.deployment.start_triggerer())

    def expect_end(self, triggerer: Child) -> None:
        """Wait until nothing is left of a triggerer that was told to end."""
        self._gone.append(triggerer)
        self.until("the triggerer has ended", lambda: not triggerer.members() or None)

    def settle(self) -> None:
        """Stop all triggerers but the newest, and start one if that is gone, wherever a test has ended."""
        for triggerer in self.triggerers:
            triggerer.signal(signal.SIGCONT)
        for triggerer in self.triggerers[:-1]:
            self._gone.append(triggerer)
            triggerer.stop()
        self.triggerers = self.triggerers[-1:]
        if not self.triggerer.members():
            self._gone.append(self.triggerer)
            self.start_triggerer()

    def freeze(self, triggerer: Child, whom: Whom) -> None:
        """Stop processes of a triggerer where they stand, but not within a transaction.

        There it would hold the one lock of the database, and all other components with it.
        """

        def frozen_and_harmless() -> bool | None:
            triggerer.signal(signal.SIGSTOP, whom)
            with closing(sqlite3.connect(self.deployment.database, timeout=3)) as connection:
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

    def working_tasks(self) -> list[str]:
        """Return the run ids of all tasks that hold a worker, or are about to."""
        found = self.call("GET", "/api/v2/dags/~/dagRuns/~/taskInstances?state=running&state=queued")
        return [each["dag_run_id"] for each in found["task_instances"]]

    def actions(self) -> list[tuple[str, str]]:
        """Return what was done to instances through the API since the test began: action and instance id."""
        entries = [entry for entry in self.control.requests() if entry["kind"] in {"action", "delete"}]
        counts = self.control.counts()
        assert len(entries) == counts["action"] + counts["delete"], "the log is too short"
        return [(entry["detail"], entry["path"].rpartition("/")[2]) for entry in entries]

    def newest_request(self) -> int:
        """Return the number of the newest request that the emulator has seen."""
        return max((entry["number"] for entry in self.control.requests()), default=0)

    def until_looked(self, wait: Wait, *, since: int | None = None) -> None:
        """Wait until the emulator has answered a query: until a trigger has looked at its instance.

        :param since: the number of the request after which a query counts; without it one that comes from now on.
        """
        known = self.newest_request() if since is None else since

        def looked() -> bool | None:
            queries = [entry for entry in self.control.requests() if entry["kind"] == "query"]
            return any(entry["number"] > known and entry["status"] == 200 for entry in queries) or None

        wait.until("a trigger looks at its instance", looked)

    def until(
        self, what: str, look: Callable[[], Found | None], seconds: float = PATIENCE, *about: Wait
    ) -> Found:
        """Call ``look`` until it finds something, and return that.

        :param what: what is waited for.
        :param about: the runs whose logs an error shows.
        """
        deadline = time.monotonic() + seconds
        while (found := look()) is None:
            ended = [
                child.name
                for child in self.deployment.components
                if child.exit_code is not None and child not in self._gone
            ]
            assert not ended, f"{ended} ended by itself before {what}\n{self._logs(*about)}"
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}\n{self._logs(*about)}"
            time.sleep(0.1)
        return found

    def assert_no_action(self, seconds: float = QUIET) -> None:
        """Watch the emulator for a while in which nothing is done to any instance."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.actions() == []
            time.sleep(0.2)

    def files_with(self, text: str) -> list[str]:
        """Return every file of the deployment that holds ``text``."""
        files = [path for path in self.home.rglob("*") if path.is_file()]
        return [str(path.relative_to(self.home)) for path in files if text.encode() in path.read_bytes()]

    def _logs(self, *about: Wait) -> str:
        shown = [child.failure("its last lines").args[0] for child in self.deployment.components]
        for wait in about:
            shown += [f"{path.name}:\n{path.read_text()}" for path in sorted(wait.log_folder.glob("*.log"))]
        return "\n".join(shown)


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
        return _seconds(self.task["end_date"])

    def until_deferred(self, *, by_other_than: int | None = None, tries: int = 1) -> int:
        """Wait until a triggerer runs the trigger, and return the triggerer's id.

        The scheduler must also have heard that the worker is done. If it hears that only when the task has resumed,
        which a busy machine makes possible, it takes the task for one that was killed from outside.

        :param by_other_than: a triggerer that does not count.
        :param tries: the try that waits.
        """

        def triggerer() -> int | None:
            task = self.task
            found: int | None = (task["trigger"] or {}).get("triggerer_id")
            if task["state"] != "deferred" or task["try_number"] != tries or found in {None, by_other_than}:
                return None
            started = found and self.logged(found, "started", tries=tries)
            return found if started and done in self.airflow.scheduler.output() else None

        done = (
            f"Received executor event with state success for task instance TaskInstanceKey(dag_id='{self.dag_id}', "
            f"task_id='{TASK}', run_id='{self.run_id}', try_number={tries},"
        )
        return self.until(f"{self.run_id} is deferred", triggerer)

    def until_state(self, state: str) -> None:
        """Wait until the task is in this state."""
        self.until(f"{self.run_id} is {state}", lambda: self.task["state"] == state or None)

    def until_logged(self, triggerer: int, event: TriggerEvent) -> float:
        """Wait until a triggerer has written this about the trigger, and return when it did."""
        return self.until(f"the trigger of {self.run_id} is {event}", lambda: self.logged(triggerer, event))

    def until(self, what: str, look: Callable[[], Found | None], seconds: float = PATIENCE) -> Found:
        return self.airflow.until(what, look, seconds, self)

    def logged(self, triggerer: int, event: TriggerEvent, *, tries: int = 1) -> float | None:
        """Return when a triggerer wrote this about the trigger, in seconds since the epoch, or None if it did not."""
        path = self.log_folder / f"attempt={tries}.log.trigger.{triggerer}.log"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        for line in lines:
            entry = json.loads(line) if line.endswith("\n") else {}  # the last line may be half written
            if re.fullmatch(WORDS[event], entry.get("event", "")):
                return _seconds(entry["timestamp"])
        return None

    def mark(self, state: str) -> None:
        """Mark the task, as a person does."""
        self.airflow.call("PATCH", f"{self._path}/taskInstances/{TASK}", {"new_state": state})

    def clear(self) -> None:
        """Clear the task, as a person does: it runs again."""
        body = {"dry_run": False, "dag_run_id": self.run_id, "task_ids": [TASK], "only_failed": False}
        self.airflow.call("POST", f"/api/v2/dags/{self.dag_id}/clearTaskInstances", body)

    def fail_run(self) -> None:
        """Mark the whole run failed, as a person does."""
        self.airflow.call("PATCH", self._path, {"state": "failed"})

    def approve(self) -> dict[str, Any]:
        """Approve the newest instance as a person at Astro Zero does, and return it as it is then."""
        return self.airflow.control.act(self.instances[-1]["id"], "approve")

    def assert_waits(self) -> None:
        """Check that the task and its only instance wait as they did from the first."""
        assert self.task["state"] == "deferred"
        instance = self.airflow.control.instance(self.instance["id"])
        assert (instance["closed"], instance["suspended"]) == (False, False)
        assert [event["what"] for event in instance["history"]] == ["entered Submit", "entered Approve"]

    def assert_approval_succeeds(self) -> None:
        """Approve, and check that the task succeeds with the instance that it started, and no other."""
        approved = self.approve()
        self.until_state("success")
        assert self.returned["id"] == self.instance["id"] == approved["id"]
        assert self.returned["bp_status"] == "Approved"

    @property
    def _path(self) -> str:
        return f"/api/v2/dags/{self.dag_id}/dagRuns/{self.run_id}"


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def _living(home: Path) -> list[str]:
    """Return every process that works on the folder ``home``, by its environment: nothing can leave that."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("AIRFLOW_HOME") == str(home):
                found.append(f"{process.pid} {process.name()}")
    return found


@pytest.fixture(scope="session")
def issued_tokens() -> Iterator[list[str]]:
    """Every token that the emulator gives out."""
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
def deployed(
    emulator_server: EmulatorServer, issued_tokens: list[str], pytestconfig: pytest.Config
) -> Iterator[Airflow]:
    """The deployment, up; when all tests are over, what it wrote and left is checked."""
    with Stack() as stack:
        for number in SIGNALS:
            signal.signal(number, signal.default_int_handler)  # ends the session, with this fixture's end
        emulator = Emulator(emulator_server.url, emulator_server.connection_json())
        deployment = Deployment(stack, emulator, **SETTINGS)
        airflow = Airflow(deployment, stack.home, emulator_server.control)
        deployment.start()
        airflow.start_triggerer()
        airflow.until_up()
        assert _living(stack.home)
        yield airflow
        for child in reversed(deployment.components):
            child.stop()
        # Instance ids are written; so what finds them would find a secret too.
        assert all(airflow.files_with(each["id"]) for each in airflow.control.instances())
        secrets = [emulator_server.settings.client_secret, *issued_tokens]
        assert len(secrets) > 1
        assert {secret: files for secret in secrets if (files := airflow.files_with(secret))} == {}
        locked = sum(child.output().count("database is locked") for child in deployment.components)
        pytestconfig.stash.setdefault(MEASURED, []).append(f"'database is locked' in the logs: {locked}")
    assert _living(stack.home) == []
    assert not stack.home.exists()


@pytest.fixture
def airflow(deployed: Airflow) -> Airflow:
    """The deployment, up, with one triggerer, and the emulator's counts at zero."""
    deployed.settle()
    deployed.control.reset_counts()
    return deployed


@pytest.fixture
def measured(
    pytestconfig: pytest.Config, record_property: Callable[[str, object], None]
) -> Callable[[str, float], None]:
    """Note a number of seconds; all are shown when the tests are over."""

    def note(what: str, seconds: float) -> None:
        record_property(what, seconds)
        pytestconfig.stash.setdefault(MEASURED, []).append(f"{seconds:6.2f} s  {what}")

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show what was measured."""
    for line in config.stash.get(MEASURED, []):
        terminalreporter.write_line(line)
