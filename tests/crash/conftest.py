"""A deployed Airflow whose task processes die on command, and checks of the resulting instances.

A ``Run`` is one run of a DAG in ``dags/``. Many of them run at the same time, each driven by a ``Story`` in its own
thread: start, wait for the crash, approve. The ``Board`` polls the state of all tasks for all stories.
"""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_astrobpm.client.key_search import FEWEST_PASSES
from airflow_provider_astrobpm.client.states import OPEN_STATES, STATES
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from local_services import install_services, start_postgres
from local_stack import DATABASE_VARIABLE, SIGNALS, Deployment, Emulator, Stack, StackError, living
from tests.deployment.conftest import SETTINGS, Airflow, Wait
from tests.support.deployed import MEASURED, Found, show_measured

DAGS = Path(__file__).parent / "dags"
DAG_COUNT = 16
MOST_TASKS = 1000
PATIENCE = 300.0  # seconds until a wait fails: at first two hundred runs queue for eight workers
LOOKS_OF_A_WAIT = 2  # after that many polls a task certainly waits
INSTANCE_URL = "https://astro-zero.example/{instance_id}"
START_GRACE = 3  # seconds after which a started instance certainly shows in the lists
EMULATORS = 64  # one for each story
QUERIES_OF_A_SEARCH = 2 * len(STATES) + (FEWEST_PASSES - 2) * len(OPEN_STATES) + len(STATES)
"""The maximum: two passes over all states, further ones over the open states, and cut-off lists in the other order."""

CRASH_SETTINGS = {
    **SETTINGS,
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    "AIRFLOW__API__MAXIMUM_PAGE_LIMIT": str(MOST_TASKS),
    "AIRFLOW__LOGGING__NAMESPACE_LEVELS": "airflow.task.operators.quiet=WARNING",
    # Airflow notices a dead supervisor only by its missing heartbeat. A busy machine must not seem dead.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "14",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "16",
}


class OneAtATime(Airflow):
    """The deployment. Its only API server also serves the tasks, so requests of the stories are sent one by one."""

    def __init__(self, deployment: Deployment, home: Path, control: EmulatorControl) -> None:
        super().__init__(deployment, home, control)
        self._asking = threading.Lock()

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        with self._asking:
            return super().call(method, path, body)


@dataclass
class Board:
    """The state of all tasks, polled once for all stories."""

    airflow: Airflow
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    heard: set[tuple[str, int]] = field(default_factory=set)
    """The runs and tries whose worker has reported its end to the scheduler."""
    failure: str = ""
    _news: threading.Condition = field(default_factory=threading.Condition)
    _looks: int = 0
    _read: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Poll until stopped."""
        while not self._stop.wait(0.4):
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - raised to the waiting stories
                self.failure = f"{type(error).__name__}: {error}"
            with self._news:
                self._looks += 1
                self._news.notify_all()

    def stop(self) -> None:
        self._stop.set()

    def refresh(self) -> None:
        """Wait for a poll that begins after this call."""
        with self._news:
            target = self._looks + 2
            assert self._news.wait_for(lambda: self._looks >= target, PATIENCE), "polling has stopped"

    def until(self, look: Callable[[], Found | None], deadline: float) -> Found | None:
        """Call ``look`` after each poll until it returns something, and return that; None after the deadline."""
        while (found := look()) is None and time.monotonic() < deadline:
            if self.failure:
                raise StackError(self.failure)
            with self._news:
                self._news.wait(1)
        return found

    def _look(self) -> None:
        # One page for all: a retried task would move between pages.
        page = self.airflow.call("GET", f"/api/v2/dags/~/dagRuns/~/taskInstances?limit={MOST_TASKS}")
        assert page["total_entries"] <= MOST_TASKS
        output = self.airflow.scheduler.output()
        news, self._read = output[self._read :], output.rfind("\n") + 1
        pattern = r"executor event with state (?:success|failed) for .*?run_id='([^']+)', try_number=(\d+)"
        self.heard |= {(run_id, int(number)) for run_id, number in re.findall(pattern, news)}
        self.tasks = {task["dag_run_id"]: task for task in page["task_instances"]}
        ended = [
            child
            for child in self.airflow.deployment.components
            if child.name in self.airflow.unexpectedly_ended()
        ]
        if ended:
            raise ended[0].failure("ended by itself")


@dataclass(frozen=True)
class Run(Wait):
    """One run and its effects.

    :param control: the emulator of the run.
    """

    board: Board
    control: EmulatorControl

    @property
    def task(self) -> dict[str, Any]:
        return self.board.tasks.get(self.run_id, {"state": None, "try_number": 0})

    @property
    def instances(self) -> list[dict[str, Any]]:
        return [each for each in self.control.instances() if each["title"] == self.run_id]

    @property
    def still_open(self) -> list[dict[str, Any]]:
        return [each for each in self.instances if not each["closed"]]

    @property
    def notes(self) -> dict[str, list[dict[str, Any]]]:
        """The notes of each process of the task, by its name: the number of the try, and its leg."""
        folder = self.airflow.home / "effects" / self.run_id
        files = sorted(folder.iterdir()) if folder.exists() else []
        return {
            path.name: [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
            for path in files
        }

    def effects(self, process: str = "01-first", when: str = "before") -> list[str]:
        """Return the effects of a process, in order."""
        return [note["effect"] for note in self.notes.get(process, []) if note.get("when") == when]

    def pid(self, process: str = "01-first") -> int:
        pid: int = self.notes[process][0]["pid"]
        return pid

    @property
    def crashes(self) -> list[dict[str, Any]]:
        """The crashes that have happened."""
        return [note["crash"] for notes in self.notes.values() for note in notes if "crash" in note]

    def xcom(self, key: str) -> Any:
        return self.airflow.call("GET", f"{self._path}/taskInstances/wait/xcomEntries/{key}")["value"]

    def hidden(self, instance: dict[str, Any]) -> list[str]:
        """Return the facts about the instance that are missing on the task's page."""
        url = INSTANCE_URL.format(instance_id=instance["id"])
        links = self.airflow.call("GET", f"{self._path}/taskInstances/wait/links")["extra_links"]
        shown = {key: self.xcom(key) for key in ("instance_id", "business_key", "instance_url")} | links
        wanted = {
            "instance_id": instance["id"],
            "business_key": instance["business_key"],
            "instance_url": url,
            "Open in Astro Zero": url,
        }
        assert instance["business_key"]
        return [f"{key} is {shown.get(key)}" for key in wanted if shown.get(key) != wanted[key]]

    def until(self, what: str, look: Callable[[], Found | None], seconds: float = PATIENCE) -> Found:
        found = self.board.until(look, time.monotonic() + seconds)
        assert found is not None, f"not within {seconds:g} s: {what}\n{self.story()}"
        return found

    def until_waiting(self, *, tries: int = 1, or_ended: bool = False) -> None:
        """Wait until a try waits for its instance.

        :param tries: the lowest number of the try.
        :param or_ended: whether an ended task is accepted, too.
        """

        def waiting() -> bool | None:
            task = self.task
            if or_ended and self.has_ended:
                return True
            if task["try_number"] < tries:
                return None
            if self.dag_id.endswith("_deferred"):
                if task["state"] != "deferred" or (self.run_id, task["try_number"]) not in self.board.heard:
                    return None
                triggerer = (task["trigger"] or {}).get("triggerer_id")
                started = triggerer and self.logged(triggerer, "started", tries=task["try_number"])
                return bool(started) or None
            return (task["state"] == "running" and self._looks(task["try_number"]) >= LOOKS_OF_A_WAIT) or None

        self.until(f"try {tries} waits", waiting)

    def _looks(self, tries: int) -> int:
        """Return how often a try has polled since it published its instance, just before the wait."""
        effects = self.effects(f"{tries:02}-first", "after")
        published = [number for number, effect in enumerate(effects) if effect.startswith("SetXCom")]
        return sum(effect.startswith("GET ") for effect in effects[published[-1] :]) if published else 0

    @property
    def has_ended(self) -> bool:
        return self.task["state"] in {"success", "failed"}

    def until_crashed(self, crashes: int = 1) -> None:
        self.until("it crashes", lambda: len(self.crashes) >= crashes or self.has_ended or None)

    def until_ended(self) -> None:
        self.until("the task ends", lambda: self.has_ended or None)

    def until_failed(self) -> None:
        self.until_ended()
        assert self.task["state"] == "failed", self.story()

    def until_closed(self, instance: dict[str, Any], state: str = "Terminated") -> None:
        self.until("the instance is closed", lambda: self.control.instance(instance["id"])["closed"] or None)
        assert self.control.instance(instance["id"])["state"] == state, self.story()

    def mark(self, state: str) -> None:
        super().mark(state)
        self.board.refresh()

    def clear(self) -> None:
        # Airflow loses a clear between the end of the last task and the end of its run.
        if self.has_ended:
            self.until("the run has ended", lambda: self.airflow.call("GET", self._path)["end_date"])
        super().clear()
        self.board.refresh()

    def approve(self, outcome: str = "approve") -> dict[str, Any]:
        """Let a person act on all open instances, so that the run can end in any case."""
        acted = [self.control.act(each["id"], outcome) for each in self.still_open if each["outcomes"]]
        return acted[-1] if acted else {}

    def assert_succeeds(self, instances: int = 1) -> None:
        """Wait for the end. Check that the task has succeeded with its newest instance.

        :param instances: the required number of started instances.
        """
        self.until_ended()
        problems = self.problems(instances)
        assert not problems, f"{problems}\n{self.story()}"

    def terminations(self) -> list[str]:
        """Return the ids of the terminated instances, on the emulator of this run alone."""
        entries = [entry for entry in self.control.requests() if entry["kind"] == "action"]
        assert len(entries) == self.control.counts()["action"], "the log is too short"
        assert {entry["detail"] for entry in entries} <= {"terminate"}
        return [entry["path"].rpartition("/")[2] for entry in entries if entry["status"] == 200]

    def problems(self, instances: int = 1) -> list[str]:
        """Return the deviations from a task that has succeeded with its newest instance.

        :param instances: the required number of started instances.
        """
        if self.task["state"] != "success":
            return [f"the task is {self.task['state']}"]
        found = self.instances
        wrong = [] if len(found) == instances else [f"{len(found)} instances were started, not {instances}"]
        wrong += [f"{each['id']} is still open" for each in found if not each["closed"]]
        result = self.returned
        returned = next((each for each in found if each["id"] == result["id"]), None)
        if returned is None or returned["id"] != found[-1]["id"]:
            return [*wrong, f"{result['id']} was returned"]
        if returned["bp_status"] != "Approved" or result["bp_status"] != "Approved":
            wrong.append(f"{result['bp_status']} was returned, and it is {returned['bp_status']}")
        if returned["ended"] > self.ended:
            wrong.append("the task succeeded before its instance")
        return wrong + self.hidden(returned) + self.costs()

    def costs(self) -> list[str]:
        """Return the tries that sent too many requests before they started or adopted an instance.

        The first try does not search. Any other try searches at most once.
        """
        wrong = []
        for process in self.notes:
            effects = self.effects(process)
            if process.endswith("-resumed"):
                continue
            decided = [
                number for number, each in enumerate(effects) if each.startswith(("POST start", "SetXCom"))
            ]
            looks = sum(each.startswith("GET ") for each in (effects[: decided[0]] if decided else effects))
            most = 0 if process.startswith("01-") else QUERIES_OF_A_SEARCH
            posts = sum(each.startswith("POST start ") for each in effects)
            if posts > 1 or looks > most:
                wrong.append(f"process {process} sent {posts} starts and {looks} queries before that")
        return wrong

    def story(self) -> str:
        """Describe what happened, for an error."""
        task, lines = self.task, []
        lines.append(f"{self.run_id}: {task['state']}, try {task['try_number']}")
        for each in self.instances:
            history = [f"{event['what']}" for event in self.control.instance(each["id"])["history"]]
            lines.append(
                f"  {each['id']} {each['state']} {each['bp_status']} {each['business_key']}: {history}"
            )
        for process, notes in self.notes.items():
            effects = [
                f"+{note['effect']}" if note["when"] == "after" else "" for note in notes if "when" in note
            ]
            crashed = [f"crash {note['crash']}" for note in notes if "crash" in note]
            lines.append(f"  {process}: {' '.join(filter(None, effects))} {crashed}")
        for path in sorted(self.log_folder.glob("*.log")):
            for line in path.read_text().splitlines()[-60:]:
                entry = json.loads(line) if line.endswith("}") else {}
                if entry.get("level") in {"warning", "error", "critical"} or "airflow_provider" in str(
                    entry.get("logger")
                ):
                    reasons = [each.get("exc_value") for each in entry.get("error_detail") or []]
                    lines.append(f"  {path.name}: {entry.get('event')} {reasons or ''}"[:700])
        return "\n".join(lines)


class World:
    """The deployment with its emulators."""

    def __init__(self, airflow: Airflow, board: Board, emulators: list[EmulatorControl]) -> None:
        self.airflow = airflow
        self.board = board
        self._emulators = emulators
        self._unused = iter(emulators)
        self._numbers = count(1)
        self._lock = threading.Lock()

    def run(self, dag_id: str, crashes: Iterable[dict[str, Any]] = (), *, control: EmulatorControl) -> Run:
        """Start a run.

        :param crashes: the points at which its processes die.
        :param control: an emulator, from :meth:`emulator`.
        """
        number = [each.url for each in self._emulators].index(control.url)
        conf = {"connection": _connection_id(number), "crashes": list(crashes)}
        with self._lock:
            run_id = f"{dag_id}-{next(self._numbers)}"
        self.airflow.call(
            "POST",
            f"/api/v2/dags/{dag_id}/dagRuns",
            {"logical_date": None, "dag_run_id": run_id, "conf": conf},
        )
        return Run(self.airflow, dag_id, run_id, self.board, control)

    def emulator(self) -> EmulatorControl:
        """Return an unused emulator."""
        with self._lock:
            return next(self._unused)


Story = Callable[[World], None]
"""Drives one run, or many. Raises an AssertionError if a run fails its checks."""


def _connection_id(number: int) -> str:
    return f"crash_{number}"


def _for_crashes(connection: str) -> str:
    extra = {"start_grace": START_GRACE, "instance_url": INSTANCE_URL}
    return json.dumps({**json.loads(connection), "extra": extra})


@pytest.fixture(scope="session")
def world(pytestconfig: pytest.Config) -> Iterator[World]:
    """The running deployment with one triggerer. At the end, the number of killed processes is reported."""
    with ExitStack() as cleanup:
        servers = [cleanup.enter_context(EmulatorServer()) for _ in range(EMULATORS)]
        stack = cleanup.enter_context(Stack())
        for number in SIGNALS:
            signal.signal(number, signal.default_int_handler)  # ends the session, with this fixture's end
        connections = {
            f"AIRFLOW_CONN_{_connection_id(number).upper()}": _for_crashes(server.connection_json())
            for number, server in enumerate(servers)
        }
        shared = Emulator(servers[0].url, servers[0].connection_json())
        # With so many processes, SQLite deadlocks the API server until schedulers and triggerers give up.
        install_services(stack)
        database = {DATABASE_VARIABLE: f"postgresql+psycopg2://{start_postgres(stack)}"}
        deployment = Deployment(stack, shared, **CRASH_SETTINGS, **connections, **database)
        airflow = OneAtATime(deployment, stack.home, servers[0].control)
        deployment.start()
        airflow.start_triggerer()
        airflow.until_up(dags=DAG_COUNT)
        board = Board(airflow)
        watcher = threading.Thread(target=board.watch, name="board")
        watcher.start()
        try:
            yield World(airflow, board, [server.control for server in servers])
        finally:
            board.stop()
            watcher.join()
            deaths = sum(path.read_text().count('"crash"') for path in stack.home.glob("effects/*/*"))
            deaths_text = f"{deaths} deaths of processes in {len(board.tasks)} runs"
            pytestconfig.stash.setdefault(MEASURED, []).append(deaths_text)
        for child in reversed(deployment.components):
            child.stop()
    assert living(stack.home) == []


@pytest.fixture(scope="session")
def stories(world: World, request: pytest.FixtureRequest) -> Iterator[dict[Story, Future[None]]]:
    """All selected stories, run concurrently: each in a thread, because most of its time is waiting."""
    asked = [getattr(item, "callspec", None) for item in request.session.items]
    selected = [spec.params["story"] for spec in asked if spec and "story" in spec.params]
    with ThreadPoolExecutor(max_workers=len(selected) or 1) as threads:
        yield {story: threads.submit(story, world) for story in selected}


pytest_terminal_summary = show_measured
