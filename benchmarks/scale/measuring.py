"""Start tenants, triggerers and searches, and return what they cost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import psutil

from airflow_provider_astrobpm.emulator import EmulatorControl
from benchmarks.scale.searches import Searched
from benchmarks.scale.triggerer import READY
from benchmarks.waiting.measuring import (
    CONTENDERS,
    POLL_INTERVAL_SECONDS,
    ROOT,
    STATES,
    connections,
    environment,
    start_instances,
)
from benchmarks.waiting.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIMEOUT_SECONDS = 900.0
OURS = CONTENDERS["ours"]


@dataclass(frozen=True)
class Shared:
    """What several triggerers cost that wait on one endpoint.

    :param seconds: the wall clock time of the measurement.
    :param queries: the queries that the emulator received during it.
    :param tokens: the tokens that it had issued by then, to the triggerers.
    :param cpu: user and system CPU time of all triggerers, in seconds.
    :param memory: their resident bytes.
    :param sockets: their connections to the emulator.
    """

    seconds: float
    queries: int
    tokens: int
    cpu: float
    memory: int
    sockets: int


def measure_triggerers(triggerers: int, waits: int, seconds: float, *, folder: Path) -> Shared:
    """Spread waits over some triggerers, and return what they cost while nothing changes."""
    with ExitStack() as stack:
        url, _ = stack.enter_context(tenant(0, folder))
        control = EmulatorControl(url)
        token, instances = start_instances(url, control, waits)
        own_tokens = control.counts()["token"]
        processes = []
        for number in range(triggerers):
            mine = instances[number::triggerers]
            work = Workload(
                classpath=OURS.classpath,
                count=len(mine),
                control=url,
                settle=2 * POLL_INTERVAL_SECONDS,
                min_requests=len(STATES),
                seconds=seconds,
                time_polls=False,
            )
            processes.append(
                stack.enter_context(_triggerer([asdict(work), *map(OURS.kwargs, mine)], url, token, folder))
            )
        for process in processes:
            if process.stdout is None or READY not in process.stdout.readline():
                raise RuntimeError("a triggerer ended before all of its triggers ran")
        watched = [psutil.Process(process.pid) for process in processes]
        before, cpu, begin = control.counts(), sum(map(_cpu, watched)), time.monotonic()
        time.sleep(seconds)
        after, cpu = control.counts(), sum(map(_cpu, watched)) - cpu
        return Shared(
            seconds=time.monotonic() - begin,
            queries=after["query"] - before["query"],
            tokens=after["token"] - own_tokens,
            cpu=cpu,
            memory=sum(process.memory_info().rss for process in watched),
            sockets=sum(_sockets(process, url) for process in watched),
        )


@contextmanager
def tenant(ended: int, folder: Path) -> Iterator[tuple[str, str]]:
    """Run an emulator in which some instances have ended, and yield its address and the id of the last of them."""
    command = [sys.executable, "-m", "benchmarks.scale.tenant", str(ended)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, text=True, cwd=ROOT, env=environment(folder)) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise RuntimeError("the tenant did not start")
            known = json.loads(line)
            yield known["url"], known["last"]
        finally:
            process.kill()


def measure_search(name: str, url: str, ended: int, last: str, *, folder: Path) -> Searched:
    """Run one search in a new process, and return what it costs."""
    command = [sys.executable, "-m", "benchmarks.scale.searches", name, url, str(ended), last]
    variables = {**environment(folder), **connections(url, "")}
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
        env=variables,
        timeout=TIMEOUT_SECONDS,
    )
    return Searched(**json.loads(done.stdout.splitlines()[-1]))


@contextmanager
def _triggerer(
    parts: list[dict[str, Any]], url: str, token: str, folder: Path
) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.scale.triggerer"]
    variables = {**environment(folder), **connections(url, token)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT, env=variables) as process:
        try:
            if process.stdin is not None:
                process.stdin.write("".join(f"{json.dumps(part)}\n" for part in parts))
                process.stdin.close()
            yield process
        finally:
            process.kill()


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _sockets(process: psutil.Process, url: str) -> int:
    port = int(url.rpartition(":")[2])
    return sum(
        bool(each.raddr) and each.raddr.port == port and each.status == psutil.CONN_ESTABLISHED
        for each in process.net_connections("tcp")
    )
