"""The measurements: start the processes and collect their results."""

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

from airflow_provider_astrobpm.batches import batch_input
from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings
from airflow_provider_astrobpm.client.sync_client import BpmClient
from airflow_provider_astrobpm.client.tokens import TokenCache
from airflow_provider_astrobpm.emulator import EmulatorControl
from airflow_provider_astrobpm.emulator.emulator_state import CLIENT_ID, CLIENT_SECRET
from airflow_provider_astrobpm.starting.business_keys import BatchKey, TaskIdentity
from benchmarks.batch import ROOT
from benchmarks.batch.process_cost import COST, DAG_ID, RUN_ID, Cost
from benchmarks.waiting import workload
from benchmarks.waiting.measuring import STATES
from local_stack import Deployment, Emulator, Stack
from tests.support.deployed import DeployedAirflow, seconds_of

if TYPE_CHECKING:
    from pathlib import Path

CONCURRENCY = 16  # the operator's default
DAGS = ROOT / "benchmarks" / "batch" / "dags"
TIMEOUT_SECONDS = 600.0  # for a measuring process
RUN_TIMEOUT_SECONDS = 3600.0  # for a run of a deployed DAG
RUN_POLL_SECONDS = 2.0  # not shorter, because each poll is work for the API server


@dataclass(frozen=True)
class Launching:
    """The cost of starting all launches.

    :param rate: starts per second, as the emulator received them.
    """

    rate: float
    cost: Cost


@dataclass(frozen=True)
class Waiting:
    """The cost of waiting for the instances.

    :param polls: the number of polls during the measurement.
    :param requests: the most requests of one poll.
    """

    cost: workload.Cost
    polls: int
    requests: int


@dataclass(frozen=True)
class Run:
    """A run of a DAG in a deployment.

    :param seconds: the duration of the run.
    :param rate: starts per second, as the emulator received them.
    """

    seconds: float
    rate: float


class Bench:
    """The measurements with one emulator.

    :param stack: runs all processes.
    :param count: the number of launches in a batch.
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

        :param contender: ``list`` or ``file`` for the operator with this kind of input; ``bare`` for the bare loop.
        """
        self._control.reset()
        cost = self._bare() if contender == "bare" else Cost(**self._task(contender)[COST]["cost"])
        return Launching(self._rate(self._count), cost)

    def wait(self, seconds: float) -> Waiting:
        """Start all launches with the operator, move half of them to another state, and wait for them in its trigger."""
        self._control.reset()
        xcoms = self._task("list")
        for instance_id in xcoms["instance_ids"][1::2]:
            self._control.move(instance_id, state=STATES[1])
        classpath, kwargs = xcoms[COST]["trigger"]
        work = workload.Workload(
            classpath=classpath,
            count=1,
            control=self._emulator.url,
            settle=2.0 * kwargs["poll_interval"],
            min_requests=len(STATES),
            seconds=seconds,
            time_polls=True,
        )
        process = subprocess.run(
            [sys.executable, "-m", "benchmarks.batch.triggerer", str(self._xcoms)],
            input=f"{json.dumps(asdict(work))}\n{json.dumps(kwargs)}\n",
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=TIMEOUT_SECONDS,
            cwd=ROOT,
            env=self._env,
        )
        found = json.loads(process.stdout.splitlines()[-1])
        return Waiting(workload.Cost(**found.pop("cost")), **found)

    def deploy(self, count: int) -> dict[str, Run]:
        """Start ``count`` launches in an Airflow with a scheduler and a database, and return the run of each DAG."""
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
        deployment.start_triggerer()  # not needed here, but part of a real Airflow
        airflow.until_up(dags=2)
        runs = {}
        for dag_id in ("batch", "mapped"):
            seconds = _run(airflow, dag_id)
            runs[dag_id] = Run(seconds, self._rate(count, prefix=dag_id))
        return runs

    def _task(self, task_id: str) -> dict[str, Any]:
        """Start all launches with the operator, as a task on a worker, and return the XComs of the task."""
        files = [str(self._file), str(self._xcoms)]
        command = [sys.executable, "-m", "benchmarks.batch.worker", task_id, *files]
        self._stack.run("worker", command, self._env, TIMEOUT_SECONDS)
        found: dict[str, Any] = json.loads(self._xcoms.read_text())
        return found

    def _bare(self) -> Cost:
        """Start all launches in a bare loop."""
        url = f"{self._emulator.url}{operations.INSTANCES_PATH}"
        arguments = [url, self._token(), str(CONCURRENCY), str(self._bodies)]
        process = subprocess.run(
            [sys.executable, "-m", "benchmarks.batch.bare", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=TIMEOUT_SECONDS,
            cwd=ROOT,
            env=self._env,
        )
        return Cost(**json.loads(process.stdout))

    def _token(self) -> str:
        tokens: list[str] = []
        settings = Settings("benchmark", self._emulator.url, ClientCredentials(CLIENT_ID, CLIENT_SECRET))
        with BpmClient(settings, tokens=TokenCache(), on_token=tokens.append) as client:
            client.call(operations.query(STATES[0]))
        return tokens[-1]

    def _rate(self, count: int, *, prefix: str = "") -> float:
        """Return the starts per second from the first to the last start. Check that each launch has one instance.

        :param prefix: count only business keys with this prefix.
        """
        found = [each for each in self._control.instances() if each["business_key"].startswith(prefix)]
        if len(found) != count or len({each["business_key"] for each in found}) != count:
            raise RuntimeError(f"{count} launches have {len(found)} instances")
        started: list[float] = [each["started"] for each in found]
        return (count - 1) / (max(started) - min(started))


def start_emulator(stack: Stack) -> Emulator:
    """Start an emulator with long-lived tokens, because the http provider cannot renew one."""
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
    """Return the request bodies that the operator sends for its launches."""
    task = TaskIdentity(DAG_ID, RUN_ID, "list")
    bodies = []
    for launch in batch_input.parse_launches(batch_input.with_positions(given)):
        body = launch.operation(task.batch_key(BatchKey(1, launch.number, launch.digest))).body
        bodies.append(json.loads(body or b""))
    return bodies


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def _run(airflow: DeployedAirflow, dag_id: str) -> float:
    """Run a DAG, and return its duration in seconds."""
    path = f"/api/v2/dags/{dag_id}/dagRuns"
    airflow.call("POST", path, {"logical_date": None, "dag_run_id": "one"})

    def end() -> dict[str, Any] | None:
        time.sleep(RUN_POLL_SECONDS)
        run: dict[str, Any] = airflow.call("GET", f"{path}/one")
        return run if run["end_date"] else None

    run = airflow.until(f"the run of {dag_id} has ended", end, RUN_TIMEOUT_SECONDS)
    if run["state"] != "success":
        raise RuntimeError(f"the run of {dag_id} is {run['state']}")
    return seconds_of(run["end_date"]) - seconds_of(run["start_date"])
