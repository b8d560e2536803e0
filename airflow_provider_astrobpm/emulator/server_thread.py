"""Run an emulator: in the running event loop, or in its own thread for tests and scripts."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.emulator_state import Emulator, EmulatorSettings
from airflow_provider_astrobpm.emulator.replay import Replay
from airflow_provider_astrobpm.emulator.transcript_reader import read_transcript
from airflow_provider_astrobpm.emulator.web_app import make_app

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from typing_extensions import Self

# Short: stopping the emulator does not wait for requests that hang in a fault.
_SHUTDOWN_TIMEOUT_SECONDS = 0.1
_STOP_TIMEOUT_SECONDS = 10.0


@asynccontextmanager
async def listening(
    emulator: Emulator, host: str = "127.0.0.1", port: int = 0, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve an emulator, and yield its port.

    :param port: the port; 0 for a free port.
    :raises OSError: if the address is in use or does not exist.
    """
    runner = web.AppRunner(make_app(emulator), access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT_SECONDS)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=ssl_context)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        # Over TLS a clean close waits for the client, longer than this loop runs.
        transports = [each.transport for each in runner.server.connections] if runner.server else []
        await runner.cleanup()
        for transport in filter(None, transports):
            transport.abort()
        await asyncio.sleep(0)


def connection_json(
    emulator: Emulator, host: str, port: int, schema: str = "http", *, instance_url: str | None = None
) -> str:
    """Return the Airflow connection to an emulator, as JSON for an environment variable. In a replay it has the recorded extras.

    :param instance_url: the address of an instance's page, to which tasks link; by default tasks have no link.
    """
    settings = emulator.settings
    address: dict[str, object] = {"host": host, "port": port, "schema": schema}
    if settings.base_path:
        address = {"host": f"{schema}://{host}:{port}{settings.base_path}"}
    credentials = {"login": settings.client_id, "password": settings.client_secret}
    connection: dict[str, object] = {"conn_type": "astro_zero", **address, **credentials}
    extras = {} if emulator.replay is None else dict(emulator.replay.transcript.extras)
    if instance_url is not None:
        extras["instance_url"] = instance_url
    if extras:
        connection["extra"] = extras
    return json.dumps(connection)


class EmulatorServer:
    """An emulator in its own thread, on the loopback interface; a context manager.

    :param settings: the initial state.
    :param port: the port; 0 for a free port.
    :param ssl_context: serves the API over TLS. The control API then listens on a separate plain port, because TLS may
        require client certificates.
    """

    def __init__(
        self,
        settings: EmulatorSettings | None = None,
        *,
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.settings = settings or EmulatorSettings()
        self.port = port
        self._ssl_context = ssl_context
        self._emulator = Emulator(self.settings)
        self._control_port = 0
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] | None = None

    @property
    def url(self) -> str:
        """The base URL for clients, including the base path if there is one."""
        return f"{self._schema}://127.0.0.1:{self.port}{self.settings.base_path}"

    @property
    def control(self) -> EmulatorControl:
        """The control API of this emulator."""
        return EmulatorControl(f"http://127.0.0.1:{self._control_port}")

    @property
    def current_replay(self) -> Replay | None:
        """The replay that answers now, if any."""
        return self._emulator.replay

    def connection_json(self) -> str:
        """Return the Airflow connection to this emulator, as JSON. In a replay it has the recorded extras."""
        return connection_json(self._emulator, "127.0.0.1", self.port, self._schema)

    def replay(self, path: Path) -> Replay:
        """Answer every request to the API from a transcript, until the emulator is reset.

        :param path: the transcript, or a folder of transcripts.
        :returns: the replay, which says which requests differed.
        :raises TranscriptError: if it cannot be read, or is no transcript.
        """
        self._emulator.replay = Replay(read_transcript(path))
        return self._emulator.replay

    def start(self) -> None:
        """Start listening. After a stop it listens on the same port and has kept its state.

        :raises OSError: if the port is in use.
        """
        if self._thread is not None:
            raise RuntimeError("the emulator is already running")
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(ready,), name="astro-zero-emulator", daemon=True
        )
        self._thread.start()
        try:
            ready.result()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Cut every connection and stop listening. Instances and tokens are kept for another start."""
        if self._thread is None:
            return
        if self._stop is not None:
            self._stop()
        self._thread.join(_STOP_TIMEOUT_SECONDS)
        if self._thread.is_alive():
            raise RuntimeError(f"the emulator did not stop within {_STOP_TIMEOUT_SECONDS:g} s")
        self._thread = self._stop = None

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """Refuse connections while the block runs, as a server that is down does."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _schema(self) -> str:
        return "https" if self._ssl_context else "http"

    def _run(self, ready: Future[None]) -> None:
        try:
            asyncio.run(self._serve(ready))
        except Exception as error:
            if ready.done():
                raise
            ready.set_exception(error)

    async def _serve(self, ready: Future[None]) -> None:
        stop = asyncio.Event()
        async with AsyncExitStack() as stack:
            self.port = await stack.enter_async_context(
                listening(self._emulator, port=self.port, ssl_context=self._ssl_context)
            )
            if self._ssl_context is None:
                self._control_port = self.port
            else:
                self._control_port = await stack.enter_async_context(
                    listening(self._emulator, port=self._control_port)
                )
            self._stop = partial(asyncio.get_running_loop().call_soon_threadsafe, stop.set)
            ready.set_result(None)
            await stop.wait()
