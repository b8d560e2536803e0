"""One measurement: start an emulator and a process with triggers, and return the cost of that process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from cryptography.fernet import Fernet

from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings
from airflow_provider_astrobpm.client.sync_client import BpmClient
from airflow_provider_astrobpm.emulator import EmulatorControl
from airflow_provider_astrobpm.emulator.emulator_state import CLIENT_ID, CLIENT_SECRET
from benchmarks.waiting.workload import Cost, Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_astrobpm.client.instance import BpmInstance

ROOT = Path(__file__).resolve().parents[2]
POLL_INTERVAL_SECONDS = 5.0
STATES = ("Waiting for user interaction", "Running")
WEEK_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True)
class Contender:
    """A way to wait.

    :param kwargs: returns the arguments of the trigger for an instance.
    :param min_requests: returns how many requests prove that each of a number of tasks has polled.
    """

    title: str
    classpath: str
    kwargs: Callable[[BpmInstance], dict[str, Any]]
    min_requests: Callable[[int], int]


CONTENDERS = {
    "ours": Contender(
        "this provider",
        "airflow_provider_astrobpm.triggers.bpm.AstroZeroBpmInstanceTrigger",
        lambda instance: {
            "astro_zero_conn_id": "astro_zero_default",
            "instance_id": instance.id,
            "seen": msgspec.to_builtins(instance),
            "poll_interval": POLL_INTERVAL_SECONDS,
            "deadline": time.time() + WEEK_SECONDS,
        },
        lambda count: min(count, len(STATES)),
    ),
    "http": Contender(
        "http provider",
        "airflow.providers.http.triggers.http.HttpSensorTrigger",
        lambda instance: {
            "endpoint": f"{operations.INSTANCES_PATH}/{instance.id}",
            "poke_interval": POLL_INTERVAL_SECONDS,
        },
        lambda count: count,
    ),
    "idle": Contender("Airflow alone", "benchmarks.waiting.runner.IdleTrigger", lambda _: {}, lambda _: 0),
}


def measure(contender: Contender, count: int, seconds: float, *, folder: Path, others: int = 0) -> Cost:
    """Let ``count`` tasks wait, and return the cost.

    :param folder: where the processes may write. It keeps the bytecode for later measurements, because a triggerer does
        not compile its libraries at each start.
    :param others: the number of other instances in the state of the first one. If there are any, the duration of polls is
        measured as well.
    """
    with _emulator(folder) as url:
        control = EmulatorControl(url)
        token, instances = start_instances(url, control, count)
        for _ in range(others):
            control.start("PublishApproval")
        work = Workload(
            classpath=contender.classpath,
            count=count,
            control=url,
            settle=min(2 * POLL_INTERVAL_SECONDS, seconds),
            min_requests=contender.min_requests(count),
            seconds=seconds,
            time_polls=others > 0,
        )
        parts = [asdict(work), *map(contender.kwargs, instances)]
        process = subprocess.run(
            [sys.executable, "-m", "benchmarks.waiting.runner"],
            input="".join(f"{json.dumps(part)}\n" for part in parts),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            cwd=ROOT,
            env={**environment(folder), **connections(url, token)},
        )
    return Cost(**json.loads(process.stdout.splitlines()[-1]))


@contextmanager
def _emulator(folder: Path) -> Iterator[str]:
    """Run an emulator in its own process, and yield its address."""
    # Reads by id return 404, the shortest response, so that the http provider keeps waiting. A long-lived token keeps its
    # renewal out of the comparison, because the http provider cannot renew it.
    options = ["--switch", "get_by_id=absent", "--token-lifetime", "86400"]
    command = [sys.executable, "-m", "airflow_provider_astrobpm.emulator", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(folder)) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            address = re.search(r"http://\S+", line)
            if address is None:
                raise RuntimeError("the emulator did not start")
            yield address.group()
        finally:
            process.terminate()


def start_instances(url: str, control: EmulatorControl, count: int) -> tuple[str, list[BpmInstance]]:
    """Start waiting instances, move every other one to another state, and return them with a token."""
    ids = [control.start("PublishApproval")["id"] for _ in range(count)]
    for instance_id in ids[1::2]:
        control.move(instance_id, state=STATES[1])
    tokens: list[str] = []
    credentials = ClientCredentials(CLIENT_ID, CLIENT_SECRET)
    with BpmClient(Settings("waiting", url, credentials), on_token=tokens.append) as client:
        found = [instance for state in STATES for instance in client.call(operations.query(state))]
    return tokens[-1], found


def environment(folder: Path) -> dict[str, str]:
    """Return this process's environment, with an Airflow that writes only to the folder."""
    left_out = ("AIRFLOW", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return {
        **kept,
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
        "PYTHONPYCACHEPREFIX": str(folder / "compiled"),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def connections(url: str, token: str) -> dict[str, str]:
    """Return an Airflow connection to the emulator for each provider, as environment variables."""
    astro_zero = {"conn_type": "astro_zero", "host": url, "login": CLIENT_ID, "password": CLIENT_SECRET}
    # The http provider does not support tokens, so the connection contains one.
    http = {"conn_type": "http", "host": url, "extra": json.dumps({"access-token": token})}
    return {
        "AIRFLOW_CONN_ASTRO_ZERO_DEFAULT": json.dumps(astro_zero),
        "AIRFLOW_CONN_HTTP_DEFAULT": json.dumps(http),
    }
