"""A local emulator and a local Airflow, each in its own process session, with a scratch folder.

``Stack`` starts them. When the script ends, for whatever reason, it stops all of their processes and removes the folder.
``Deployment`` is an Airflow with separate components, as in production, which can be stopped one by one.
The callers decide what runs: ``demo.py``, ``up.py``, ``newcomer.py``, ``tests/deployment`` and ``tests/ha``.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType

    from typing_extensions import Self

ROOT = Path(__file__).resolve().parent.parent
CONNECTION_VARIABLE = "AIRFLOW_CONN_ASTRO_ZERO_DEFAULT"
DATABASE_VARIABLE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Whom = Literal["all", "first", "others"]
_Found = TypeVar("_Found")


class StackError(Exception):
    """A process did not start or end as expected; the message says which one, and shows its last output."""


class Stopped(SystemExit):
    """A signal told the script to end."""


@dataclass(frozen=True)
class Emulator:
    """The address of the emulator, and the Airflow connection to it (as JSON)."""

    url: str
    connection: str


class Child:
    """A process and all its descendants, with its output in a file."""

    def __init__(
        self, name: str, command: list[str], env: dict[str, str], log: Path, folder: Path = ROOT
    ) -> None:
        self.name = name
        self.log = log
        self.end_with = signal.SIGTERM
        with log.open("wb") as output:
            # A session, not a process group: Airflow's children create their own groups.
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def exit_code(self) -> int | None:
        """The exit code, or None while the process runs."""
        return self._process.poll()

    def output(self) -> str:
        """Return the output so far."""
        return self.log.read_text(errors="replace")

    def failure(self, what: str, lines: int = 25) -> StackError:
        """Return an error that says ``what`` and shows the last ``lines`` of the output."""
        tail = "\n".join(f"  | {line}" for line in self.output().splitlines()[-lines:])
        return StackError(f"{self.name}: {what}\n{tail}")

    def wait_for(self, what: str, find: Callable[[], _Found | None], seconds: float) -> _Found:
        """Call ``find`` until it returns something other than None, and return that.

        :param what: the awaited thing, for error messages.
        :param seconds: the time limit.
        :raises StackError: if the process ends or the time limit passes first.
        """
        deadline = time.monotonic() + seconds
        while (found := find()) is None:
            if self.exit_code is not None:
                raise self.failure(f"ended with exit code {self.exit_code} before {what}")
            if time.monotonic() > deadline:
                raise self.failure(f"no {what} within {seconds:.0f} s")
            time.sleep(0.2)
        return found

    def wait_for_end(self, seconds: float) -> int:
        """Wait for the end of the process, and return its exit code.

        :param seconds: the time limit.
        :raises StackError: if the process is still running then.
        """
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise self.failure(f"still running after {seconds:.0f} s") from None

    def stop(self, patience: float = 6) -> None:
        """End every process of the session. Kill those that are left after ``patience`` seconds."""
        for request, seconds in ((self.end_with, patience), (signal.SIGKILL, 5.0)):
            asked: set[int] = set()
            deadline = time.monotonic() + seconds
            while (members := self.members()) and time.monotonic() < deadline:
                for process in members:
                    if process.pid not in asked:  # includes processes that were started meanwhile
                        asked.add(process.pid)
                        with suppress(psutil.NoSuchProcess):
                            process.send_signal(request)
                time.sleep(0.05)
        self._process.wait()

    def signal(self, number: int, whom: Whom = "all") -> None:
        """Send a signal.

        :param whom: the processes of the session that receive it: the first process and then its descendants, only the
            first process, or only the descendants.
        """
        members = self.members()
        first = [process for process in members if process.pid == self._process.pid]
        others = [process for process in members if process.pid != self._process.pid]
        for process in {"all": first + others, "first": first, "others": others}[whom]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def members(self) -> list[psutil.Process]:
        """Return the living processes of the session."""
        self._process.poll()
        return [process for process in psutil.process_iter() if self._owns(process)]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            return os.getsid(process.pid) == self._process.pid and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, psutil.Error):  # it has ended, or belongs to another user
            return False


class Stack:
    """A scratch folder and its processes. Leaving the ``with`` block stops the processes and removes the folder."""

    def __init__(self) -> None:
        self._cleanup = ExitStack()
        self.home = Path()

    def __enter__(self) -> Self:
        """Create the folder, and turn signals into a clean exit."""
        self._cleanup.enter_context(_signals_end_the_script())
        folder = tempfile.TemporaryDirectory(prefix="astrobpm-", ignore_cleanup_errors=True)
        self.home = Path(self._cleanup.enter_context(folder))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all processes, newest first, then remove the folder. A second Ctrl-C does not interrupt this."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        self._cleanup.__exit__(kind, error, trace)

    def start(self, name: str, command: list[str], env: dict[str, str], folder: Path = ROOT) -> Child:
        """Start ``command``, with its output in a file in the scratch folder.

        :param folder: the working directory.
        """
        child = Child(name, command, env, self.home / f"{name.replace(' ', '-')}.log", folder)
        self._cleanup.callback(child.stop)
        return child

    def run(self, name: str, command: list[str], env: dict[str, str], seconds: float) -> None:
        """Run ``command`` until it ends.

        :raises StackError: if it takes longer than ``seconds``, or fails.
        """
        child = self.start(name, command, env)
        code = child.wait_for_end(seconds)
        if code != 0:
            raise child.failure(f"ended with exit code {code}")

    def start_emulator(self, seconds: float = 20) -> Emulator:
        """Start the emulator on a free port and return once it answers.

        :param seconds: the time limit.
        """
        command = [sys.executable, "-m", "airflow_provider_astrobpm.emulator", "--port", "0"]
        child = self.start("emulator", command, environment())
        return child.wait_for("emulator's address", lambda: parse_emulator(child.output()), seconds)

    def airflow_environment(
        self, emulator: Emulator, programs: str | None = None, **settings: str
    ) -> dict[str, str]:
        """Return the environment of an Airflow that writes only to the scratch folder.

        :param programs: the folder of Airflow's programs, if it is not installed beside this Python.
        :param settings: other variables, by name; they override those that are set here.
        """
        return {
            **environment(programs),
            "AIRFLOW_HOME": str(self.home),
            CONNECTION_VARIABLE: emulator.connection,
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "example_dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            **settings,
        }


class Deployment:
    """An Airflow whose components are separate processes with one database.

    Its API requires no login. Only :meth:`start_triggerer` starts triggerers. Only :meth:`start_worker` starts workers,
    which not every executor needs.

    :param programs: the folder of Airflow's programs, if it is not installed beside this Python.
    :param settings: other environment variables, by name. If none sets the database, it is a file in the scratch folder.
    """

    def __init__(
        self, stack: Stack, emulator: Emulator, programs: str | None = None, **settings: str
    ) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self.database_url = settings.get(DATABASE_VARIABLE)
        """The address of the database, if the settings have one."""
        self.database = None if self.database_url else stack.home / "airflow.db"
        """The file of the database, if the settings have no address."""
        self.components: list[Child] = []
        self._stack = stack
        self._triggerers = count(1)
        self._workers = count(1)
        self.environment = stack.airflow_environment(
            emulator,
            programs,
            AIRFLOW__API__BASE_URL=self.url,
            AIRFLOW__API__HOST="127.0.0.1",
            AIRFLOW__API__PORT=str(port),
            AIRFLOW__API__WORKERS="1",
            # Otherwise each process would generate its own.
            AIRFLOW__API__SECRET_KEY=secrets.token_hex(),
            AIRFLOW__API_AUTH__JWT_SECRET=secrets.token_hex(),
            AIRFLOW__CORE__FERNET_KEY=base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            AIRFLOW__CORE__EXECUTION_API_SERVER_URL=f"{self.url}/execution/",
            AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True",
            **settings,
        )
        """The environment of its components."""

    def start(self) -> None:
        """Create the database and start every component except triggerers. Does not wait until they are ready."""
        self.create_database()
        self._start("api-server", "api-server")
        self._start("scheduler", "scheduler", "--skip-serve-logs")
        self._start("dag-processor", "dag-processor")

    def create_database(self, seconds: float = 120) -> None:
        """Create the database.

        :param seconds: the time limit.
        """
        self._stack.run("airflow db migrate", ["airflow", "db", "migrate"], self.environment, seconds)
        if self.database is not None:
            with closing(sqlite3.connect(self.database)) as connection:
                # Several processes write; readers must not block them.
                connection.execute("PRAGMA journal_mode=WAL")

    def start_triggerer(self, *options: str) -> Child:
        """Start a triggerer, which is ready some seconds later.

        :param options: more options of ``airflow triggerer``.
        """
        return self._start(f"triggerer-{next(self._triggerers)}", "triggerer", "--skip-serve-logs", *options)

    def start_worker(self) -> Child:
        """Start a Celery worker, which is ready some seconds later."""
        name = f"worker-{next(self._workers)}"
        # The workers share one home, so each needs its own PID file.
        own = ["--celery-hostname", name, "--pid", str(self._stack.home / f"{name}.pid")]
        return self._start(name, "celery", "worker", "--skip-serve-logs", *own)

    def _start(self, name: str, *command: str) -> Child:
        # By this name PostgreSQL shows which component a connection belongs to. Not in the repository, from whose folder Python could
        # import the provider.
        child = self._stack.start(
            name, ["airflow", *command], {**self.environment, "PGAPPNAME": name}, self._stack.home
        )
        self.components.append(child)
        return child


def free_port() -> int:
    """Return a port of the loopback interface that is currently unused."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _signals_end_the_script() -> Iterator[None]:
    """Make SIGINT, SIGTERM and SIGHUP raise ``Stopped``, so that every ``finally`` runs."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise Stopped(128 + number)

    before = {number: signal.signal(number, leave) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def environment(programs: str | None = None) -> dict[str, str]:
    """Return this process's environment without Airflow settings, and without a proxy for the loopback interface.

    :param programs: the programs of another Python, which come first on the PATH. Variables that select a Python, or change what it
        imports, are left out then.
    """
    others = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE"} if programs else set()
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("AIRFLOW") and name not in others
    }
    return {
        **kept,
        "PATH": os.pathsep.join(
            [programs or sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]
        ),
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def living(home: Path) -> list[str]:
    """Return every process that uses the folder ``home`` as AIRFLOW_HOME or as its working directory."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            works_in_it = Path(process.cwd()).is_relative_to(home)
            if works_in_it or process.environ().get("AIRFLOW_HOME") == str(home):
                found.append(f"{process.pid} {process.name()}")
    return found


def parse_emulator(output: str) -> Emulator | None:
    """Parse the address and the connection from the output of the emulator's start; None if they are not there yet."""
    export = re.search(rf"export ({CONNECTION_VARIABLE}=.*)\n", output)
    address = re.search(r"https?://[^\s'\"]+", output)
    if not export or not address:
        return None
    (assignment,) = shlex.split(export.group(1))
    return Emulator(url=address.group().rstrip("/"), connection=assignment.partition("=")[2])
