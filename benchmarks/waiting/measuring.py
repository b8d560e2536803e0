"""One measurement: a fresh emulator, a fresh process of triggers, and what the latter cost."""

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

from airflow_provider_astrobpm.bpm import api
from airflow_provider_astrobpm.bpm.client import BpmClient
from airflow_provider_astrobpm.bpm.settings import ClientCredentials, Settings
from airflow_provider_astrobpm.emulator import EmulatorControl
from airflow_provider_astrobpm.emulator.world import CLIENT_ID, CLIENT_SECRET
from benchmarks.waiting.orders import Cost, Order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_astrobpm.bpm.instance import BpmInstance

ROOT = Path(__file__).resolve().parents[2]
INTERVAL = 5.0
STATES = ("Waiting for user interaction", "Running")
A_WEEK = 7 * 24 * 3600


@dataclass(frozen=True)
class Contender:
    """A way to wait.

    :param kwargs: the trigger's arguments for an instance.
    :param looks: how many requests show that every one of so many tasks has looked.
    """

    title: str
    classpath: str
    kwargs: Callable[[BpmInstance], dict[str, Any]]
    looks: Callable[[int], int]


CONTENDERS = {
    "ours": Contender(
        "this provider",
        "airflow_provider_astrobpm.triggers.bpm.AstroZeroBpmInstanceTrigger",
        lambda instance: {
            "astro_zero_conn_id": "astro_zero_default",
            "instance_id": instance.id,
            "seen": msgspec.to_builtins(instance),
            "poll_interval": INTERVAL,
            "deadline": time.time() + A_WEEK,
        },
        lambda count: min(count, len(STATES)),
    ),
    "http": Contender(
        "http provider",
        "airflow.providers.http.triggers.http.HttpSensorTrigger",
        lambda instance: {"endpoint": f"{api.INSTANCES_PATH}/{instance.id}", "poke_interval": INTERVAL},
        lambda count: count,
    ),
    "idle": Contender("Airflow alone", "benchmarks.waiting.runner.IdleTrigger", lambda _: {}, lambda _: 0),
}


def measure(contender: Contender, count: int, seconds: float, *, folder: Path, others: int = 0) -> Cost:
    """Let so many tasks wait, and return what that cost.

    :param folder: where the processes may write. What Python compiles is kept there for further measurements: a
        triggerer does not compile its libraries each time it starts.
    :param others: how many instances there are beside those that are waited for, in the state of the first one. With
        any, it is also measured how long a look takes.
    """
    with _emulator(folder) as url:
        control = EmulatorControl(url)
        token, instances = _instances(url, control, count)
        for _ in range(others):
            control.start("PublishApproval")
        order = Order(
            classpath=contender.classpath,
            count=count,
            control=url,
            settle=min(2 * INTERVAL, seconds),
            looks=contender.looks(count),
            seconds=seconds,
            time_looks=others > 0,
        )
        parts = [asdict(order), *map(contender.kwargs, instances)]
        process = subprocess.run(
            [sys.executable, "-m", "benchmarks.waiting.runner"],
            input="".join(f"{json.dumps(part)}\n" for part in parts),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            cwd=ROOT,
            env={**_environment(folder), **_connections(url, token)},
        )
    return Cost(**json.loads(process.stdout.splitlines()[-1]))


@contextmanager
def _emulator(folder: Path) -> Iterator[str]:
    """Run an emulator in a process of its own, and yield its address."""
    # Reads by id answer 404 for as long as somebody waits, the shortest answer there is. A token that lasts keeps its
    # renewal out of the comparison: the http provider could not renew it.
    options = ["--switch", "get_by_id=absent", "--token-lifetime", "86400"]
    command = [sys.executable, "-m", "airflow_provider_astrobpm.emulator", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_environment(folder)) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            address = re.search(r"http://\S+", line)
            if address is None:
                raise RuntimeError("the emulator did not start")
            yield address.group()
        finally:
            process.terminate()


def _instances(url: str, control: EmulatorControl, count: int) -> tuple[str, list[BpmInstance]]:
    """Start instances that wait for somebody, put every other one into another state, and return them with a token."""
    ids = [control.start("PublishApproval")["id"] for _ in range(count)]
    for instance_id in ids[1::2]:
        control.move(instance_id, state=STATES[1])
    tokens: list[str] = []
    credentials = ClientCredentials(CLIENT_ID, CLIENT_SECRET)
    with BpmClient(Settings("waiting", url, credentials), on_token=tokens.append) as client:
        found = [instance for state in STATES for instance in client.call(api.query(state))]
    return tokens[-1], found


def _environment(folder: Path) -> dict[str, str]:
    """Return this process's environment with an Airflow that keeps all it writes in the folder."""
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


def _connections(url: str, token: str) -> dict[str, str]:
    """Return an Airflow connection to the emulator for each provider, as environment variables."""
    astro_zero = {"conn_type": "astro_zero", "host": url, "login": CLIENT_ID, "password": CLIENT_SECRET}
    # The http provider knows no tokens: somebody would have to put one into the connection.
    http = {"conn_type": "http", "host": url, "extra": json.dumps({"access-token": token})}
    return {
        "AIRFLOW_CONN_ASTRO_ZERO_DEFAULT": json.dumps(astro_zero),
        "AIRFLOW_CONN_HTTP_DEFAULT": json.dumps(http),
    }
