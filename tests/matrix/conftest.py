"""A deployed Airflow of one line with the built wheel, on PostgreSQL, and what its tests observe.

``python -m tests.matrix`` runs these tests once for each line. They run in the project's own environment; only Airflow runs in
that of the line.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from airflow_lines import LINES, Line
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from local_services import install_services, start_postgres
from local_stack import DATABASE_VARIABLE, SIGNALS, Deployment, Emulator, Stack, living
from tests.deployment.conftest import SETTINGS, Airflow
from tests.matrix.rows import ROWS
from tests.matrix.runs import LATE, Begin, Run
from tests.support.deployed import Found

DAGS = Path(__file__).parent / "dags"
DAG_COUNT = 25
LATER = {"loops.py": ("3.4", 4)}
"""DAG files that older lines cannot import: the first line that can, and the number of their DAGs."""
MISSES_HEARTBEATS_SOON = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
}
"""Only so Airflow 3.0 sees that a task has died, or was cleared while it ran. 3.4.0b2 may fail at it."""
READS = 5  # of what Airflow does not answer in time
PATIENCE = 240.0  # seconds to wait for an expected condition: all runs begin together
GRACE = 1  # seconds after which a started instance certainly shows in the lists
PROCESSES = "processes: [{name: TakesAWhile, steps: [{state: Running, for: 8}, {end: {}}]}]"
"""A process that is certainly open when its start has returned, also on a busy machine."""
DEFAULT, WATCHED, INCIDENTS = "astro_zero_default", "watched_zero", "late_zero"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests of features that older lines do not have; a row of the table says so for each such feature."""
    line = os.environ.get("MATRIX_LINE", "3.0")
    left_out = [
        item for item in items if any(mark.args[0] > line for mark in item.iter_markers(name="since"))
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


class Observations:
    """What the tests have observed, by row, in the file that the page is written from."""

    def __init__(self, line: Line, path: Path) -> None:
        self._line = line
        self._path = path
        self._found: dict[str, Any] = {"rows": {}}

    def facts(self, facts: dict[str, Any]) -> None:
        """Keep the versions."""
        self._found |= {key: facts[key] for key in ("airflow", "python")}
        self._write()

    def observe(self, row: str, value: Any, test: str) -> None:
        """Compare what a test has observed with what the row says, and keep it.

        :param test: the test.
        """
        expected = ROWS[row].cell(self._line.name).value
        self._found["rows"][row] = {"test": test, "as expected": value == expected}
        self._write()
        assert value == expected, f"row {row!r} on Airflow {self._line.name}"

    def _write(self) -> None:
        self._path.write_text(json.dumps(self._found, indent=1))


class LineAirflow(Airflow):
    """The deployment of a line.

    :param emulators: an emulator for each run that begins.
    """

    def __init__(
        self, deployment: Deployment, stack: Stack, servers: dict[str, EmulatorServer], line: Line
    ) -> None:
        super().__init__(deployment, stack.home, servers[DEFAULT].control)
        self.servers = servers
        self.line = line
        self.stack = stack
        self._free = iter([each for each in servers if each.startswith("zero_")])

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Call the REST API, and read again what a busy machine has not answered in time."""
        for _ in range(READS if method == "GET" else 1):
            try:
                return super().call(method, path, body)
            except TimeoutError as error:
                late = error
        raise late

    def until(
        self, what: str, find: Callable[[], Found | None], seconds: float = PATIENCE, *about: Path
    ) -> Found:
        return super().until(what, find, max(seconds, PATIENCE), *about)

    def begin(self, begin: Begin) -> Run:
        """Start a run on an emulator that no other run uses."""
        connection = next(self._free)
        control = self.servers[connection].control
        conf = {**begin.conf, "connection": connection, **(begin.prepare(control) or {})}
        run_id = f"{begin.dag_id}-{connection}"
        body = {"logical_date": None, "dag_run_id": run_id, "conf": conf}
        self.call("POST", f"/api/v2/dags/{begin.dag_id}/dagRuns", body)
        return Run(self, begin.dag_id, run_id, control)

    def command(
        self, *command: str, seconds: float = 120, variables: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the line's environment.

        :param seconds: the time limit.
        :param variables: further variables of its environment.
        """
        return subprocess.run(
            command,
            cwd=self.home,
            env={**self.deployment.environment, **(variables or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )

    def task_logs(self, dag_id: str) -> str:
        """Return the logs of the tasks of a DAG."""
        return "".join(
            path.read_text() for path in sorted((self.home / f"logs/dag_id={dag_id}").rglob("*.log"))
        )

    def refused(self) -> dict[str, str]:
        """Return the DAG files that Airflow could not import, each with the error."""
        errors = self.call("GET", "/api/v2/importErrors")["import_errors"]
        return {Path(each["filename"]).name: each["stack_trace"] for each in errors}


@pytest.fixture(scope="session")
def line() -> Line:
    """The line under test."""
    return LINES[os.environ["MATRIX_LINE"]]


@pytest.fixture(scope="session")
def observations(line: Line) -> Observations:
    """What all tests have observed."""
    return Observations(line, Path(os.environ["MATRIX_REPORT"]))


@pytest.fixture
def observe(request: pytest.FixtureRequest, observations: Observations) -> Callable[[str, Any], None]:
    """Return a function that compares a value with the row of the table, and keeps it for the page."""
    return lambda row, value: observations.observe(row, value, request.node.nodeid)


@pytest.fixture(scope="session")
def begun(request: pytest.FixtureRequest) -> dict[str, Begin]:
    """Every run that the selected tests need, by test and name."""
    return {
        f"{item.nodeid} {name}": begin
        for item in request.session.items
        for mark in item.iter_markers(name="begins")
        for name, begin in mark.args[0].items()
    }


@pytest.fixture(scope="session")
def airflow(line: Line, begun: dict[str, Begin], observations: Observations) -> Iterator[LineAirflow]:
    """The deployment, up, with one triggerer."""
    names = [DEFAULT, WATCHED, INCIDENTS, *(f"zero_{number}" for number in range(len(begun)))]
    with ExitStack() as cleanup:
        servers = {name: cleanup.enter_context(EmulatorServer()) for name in names}
        stack = cleanup.enter_context(Stack())
        for number in SIGNALS:
            signal.signal(number, signal.default_int_handler)  # ends the session, with this fixture's end
        connections = {
            f"AIRFLOW_CONN_{name.upper()}": json.dumps(
                {**json.loads(server.connection_json()), "extra": {"start_grace": GRACE}}
            )
            for name, server in servers.items()
        }
        emulator = Emulator(servers[DEFAULT].url, connections["AIRFLOW_CONN_ASTRO_ZERO_DEFAULT"])
        settings = {
            **SETTINGS,
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW__CORE__PARALLELISM": "12",
            "AIRFLOW__API__ENABLE_XCOM_DESERIALIZE_SUPPORT": "True",  # off by default on Airflow 3.0
            # On Airflow 3.0 a callback makes the DAGs of its file stale until the file is parsed again.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
            "MATRIX_LATE": str(LATE),
        }
        if line.name == "3.0":
            settings |= MISSES_HEARTBEATS_SOON
        install_services(stack)
        settings[DATABASE_VARIABLE] = f"postgresql+psycopg2://{start_postgres(stack)}"
        deployment = Deployment(stack, emulator, os.environ["MATRIX_PROGRAMS"], **{**settings, **connections})
        airflow = LineAirflow(deployment, stack, servers, line)
        deployment.start()
        airflow.start_triggerer()
        airflow.control.add_processes(PROCESSES)
        refused = {name: count for name, (since, count) in LATER.items() if since > line.name}
        airflow.until_up(dags=DAG_COUNT - sum(refused.values()), refused=list(refused))
        yield airflow
        for child in reversed(deployment.components):
            child.stop()
    assert living(stack.home) == []


@pytest.fixture(scope="session")
def facts(airflow: LineAirflow, observations: Observations) -> dict[str, Any]:
    """What a task finds in its Airflow."""
    airflow.call("POST", "/api/v2/dags/facts/dagRuns", {"logical_date": None, "dag_run_id": "facts"})
    path = "/api/v2/dags/facts/dagRuns/facts"

    def ended() -> bool | None:
        state = airflow.call("GET", path)["state"]
        assert state != "failed", airflow.task_logs("facts")
        return state == "success" or None

    airflow.until("a task has found the facts", ended)
    entry = airflow.call("GET", f"{path}/taskInstances/find/xcomEntries/return_value?deserialize=true")
    value = entry["value"]
    found: dict[str, Any] = json.loads(value) if isinstance(value, str) else value
    observations.facts(found)
    return found


@pytest.fixture(scope="session")
def all_runs(
    airflow: LineAirflow, line: Line, begun: dict[str, Begin], facts: dict[str, Any]
) -> dict[str, Run]:
    """The runs of all tests, started together."""
    assert facts["installed in"].startswith(facts["prefix"]), "this is not the wheel"
    return {name: airflow.begin(begin) for name, begin in begun.items() if begin.since <= line.name}


@pytest.fixture
def runs(request: pytest.FixtureRequest, all_runs: dict[str, Run]) -> dict[str, Run]:
    """The runs of a test, by name."""
    own = f"{request.node.nodeid} "
    return {name.removeprefix(own): run for name, run in all_runs.items() if name.startswith(own)}
