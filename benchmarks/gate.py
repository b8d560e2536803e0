"""Measure what one gate costs a worker: start an instance, defer, and resume after its end; ``python -m benchmarks.gate``.

Each task runs in a process that Airflow's own supervisor forks for it (``gate_worker``), and each trigger in Airflow's own
``TriggerRunner`` (``gate_triggerer``). The gate alternates with one built from the http provider's operators and its
deferrable sensor on the same emulator, and with a task that only defers. ``--write`` writes the tables into
``docs/performance.md``. ``--imports`` prints the imports of the task processes. The exit code is 1 if a gate of this provider
takes more than half of the http provider's CPU.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet

from airflow_provider_astrobpm.emulator import EmulatorControl
from airflow_provider_astrobpm.emulator.emulator_state import CLIENT_ID, CLIENT_SECRET
from benchmarks.batch import ROOT
from benchmarks.batch.measuring import start_emulator
from benchmarks.waiting.report import PAGE, Verdict, setting, write
from benchmarks.waiting.workload import Workload
from local_stack import Stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local_stack import Emulator

BEGIN, END = "<!-- gate: begin -->", "<!-- gate: end -->"
ROUNDS = 11
MAX_SHARE_OF_HTTP = 0.5
OURS, HTTP, IDLE = "ours", "http", "idle"
RESUMED = "resumed"
TIMEOUT_SECONDS = 60.0  # until a trigger has polled, and until the worker ends
CHECK_INTERVAL_SECONDS = 0.05
IMPORT = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|( +)([\w.]+)")
SHOWN_IMPORTS = 25


@dataclass(frozen=True)
class Contender:
    """A way to build a gate.

    :param tasks: its tasks, in order; the last one defers.
    :param polls: the kind of request by which its trigger polls.
    """

    title: str
    tasks: tuple[str, ...]
    polls: str | None

    @property
    def processes(self) -> tuple[str, ...]:
        """The names of its task processes."""
        return (*self.tasks, RESUMED)


CONTENDERS = {
    OURS: Contender("this provider", ("gate",), "query"),
    HTTP: Contender("http provider", ("token", "start", "wait"), "get"),
    IDLE: Contender("Airflow alone", ("gate",), None),
}
PROCESSES = {
    (OURS, "gate"): "start, and defer",
    (OURS, RESUMED): "resume",
    (HTTP, "token"): "`HttpOperator`: the token",
    (HTTP, "start"): "`HttpOperator`: the start",
    (HTTP, "wait"): "`HttpSensor`: poll, and defer",
    (HTTP, RESUMED): "`HttpSensor`: resume",
    (IDLE, "gate"): "defer",
    (IDLE, RESUMED): "resume",
}


@dataclass(frozen=True)
class ProcessCost:
    """The cost of one task process: its user and system CPU time, and how long it held the worker, in seconds."""

    cpu: float
    seconds: float


@dataclass(frozen=True)
class GateCost:
    """The cost of one gate.

    :param processes: the cost of each of its task processes.
    :param by_worker: the requests of these, by kind.
    :param by_trigger: the requests of the trigger, by kind.
    """

    processes: dict[str, ProcessCost]
    by_worker: Counter[str]
    by_trigger: Counter[str]

    @property
    def cpu(self) -> float:
        """The CPU time of all its task processes."""
        return sum(one.cpu for one in self.processes.values())

    @property
    def seconds(self) -> float:
        """How long its task processes held a worker."""
        return sum(one.seconds for one in self.processes.values())


class Bench:
    """One worker, and one emulator.

    :param stack: runs all processes.
    :param options: options of the worker's Python.
    """

    def __init__(self, stack: Stack, emulator: Emulator, *options: str) -> None:
        self._control = EmulatorControl(emulator.url)
        self._home = stack.home
        self._env = stack.airflow_environment(
            emulator,
            AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "benchmarks" / "gate_dags"),
            AIRFLOW__CORE__FERNET_KEY=Fernet.generate_key().decode(),
            AIRFLOW_CONN_HTTP_DEFAULT=json.dumps({"conn_type": "http", "host": emulator.url}),
            CLIENT_ID=CLIENT_ID,
            CLIENT_SECRET=CLIENT_SECRET,
            PYTHONPATH=str(ROOT),
        )
        # An installed package has bytecode. Without it this would measure the compiler.
        self._env.pop("PYTHONDONTWRITEBYTECODE", None)
        self._worker = self._process("benchmarks.gate_worker", *options)

    def close(self) -> None:
        """End the worker."""
        if self._worker.stdin:
            self._worker.stdin.close()
        self._worker.wait(TIMEOUT_SECONDS)

    def run(self, name: str) -> GateCost:
        """Run one gate to its end."""
        contender = CONTENDERS[name]
        self._control.reset()
        costs = {}
        for task in contender.tasks:
            costs[task], left = self._task(name, task, is_first=task == contender.tasks[0])
        deferred = self._counts()
        event = self._event(contender, left)
        polled = self._counts() - deferred
        costs[RESUMED], left = self._task(name, contender.tasks[-1], resumes=left, event=event)
        if left["state"] != "success":
            raise RuntimeError(f"the gate of the {contender.title} is {left['state']}")
        return GateCost(costs, self._counts() - polled, polled)

    def log(self, name: str, process: str) -> str:
        """Return the log of the last task process of this kind."""
        return (self._home / "logs" / _log(name, process)).read_text()

    def _task(
        self,
        name: str,
        task_id: str,
        *,
        is_first: bool = False,
        resumes: dict[str, Any] | None = None,
        event: Any = None,
    ) -> tuple[ProcessCost, dict[str, Any]]:
        """Run a task. Return the cost of its process, and the task's last message about its state."""
        log = _log(name, task_id if resumes is None else RESUMED)
        order = {"dag": name, "task_id": task_id, "is_first": is_first, "log": log}
        (self._home / "logs" / log).unlink(missing_ok=True)
        assert self._worker.stdin is not None  # noqa: S101 - it was opened with one
        print(json.dumps({**order, "resumes": resumes, "event": event}), file=self._worker.stdin, flush=True)
        found = _answer(self._worker, "task: ")
        return ProcessCost(found["cpu"], found["seconds"]), found["left"]

    def _event(self, contender: Contender, left: dict[str, Any]) -> Any:
        """Run the trigger until it has polled once, let a person end the instance, and return the trigger's event."""
        seen = self._control.counts()
        work = Workload(
            classpath=left["classpath"],
            count=1,
            control=self._control.url,
            settle=0,
            min_requests=0,
            seconds=0,
            time_polls=False,
        )
        triggerer = self._process("benchmarks.gate_triggerer")
        with triggerer:
            assert triggerer.stdin is not None  # noqa: S101 - it was opened with one
            triggerer.stdin.write(f"{json.dumps(asdict(work))}\n{json.dumps(left['trigger_kwargs'])}\n")
            triggerer.stdin.close()
            if contender.polls is not None:
                deadline = time.monotonic() + TIMEOUT_SECONDS
                while self._control.counts()[contender.polls] == seen[contender.polls]:
                    if time.monotonic() > deadline:
                        triggerer.kill()
                        raise TimeoutError(f"the trigger had not polled after {TIMEOUT_SECONDS:g} s")
                    time.sleep(CHECK_INTERVAL_SECONDS)
                (instance,) = self._control.instances()
                self._control.act(instance["id"], "approve")
                if contender.polls == "get":
                    # The sensor waits for a successful answer. From now on a read by id is answered with one.
                    self._control.switch(get_by_id="row")
            return _answer(triggerer, "event: ")

    def _counts(self) -> Counter[str]:
        return Counter(self._control.counts())

    def _process(self, module: str, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, *options, "-m", module]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT, env=self._env)


@dataclass(frozen=True)
class Report:
    """All measurements.

    :param rounds: for each round, the cost of each contender's gate.
    """

    rounds: list[dict[str, GateCost]]

    def ratios(self) -> list[float]:
        """Return this provider's CPU as a share of the http provider's, for each round."""
        return [one[OURS].cpu / one[HTTP].cpu for one in self.rounds]

    def judge(self) -> Verdict:
        """Check the measurements against the limit."""
        share = median(self.ratios())
        return Verdict(
            share <= MAX_SHARE_OF_HTTP,
            f"one gate: {share:.0%} of the http provider's CPU, at most {MAX_SHARE_OF_HTTP:.0%}",
        )

    def tables(self) -> str:
        """Return all measurements as Markdown tables."""
        machine, ratios = setting(), sorted(self.ratios())
        caption = (
            f"{machine[0].upper()}{machine[1:]}; medians of {len(self.rounds)} rounds,"
            " with the minimum and the maximum in brackets:\n"
        )
        share = (
            f"A gate of this provider takes {median(ratios):.0%} of the http provider's CPU"
            f" (from {ratios[0]:.0%} to {ratios[-1]:.0%} in a single round).\n"
        )
        return "\n".join([caption, self._gates_table(), share, self._processes_table()])

    def _gates_table(self) -> str:
        def listed(values: list[float]) -> str:
            return f"{median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"

        rows = []
        for name, contender in CONTENDERS.items():
            gates = [one[name] for one in self.rounds]
            rows.append(
                f"| {contender.title} | {len(contender.processes)} | {listed([gate.cpu for gate in gates])} |"
                f" {listed([gate.seconds for gate in gates])} | {_requests(gates[-1].by_worker)} |"
                f" {_requests(gates[-1].by_trigger)} |\n"
            )
        return (
            "| one gate with | task processes | CPU | holds a worker | their requests | the trigger's requests |\n"
            "|:--|--:|--:|--:|:--|:--|\n"
        ) + "".join(rows)

    def _processes_table(self) -> str:
        """Return the least cost of each process, because other work on the machine can only add to it."""

        def least(name: str, process: str) -> float:
            return min(one[name].processes[process].cpu for one in self.rounds)

        rows = []
        for (name, process), what in PROCESSES.items():
            cpu = least(name, process)
            own = cpu - least(IDLE, RESUMED if process == RESUMED else "gate")
            beyond = "" if name == IDLE else f"{own:.3f} s"
            rows.append(f"| {CONTENDERS[name].title} | {what} | {cpu:.3f} s | {beyond} |\n")
        return (
            "| gate | task process | least CPU | in addition to Airflow alone |\n|:--|:--|--:|--:|\n"
        ) + "".join(rows)


def main() -> int:
    """Measure, print the results, and check the limit."""
    options = _options()
    with Stack() as stack:
        emulator = start_emulator(stack)
        if options.imports:
            with _bench(stack, emulator, "-X", "importtime") as bench:
                _show_imports(bench)
            return 0
        with _bench(stack, emulator) as bench:
            report = Report(_measure(bench, options.rounds))
    print(f"\n{report.tables()}")
    if options.write:
        write(report.tables(), BEGIN, END)
    verdict = report.judge()
    print(f"{'kept  ' if verdict.kept else 'MISSED'}  {verdict.text}")
    return int(not verdict.kept)


def _measure(bench: Bench, rounds: int) -> list[dict[str, GateCost]]:
    for name in CONTENDERS:  # compiles modules that have no bytecode yet
        bench.run(name)
    measured = []
    for number in range(rounds):
        names = [*CONTENDERS] if number % 2 else [*reversed(CONTENDERS)]
        measured.append({name: bench.run(name) for name in names})
        for name, contender in CONTENDERS.items():
            gate = measured[-1][name]
            each = ", ".join(f"{process} {one.cpu:.3f}" for process, one in gate.processes.items())
            print(
                f"{number + 1}. {contender.title}: {gate.cpu:.3f} s CPU ({each}), {gate.seconds:.2f} s;"
                f" {_requests(gate.by_worker)}; the trigger: {_requests(gate.by_trigger)}",
                flush=True,
            )
    return measured


def _show_imports(bench: Bench) -> None:
    """Print the most expensive imports of each task process by package, each without what it imports itself."""
    for name, contender in CONTENDERS.items():
        bench.run(name)  # compiles modules that have no bytecode yet
        bench.run(name)
        for process in contender.processes:
            own: Counter[str] = Counter()
            count = 0
            for found in IMPORT.finditer(bench.log(name, process)):
                parts = found[4].split(".")
                own[".".join(parts[: 3 if parts[0] == "airflow" else 1])] += int(found[1])
                count += 1
            print(f"{contender.title}, {process}: {count} modules, {own.total() / 1000:.0f} ms")
            for package, microseconds in own.most_common(SHOWN_IMPORTS):
                print(f"  {microseconds / 1000:6.1f} ms  {package}")


@contextmanager
def _bench(stack: Stack, emulator: Emulator, *options: str) -> Iterator[Bench]:
    bench = Bench(stack, emulator, *options)
    try:
        yield bench
    finally:
        bench.close()


def _answer(process: subprocess.Popen[str], mark: str) -> Any:
    """Return the next answer of a process, whose standard output also has its log."""
    assert process.stdout is not None  # noqa: S101 - it was opened with one
    for line in process.stdout:
        if line.startswith(mark):
            return json.loads(line.removeprefix(mark))
    raise RuntimeError(f"the process ended with {process.wait()} and no answer")


def _log(name: str, process: str) -> str:
    return str(Path(name, f"{process}.log"))


def _requests(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count > 0) or "none"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gate", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"how many rounds to measure ({ROUNDS})")
    parser.add_argument(
        "--imports", action="store_true", help="print the imports of the task processes, and measure nothing"
    )
    parser.add_argument("--write", action="store_true", help=f"write the tables into {PAGE.name}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
