"""The measurements: which process does what, and what came of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet

from airflow_provider_astrobpm.bpm import api, launches
from airflow_provider_astrobpm.bpm.client import BpmClient
from airflow_provider_astrobpm.bpm.identity import BatchKey, TaskIdentity
from airflow_provider_astrobpm.bpm.settings import ClientCredentials, Settings
from airflow_provider_astrobpm.bpm.token import TokenCache
from airflow_provider_astrobpm.emulator import EmulatorControl
from airflow_provider_astrobpm.emulator.world import CLIENT_ID, CLIENT_SECRET
from benchmarks.batch import ROOT
from benchmarks.batch.orders import COST, DAG_ID, RUN_ID, Cost
from benchmarks.waiting import orders
from benchmarks.waiting.measuring import STATES
from local_stack import Deployment, Emulator, Stack
from tests.support.deployed import DeployedAirflow, seconds_of

if TYPE_CHECKING:
    from pathlib import Path

CONCURRENCY = 16  # the operator's default
DAGS = ROOT / "benchmarks" / "batch" / "dags"
PATIENCE = 600.0  # seconds for a process that measures
LONGEST_RUN = 3600.0  # seconds for a run of a deployed DAG
GLANCE = 2.0  # seconds between two looks at it: each is work for its API server


@dataclass(frozen=True)
class Launching:
    """What it took to start all launches.

    :param rate: starts per second, as they came in at the emulator.
    """

    rate: float
    cost: Cost


@dataclass(frozen=True)
class Waiting:
    """What it took to wait for them.

    :param looks: how many there were while it was measured.
    :param requests: the most that one of them sent.
    """

    cost: orders.Cost
    looks: int
    requests: int


@dataclass(frozen=True)
class Run:
    """A run of a DAG in a deployment.

    :param seconds: from its start to its end.
    :param rate: starts per second, as they came in at the emulator.
    """

    seconds: float
    rate: float


class Bench:
    """What is measured, with one emulator.

    :param stack: where all processes run.
    :param count: how many launches a batch has.
    """

    def __init__(self, stack: Stack, emulator: Emulator, count: int) -> None:
        self._stack = stack
        self._count = count
        self._emulator = emulator
        self._control = EmulatorControl(emulator.url)
        given = _launches(count)
        self._file = _write(stack.home / "launches.jsonl", given)
        self._bodies = _write(stack.home / "bodies.jsonl", _bodies(given))
        self._xcoms = stack.home / "xcoms.json"
        self._env = stack.airflow_environment(
            emulator,
            AIRFLOW__CORE__DAGS_FOLDER=str(DAGS / "worker"),
            AIRFLOW__CORE__FERNET_KEY=Fernet.generate_key().decode(),
            LAUNCHES=str(self._file),
        )

    def launch(self, contender: str) -> Launching:
        """Start all launches.

        :param contender: ``list`` or ``file`` for the operator, by what it is given; ``bare`` for the bare loop.
        """
        self._control.reset()
        cost = self._bare() if contender == "bare" else Cost(**self._task(contender)[COST]["cost"])
        return Launching(self._rate(self._count), cost)

    def wait(self, seconds: float) -> Waiting:
        """Let the operator start all launches, put half of them into another state, and let its trigger wait for them."""
        self._control.reset()
        xcoms = self._task("list")
        for instance_id in xcoms["instance_ids"][1::2]:
            self._control.move(instance_id, state=STATES[1])
        classpath, kwargs = xcoms[COST]["trigger"]
        order = orders.Order(
            classpath=classpath,
            count=1,
            control=self._emulator.url,
            settle=2.0 * kwargs["poll_interval"],
            looks=len(STATES),
            seconds=seconds,
            time_looks=True,
        )
        process = subprocess.run(
            [sys.executable, "-m", "benchmarks.batch.triggerer", str(self._xcoms)],
            input=f"{json.dumps(asdict(order))}\n{json.dumps(kwargs)}\n",
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=PATIENCE,
            cwd=ROOT,
            env=self._env,
        )
        found = json.loads(process.stdout.splitlines()[-1])
        return Waiting(orders.Cost(**found.pop("cost")), **found)

    def deploy(self, count: int) -> dict[str, Run]:
        """Start as many launches in an Airflow with a scheduler and a database, and return what each of its DAGs took."""
        self._control.reset()
        http = {"conn_type": "http", "host": self._emulator.url}
        http["extra"] = json.dumps({"access-token": self._token()})
        deployment = Deployment(
            self._stack,
            self._emulator,
            AIRFLOW__CORE__DAGS_FOLDER=str(DAGS / "deployed"),
            AIRFLOW__CORE__PARALLELISM="8",
            AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC="1",
            AIRFLOW_CONN_HTTP_DEFAULT=json.dumps(http),
            LAUNCHES=str(_write(self._stack.home / "deployed.jsonl", _launches(count))),
        )
        airflow = DeployedAirflow(deployment, self._stack.home, self._control)
        deployment.start()
        deployment.start_triggerer()  # nothing needs it here, but an Airflow has one
        airflow.until_up(dags=2)
        runs = {}
        for dag_id in ("batch", "mapped"):
            seconds = _run(airflow, dag_id)
            runs[dag_id] = Run(seconds, self._rate(count, prefix=dag_id))
        return runs

    def _task(self, task_id: str) -> dict[str, Any]:
        """Let the operator start all launches as a task of a worker, and return the XComs of that."""
        files = [str(self._file), str(self._xcoms)]
        command = [sys.executable, "-m", "benchmarks.batch.worker", task_id, *files]
        self._stack.run("worker", command, self._env, PATIENCE)
        found: dict[str, Any] = json.loads(self._xcoms.read_text())
        return found

    def _bare(self) -> Cost:
        """Start all launches in a bare loop."""
        url = f"{self._emulator.url}{api.INSTANCES_PATH}"
        arguments = [url, self._token(), str(CONCURRENCY), str(self._bodies)]
        process = subprocess.run(
            [sys.executable, "-m", "benchmarks.batch.bare", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=PATIENCE,
            cwd=ROOT,
            env=self._env,
        )
        return Cost(**json.loads(process.stdout))

    def _token(self) -> str:
        tokens: list[str] = []
        settings = Settings("benchmark", self._emulator.url, ClientCredentials(CLIENT_ID, CLIENT_SECRET))
        with BpmClient(settings, tokens=TokenCache(), on_token=tokens.append) as client:
            client.call(api.query(STATES[0]))
        return tokens[-1]

    def _rate(self, count: int, *, prefix: str = "") -> float:
        """Return the starts per second from the first to the last one, and see to it that each launch has one.

        :param prefix: what the business keys of those that count begin with.
        """
        found = [each for each in self._control.instances() if each["business_key"].startswith(prefix)]
        if len(found) != count or len({each["business_key"] for each in found}) != count:
            raise RuntimeError(f"{count} launches have {len(found)} instances")
        started: list[float] = [each["started"] for each in found]
        return (count - 1) / (max(started) - min(started))


def start_emulator(stack: Stack) -> Emulator:
    """Start an emulator whose tokens last: the http provider could not renew one."""
    command = [sys.executable, "-m", "airflow_provider_astrobpm.emulator", "--token-lifetime", "86400"]
    child = stack.start("emulator", command, dict(os.environ))
    address = child.wait_for("its address", lambda: re.search(r"http://\S+", child.output()), seconds=20)
    connection = {
        "conn_type": "astro_zero",
        "host": address[0],
        "login": CLIENT_ID,
        "password": CLIENT_SECRET,
    }
    return Emulator(address[0], json.dumps(connection))


def _launches(count: int) -> list[dict[str, Any]]:
    return [
        {
            "bpm_name": "PublishApproval",
            "variables": {
                "dataset": f"sales.daily_{number:05}",
                "row_count": 1000 + number,
                "comment": "as ordered",
            },
        }
        for number in range(1, count + 1)
    ]


def _bodies(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the operator sends for its launches."""
    task = TaskIdentity(DAG_ID, RUN_ID, "list")
    bodies = []
    for launch in launches.launches_of(launches.numbered(given)):
        body = launch.operation(task.batch_key(BatchKey(1, launch.number, launch.digest))).body
        bodies.append(json.loads(body or b""))
    return bodies


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def _run(airflow: DeployedAirflow, dag_id: str) -> float:
    """Run a DAG, and return the seconds from its start to its end."""
    path = f"/api/v2/dags/{dag_id}/dagRuns"
    airflow.call("POST", path, {"logical_date": None, "dag_run_id": "one"})

    def end() -> dict[str, Any] | None:
        time.sleep(GLANCE)
        run: dict[str, Any] = airflow.call("GET", f"{path}/one")
        return run if run["end_date"] else None

    run = airflow.until(f"the run of {dag_id} has ended", end, LONGEST_RUN)
    if run["state"] != "success":
        raise RuntimeError(f"the run of {dag_id} is {run['state']}")
    return seconds_of(run["end_date"]) - seconds_of(run["start_date"])
