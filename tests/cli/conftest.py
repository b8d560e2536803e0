"""Helpers to run commands against the emulator, in this process or in a new one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from airflow_provider_astrobpm.__main__ import main
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from tests.support.warm_python import warm

PATIENCE = 60.0
MODULE = (sys.executable, "-m", "airflow_provider_astrobpm")
AIRFLOW = (sys.executable, "-m", "airflow", "astro-zero")


class Done(NamedTuple):
    """The result of a finished command."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture(autouse=True)
def _default_sigint_handler() -> Iterator[None]:
    """Enable SIGINT for commands. A shell disables it for background jobs, and these tests may run in one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def run(emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process, connected to a freshly reset emulator."""
    del emulator

    def run_it(*arguments: str) -> Done:
        capsys.readouterr()
        try:
            main(list(arguments))
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Done(code, out, err)

    return run_it


def connection(server: EmulatorServer, **extra: object) -> str:
    return json.dumps({**json.loads(server.connection_json()), "extra": extra})


@pytest.fixture
def zone(emulator_server: EmulatorServer, emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the time zone of the emulator's timestamps on the connection."""
    del emulator
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", connection(emulator_server, timezone="UTC"))


def process(command: Sequence[str], *arguments: str, imports: bool = False, **options: Any) -> Done:
    """Run a command in a new process, without a terminal.

    :param imports: whether the process imports everything itself. Otherwise it is a fork of one that has done that.
    """
    line = [*command, *arguments]
    done = subprocess.run(
        line if imports else warm(line),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        **options,
    )
    assert "Traceback" not in done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


class Running:
    """A running command, whose stderr is read meanwhile."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.popen = popen
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stderr
        for line in self.popen.stderr:
            with self._news:
                self._lines.append(line.rstrip())
                self._news.notify_all()

    def wait_for_message(self, words: str) -> None:
        """Wait until a line on stderr contains some words."""
        with self._news:
            assert self._news.wait_for(lambda: any(words in line for line in self._lines), PATIENCE), (
                self._lines
            )

    def end(self) -> Done:
        """Wait until the command has ended, and return its result."""
        assert self.popen.stdout
        out = self.popen.stdout.read()
        code = self.popen.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return Done(code, out, "\n".join(self._lines))


@contextmanager
def running(command: Sequence[str], *arguments: str) -> Iterator[Running]:
    """Run a command in a new process, and kill it at the end."""
    with subprocess.Popen(
        warm([*command, *arguments]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as popen:
        try:
            yield Running(popen)
        finally:
            popen.kill()
