"""An Airflow of separate processes against emulators, started once, and the actions of the tests on it.

Its database is PostgreSQL, as in production. SQLite gives the id of a deleted trigger to the next one, and its writers
block each other.

Tests that do not stop a component are marked as ``together``. They run at the same time, each in a thread, because most of
their time is waiting. Each test has an emulator of its own. The other tests begin when those have ended.

``Airflow`` is that deployment, through its REST API and its logs; ``Wait`` is one run of a DAG of ``dags/``. What
must happen is awaited until a deadline that only a broken deployment misses. For what must not happen, the tests watch
for a while. That begins when everything that could cause it has verifiably happened.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for_all
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import airflow as installed
import pytest
from packaging.version import Version
from sqlalchemy import create_engine, text

from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.emulator.token_store import TokenStore
from local_services import install_services, start_postgres
from local_stack import DATABASE_VARIABLE, SIGNALS, Child, Deployment, Emulator, Stack, Whom, living
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
EMULATORS = 40  # one for each test
AT_THE_SAME_TIME = 8  # tests; more would only wait for the two cores of a small machine

SETTINGS = {
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    "AIRFLOW__CORE__PARALLELISM": "8",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
    # No file changes. A test that needs a file parsed again asks for it.
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(HEALTH_THRESHOLD),
}

# The extras of a second connection to each emulator, whose id ends in ``_with_link``.
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
        address = deployment.database_url or f"sqlite:///{deployment.database}"
        self.database = create_engine(address, isolation_level="AUTOCOMMIT")
        self.connection = connection_id(0)
        self._numbers = count(1)
        self._unused: Iterator[tuple[int, EmulatorControl]] = iter(())

    def share(self, controls: list[EmulatorControl]) -> None:
        """Keep the emulators that tests get, besides the first one."""
        self._unused = iter(list(enumerate(controls))[1:])

    def with_emulator(self) -> Airflow:
        """Return this deployment with an emulator that no other test uses."""
        own = copy(self)
        number, own.control = next(self._unused)
        own.connection = connection_id(number)
        return own

    def rows(self, query: str, **values: object) -> list[tuple[Any, ...]]:
        """Return what a query reads from Airflow's database."""
        with self.database.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query), values)]

    def places_with(self, *texts: str) -> dict[str, list[str]]:
        """Return for each text the files and the tables of the deployment that contain it."""
        found: dict[str, list[str]] = {each: [] for each in texts}
        query = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        contents = list(self._files())
        for (table,) in self.rows(query):
            lines = self.rows(f'SELECT t::text FROM "{table}" AS t')  # noqa: S608 - a name from the catalogue
            contents.append((f"table {table}", "\n".join(line for (line,) in lines).encode()))
        for each, places in found.items():
            places += [name for name, content in contents if each.encode() in content]
        return found

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
        self.triggerers[:] = self.triggerers[-1:]
        if not self.triggerer.members():
            self.gone.append(self.triggerer)
            self.start_triggerer()

    def freeze(self, triggerer: Child, whom: Whom) -> None:
        """Freeze processes of a triggerer, but not within a transaction, whose locks would block other components."""
        busy = "SELECT pid FROM pg_stat_activity WHERE application_name = :name AND state <> 'idle'"

        def frozen_and_harmless() -> bool | None:
            triggerer.signal(signal.SIGSTOP, whom)
            if self.rows(busy, name=triggerer.name):
                triggerer.signal(signal.SIGCONT)
                return None
            return True

        self.until("the triggerer is frozen", frozen_and_harmless)

    def run(self, dag_id: str) -> Wait:
        """Start a run."""
        run_id = f"{dag_id}-{next(self._numbers)}"
        body = {"logical_date": None, "dag_run_id": run_id, "conf": {"connection": self.connection}}
        self.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)
        return Wait(self, dag_id, run_id)

    def has_reported_end(self, dag_id: str, run_id: str, task_id: str, tries: int = 1) -> bool:
        """Return whether the scheduler knows that the process of a task has ended.

        If it learns that only when the task has resumed, which a busy machine makes possible, it takes the task for one that was
        killed from outside.
        """
        key = (
            f"TaskInstanceKey(dag_id='{dag_id}', task_id='{task_id}', run_id='{run_id}', try_number={tries},"
        )
        reports = self.scheduler.output().splitlines()
        return any("Received executor event with state success" in line and key in line for line in reports)

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
            assert self.unexpectedly_ended() == [], self._logs()
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

    def log_of(self, triggerer: int, *, tries: int = 1) -> Path:
        """Return the path of what a triggerer logs about the trigger."""
        return self.log_folder / f"attempt={tries}.log.trigger.{triggerer}.log"

    def logged(self, triggerer: int, event: TriggerEvent, *, tries: int = 1) -> float | None:
        """Return when a triggerer logged this about the trigger, in seconds since the epoch, or None if it did not."""
        path = self.log_of(triggerer, tries=tries)
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


def connection_id(number: int) -> str:
    return f"astro_zero_{number}"


@pytest.fixture(scope="session")
def transcripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the transcripts of the connections whose id ends in ``_recorded``, by connection."""
    return tmp_path_factory.mktemp("transcripts")


def _connections(number: int, connection: str, transcripts: Path) -> dict[str, str]:
    """Return the variables with the three connections to an emulator."""
    conn_id = connection_id(number)
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    extras = {"": {}, "_WITH_LINK": WITH_LINK, "_RECORDED": {"record": str(transcripts / conn_id)}}
    return {
        variable + end: json.dumps({**json.loads(connection), "extra": extra})
        for end, extra in extras.items()
    }


@pytest.fixture(scope="session")
def deployed(
    watched_server: EmulatorServer, issued_tokens: list[str], transcripts: Path, pytestconfig: pytest.Config
) -> Iterator[Airflow]:
    """The deployment, up, with the emulator of ``astro_zero_default``. After all tests its files and tables are checked."""
    with ExitStack() as cleanup:
        servers = [cleanup.enter_context(EmulatorServer()) for _ in range(EMULATORS)]
        connections = [server.connection_json() for server in servers]
        variables = {"AIRFLOW_CONN_WATCHED_ZERO": watched_server.connection_json()}
        for number, connection in enumerate(connections):
            variables |= _connections(number, connection, transcripts)
        variables["AIRFLOW_CONN_ASTRO_ZERO_WITH_LINK"] = variables["AIRFLOW_CONN_ASTRO_ZERO_0_WITH_LINK"]
        stack = cleanup.enter_context(Stack())
        for signal_number in SIGNALS:
            signal.signal(
                signal_number, signal.default_int_handler
            )  # ends the session, including this fixture
        install_services(stack)
        variables[DATABASE_VARIABLE] = f"postgresql+psycopg2://{start_postgres(stack)}"
        deployment = Deployment(stack, Emulator(servers[0].url, connections[0]), **SETTINGS, **variables)
        airflow = Airflow(deployment, stack.home, servers[0].control)
        airflow.share([server.control for server in servers])
        deployment.start()
        airflow.start_triggerer()
        if ASKS_PEOPLE:
            airflow.until_up(dags=21)
        else:
            airflow.until_up(dags=20, refused=["two_approvals.py"])
        assert living(stack.home)
        yield airflow
        with ThreadPoolExecutor() as threads:
            list(threads.map(Child.stop, deployment.components))
        # Instance ids are in the files, except those of a batch that was stopped while it started. So a search that finds them
        # would find a secret as well.
        titles = {one["id"]: one["title"] for server in servers for one in server.control.instances()}
        single = [found for found, title in titles.items() if not title or "(run " in title]
        secrets = [*(server.settings.client_secret for server in servers), *issued_tokens]
        assert len(secrets) > len(servers)
        places = airflow.places_with(*single, *secrets)
        assert all(places[found] for found in single)
        assert {secret: places[secret] for secret in secrets if places[secret]} == {}
        airflow.database.dispose()
    assert living(stack.home) == []
    assert not stack.home.exists()


@pytest.fixture(scope="session")
def bystanders(deployed: Airflow) -> Iterator[list[Wait]]:
    """Two runs that wait while user actions end others, and succeed after them."""
    own = deployed.with_emulator()
    waits = [own.run("wait_for_person") for _ in range(2)]
    for wait in waits:
        wait.until_deferred()
    yield waits
    for wait in waits:
        wait.assert_approval_succeeds()


@pytest.fixture(scope="session")
def installed_browser() -> None:
    """Install the browser, in the main thread."""
    from local_browser import install_browser  # noqa: PLC0415 - the tests of other lines have no playwright

    install_browser()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "together: may run at the same time as other tests")


def is_together(item: pytest.Item) -> bool:
    return item.get_closest_marker("together") is not None


@pytest.fixture(scope="session")
def ends(deployed: Airflow, request: pytest.FixtureRequest) -> Iterator[dict[str, Future[None]]]:
    """The ends of all selected tests that run together, by their ids."""
    notes = request.config.stash.setdefault(MEASURED, [])

    def note(what: str, seconds: float) -> None:
        notes.append(f"{seconds:6.2f} s  {what}")

    def argument(item: pytest.Function, name: str) -> Any:
        if name == "airflow":
            return deployed.with_emulator()
        if name == "measured":
            return note
        given = getattr(item, "callspec", None)
        return given.params[name] if given and name in given.params else request.getfixturevalue(name)

    items = [
        item for item in request.session.items if isinstance(item, pytest.Function) and is_together(item)
    ]
    if any("installed_browser" in item.fixturenames for item in items):
        request.getfixturevalue("installed_browser")
    arguments = [{name: argument(item, name) for name in item._fixtureinfo.argnames} for item in items]
    threads = ThreadPoolExecutor(max_workers=AT_THE_SAME_TIME)
    try:
        yield {
            item.nodeid: threads.submit(item.obj, **given)
            for item, given in zip(items, arguments, strict=True)
        }
    finally:
        threads.shutdown(cancel_futures=True)  # Ctrl-C does not begin further tests


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Wait for the end of a test that runs together with others."""
    if not is_together(pyfuncitem):
        return None
    ends: dict[str, Future[None]] = pyfuncitem._request.getfixturevalue("ends")
    ends[pyfuncitem.nodeid].result()
    return True


@pytest.fixture
def airflow(deployed: Airflow, ends: dict[str, Future[None]], request: pytest.FixtureRequest) -> Airflow:
    """The deployment, up, with one triggerer, and an emulator of its own."""
    if is_together(request.node):
        return deployed  # its thread has another one
    wait_for_all(ends.values())
    deployed.settle()
    return deployed.with_emulator()


pytest_terminal_summary = show_measured
