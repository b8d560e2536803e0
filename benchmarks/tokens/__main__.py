"""``python -m benchmarks.tokens``: let tasks and waits invalidate each other's tokens, and print the lost waits."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from benchmarks.batch import ROOT
from benchmarks.tokens.task import PROCESS
from local_stack import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_astrobpm.emulator import EmulatorControl

WAITS, SECONDS, INTERVAL = 200, 600.0, 5.0
SHORT_WAITS, SHORT_SECONDS = 50, 30.0
TASK_INTERVAL_SECONDS = 1.0  # seconds
TIMEOUT_SECONDS = 120.0  # after the end of its instance, a wait counts as lost


class Waits:
    """The process with the waits, and their results."""

    def __init__(self, process: subprocess.Popen[str], ids: list[str], interval: float) -> None:
        self.ids = ids
        self.right: set[str] = set()
        self.lost: dict[str, str] = {}
        self._process = process
        assert process.stdin is not None  # noqa: S101 - it was opened with one
        process.stdin.write(json.dumps({"ids": ids, "poll_interval": interval}) + "\n")
        process.stdin.close()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __len__(self) -> int:
        return len(self.right) + len(self.lost)

    def finish(self, seconds: float) -> None:
        """Give the waits time to end. Those that have not ended then are lost."""
        self._reader.join(seconds)
        self._process.kill()
        for one in self.ids:
            if one not in self.right:
                self.lost.setdefault(one, "the wait did not end")

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - as above
        for line in self._process.stdout:
            if not line.startswith('{"waited_for"'):
                continue  # a log line
            end = json.loads(line)
            if end["found"] == end["waited_for"]:
                self.right.add(end["found"])
            else:
                self.lost[end["waited_for"]] = end["error"] or f"the wait ended with {end['found']}"


def main() -> int:
    """Run the benchmark, print the lost waits, and return the exit code."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="astrobpm-") as folder, EmulatorServer() as server:
        server.control.switch(concurrent_tokens=False, bad_token=options.bad_token)
        variables = environment() | {
            "AIRFLOW_HOME": folder,
            "AIRFLOW_CONN_ASTRO_ZERO_DEFAULT": server.connection_json(),
        }
        ids = [server.control.start("PublishApproval")["id"] for _ in range(options.waits)]
        print(
            f"{options.waits} waits, and a task every {TASK_INTERVAL_SECONDS:g} s, for {options.seconds:g} s;"
            f" each new token invalidates the older one, which is refused with {options.bad_token}",
            flush=True,
        )
        with _process("benchmarks.tokens.waits", variables) as process:
            waits = Waits(process, ids, options.poll_interval)
            _wait_for_a_poll(server.control)
            first = server.control.counts()["token"]
            failed, tasks = _tasks(server, waits, options.seconds, variables)
            waits.finish(TIMEOUT_SECONDS)
        started = _started(server.control)
        requested = server.control.counts()["token"]
    print(f"correct waits: {len(waits.right)}")
    print(f"lost waits:    {len(waits.lost)}")
    for reason, number in Counter(waits.lost.values()).most_common(5):
        print(f"  {number} times: {reason}")
    once = sum(number == 1 for number in started.values())
    print(f"tasks: {tasks}, failed: {failed}, with exactly one instance: {once}")
    print(f"token requests: {requested - first}, at most {requested - first - tasks} of them by the waits")
    return int(bool(waits.lost or failed or once != tasks))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tokens", description=__doc__)
    parser.add_argument("--short", action="store_true", help=f"{SHORT_WAITS} waits for {SHORT_SECONDS:g} s")
    parser.add_argument("--waits", type=int, help=f"how many waits ({WAITS})")
    parser.add_argument("--seconds", type=float, help=f"for how long ({SECONDS:g})")
    parser.add_argument("--poll-interval", type=float, default=INTERVAL, help=f"seconds ({INTERVAL:g})")
    parser.add_argument("--bad-token", default="401", help="how an invalid token is refused (401)")
    options = parser.parse_args()
    options.waits = options.waits or (SHORT_WAITS if options.short else WAITS)
    options.seconds = options.seconds or (SHORT_SECONDS if options.short else SECONDS)
    return options


@contextmanager
def _process(module: str, variables: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", module]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT, env=variables) as process:
        try:
            yield process
        finally:
            process.kill()


def _wait_for_a_poll(control: EmulatorControl) -> None:
    """Wait until the process with the waits has started to poll: it imports Airflow first."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not control.counts()["query"]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the waits did not poll within {TIMEOUT_SECONDS:g} s")
        time.sleep(0.1)


def _tasks(
    server: EmulatorServer, waits: Waits, seconds: float, variables: dict[str, str]
) -> tuple[int, int]:
    """Run tasks and complete the instances of the waits. Return the number of failed tasks, and of all tasks."""
    begun = time.monotonic()
    running: list[subprocess.Popen[bytes]] = []
    at_the_end = waits.ids[len(waits.ids) // 2 :]
    meanwhile = waits.ids[: len(waits.ids) // 2]
    approved = failed = tasks = 0
    reported = begun
    while (passed := time.monotonic() - begun) < seconds:
        while approved < len(meanwhile) * passed / seconds:
            server.control.act(meanwhile[approved], "approve")
            approved += 1
        tasks += 1
        command = [sys.executable, "-m", "benchmarks.tokens.task", server.url, f"task-{tasks}"]
        running.append(subprocess.Popen(command, cwd=ROOT, env=variables))
        if time.monotonic() - reported >= 60:
            reported = time.monotonic()
            print(f"  {passed:.0f} s: {len(waits)} of {approved} ended, {len(waits.lost)} lost", flush=True)
        time.sleep(max(0.0, begun + tasks * TASK_INTERVAL_SECONDS - time.monotonic()))
    for one in [*meanwhile[approved:], *at_the_end]:
        server.control.act(one, "approve")
    failed = sum(process.wait(TIMEOUT_SECONDS) != 0 for process in running)
    return failed, tasks


def _started(control: EmulatorControl) -> Counter[str]:
    """Return the number of instances that each task started, by business key."""
    return Counter(one["business_key"] for one in control.instances() if one["name"] == PROCESS)


if __name__ == "__main__":
    sys.exit(main())
