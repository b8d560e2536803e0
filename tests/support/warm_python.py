"""Start commands without their imports: a process that has imported them already forks for each ``python -m MODULE``.

An import of Airflow takes longer than most commands. ``warm`` replaces the beginning of a command line by a small program, which
has the standard streams, the environment, the working directory, the exit code and the signals of the command.
"""

from __future__ import annotations

import functools
import importlib
import io
import json
import os
import runpy
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_Request = tuple[dict[str, Any], list[int]]  # what is to run, and the standard streams

RELAY = Path(__file__).with_name("warm_python_relay.py")
IMPORTS = {
    "airflow_provider_astrobpm": [
        "airflow_provider_astrobpm.cli.definition",
        "airflow_provider_astrobpm.cli.doctor_command",
        "airflow_provider_astrobpm.hooks.astro_zero",
    ],
    "airflow": [
        "airflow.cli.cli_parser",
        "airflow.cli.simple_table",
        "airflow.models.dag",
        "airflow.models.dagbag",
    ],
}
"""The modules that are run, and what is imported beforehand."""

_END_SECONDS = 30.0
_LENGTH_BYTES = 8
_STREAMS = 3


def warm(command: Sequence[str]) -> list[str]:
    """Return a command that does the same as ``python -m MODULE …``, and is faster if the module is one of ``IMPORTS``."""
    module = command[2] if len(command) > 2 and list(command[:2]) == [sys.executable, "-m"] else None
    if module not in IMPORTS:
        return list(command)
    return [sys.executable, "-I", "-S", str(RELAY), _server().address, *command[2:]]


def write_commands(folder: Path) -> None:
    """Write the programs ``python`` and ``airflow``, for a ``PATH``, which run the modules of ``IMPORTS`` as ``warm`` does."""
    python, airflow = (shlex.join(warm([sys.executable, "-m", module])) for module in IMPORTS)
    texts = {
        "python": f'[ "$1 $2" = "-m airflow_provider_astrobpm" ] || exec {sys.executable} "$@"\nshift 2\nexec {python} "$@"',
        "airflow": f'exec {airflow} "$@"',
    }
    for name, text in texts.items():
        program = folder / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)


def pytest_unconfigure() -> None:
    if _server.cache_info().currsize:
        _server().close()
        _server.cache_clear()


class _WarmServer:
    """The process that forks. Its stdin tells it when to end."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="astrobpm-warm-")
        self.address = str(Path(self._folder.name) / "socket")
        code = f"from tests.support import warm_python; warm_python.serve({self.address!r})"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == b"ready\n"

    def close(self) -> None:
        """End the process and its children."""
        self._process.communicate(timeout=_END_SECONDS)
        self._folder.cleanup()


@functools.cache
def _server() -> _WarmServer:
    return _WarmServer()


# In the process that forks.


def serve(address: str) -> None:
    """Fork for each connection, and run a module in the child, until stdin is closed."""
    for modules in IMPORTS.values():
        for module in modules:
            importlib.import_module(module)
    if request := _Forks(address).await_request():
        _run(*request)


class _Forks:
    """Forks for each connection. The client may end the child by closing the connection."""

    def __init__(self, address: str) -> None:
        self._events = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._listener.listen(32)
        self._woken, self._wakes = socket.socketpair()
        self._wakes.setblocking(False)
        self._clients: dict[int, socket.socket] = {}
        signal.set_wakeup_fd(self._wakes.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C at the terminal is for pytest
        self._events.register(self._listener, selectors.EVENT_READ, self._accept)
        self._events.register(self._woken, selectors.EVENT_READ, self._reap)
        self._events.register(0, selectors.EVENT_READ, self._end)
        os.write(1, b"ready\n")

    def await_request(self) -> _Request | None:
        """Return, in a child, what it is to run and its streams; in the parent ``None`` when stdin was closed."""
        while True:
            for key, _ in self._events.select():
                if key.data == self._end:
                    self._end()
                    return None
                request: _Request | None = key.data()
                if request is not None:
                    return request

    def _accept(self) -> _Request | None:
        client, _ = self._listener.accept()
        length, streams, _, _ = socket.recv_fds(client, _LENGTH_BYTES, _STREAMS)
        with client.makefile("rb") as sent:
            request = json.loads(sent.read(int.from_bytes(length, "big")))
        child = os.fork()
        if not child:
            signal.set_wakeup_fd(-1)
            for each in (client, self._listener, self._woken, self._wakes, *self._clients.values()):
                each.close()
            self._events.close()
            return request, streams
        for stream in streams:
            os.close(stream)
        self._clients[child] = client
        client.sendall(f"{child}\n".encode())
        self._events.register(client, selectors.EVENT_READ, functools.partial(self._abandoned, child))
        return None

    def _abandoned(self, child: int) -> None:
        if child in self._clients:
            self._events.unregister(self._clients[child])
            os.kill(child, signal.SIGKILL)

    def _reap(self) -> None:
        self._woken.recv(4096)
        for child, client in list(self._clients.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                del self._clients[child]
                if client.fileno() in {key.fd for key in self._events.get_map().values()}:
                    self._events.unregister(client)
                with suppress(OSError):  # the client was killed
                    client.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
                client.close()

    def _end(self) -> None:
        for child in self._clients:
            os.kill(child, signal.SIGKILL)


def _run(request: dict[str, Any], streams: list[int]) -> None:
    """Become the process that was asked for. The interpreter then ends as it does after ``python -m``."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    for output in (sys.stdout, sys.stderr):
        assert isinstance(output, io.TextIOWrapper)
        output.reconfigure(
            line_buffering=output is sys.stderr or output.isatty(),
            write_through="PYTHONUNBUFFERED" in os.environ,
        )
    module, *arguments = request["arguments"]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
