"""No secret of a run can be read anywhere, even if the server repeats all secrets in many encodings and places."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import pickle
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_astrobpm._airflow import version_compat
from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.client.errors import AstroZeroError
from airflow_provider_astrobpm.hooks import masking
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator
from tests.support.echoing import BPM, ENCODED_AT_ONCE, ENCODINGS, PLACES, EchoingServer, shown_in

CLIENT_SECRET = "the/client&secret <of>=\"a\" 'test' + 100%41"
DAG_FILE = Path(__file__).parent / "dags" / "echoes.py"
PROXY = "http://somebody:the%2Fpassword%26of-a-proxy@127.0.0.1"
ROUNDS = len(ENCODINGS) // ENCODED_AT_ONCE  # until every encoding was used


@pytest.fixture
def server() -> Iterator[EchoingServer]:
    with EchoingServer().running() as running:
        running.secrets.append(CLIENT_SECRET)
        yield running


@pytest.fixture(autouse=True)
def nothing_is_masked_by_airflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Turn off Airflow's masking, so that only what was never written is absent."""
    real = version_compat.secrets_masker()
    before, replacer = set(real.patterns), real.replacer

    async def amask(_secret: str) -> None:
        """Mask nothing."""

    monkeypatch.setattr(masking, "mask_secret", lambda _secret: None)
    monkeypatch.setattr(masking, "amask_secret", amask)
    monkeypatch.setattr(type(real), "add_mask", lambda *_arguments: None)
    real.patterns, real.replacer = set(), None
    yield
    real.patterns, real.replacer = before, replacer


class Written:
    """Everything that can be read about a run, with the transcripts in a folder."""

    def __init__(
        self, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], transcripts: Path
    ) -> None:
        self._caplog, self._capfd, self._transcripts = caplog, capfd, transcripts
        self.texts: list[str] = []

    def add(self, *things: Any) -> None:
        for thing in things:
            if isinstance(thing, BaseException):
                self._add_error(thing)
            else:
                self.texts += [str(thing), repr(thing)]

    def _add_error(self, error: BaseException) -> None:
        self.texts.append("".join(traceback.format_exception(error)))
        pending: list[BaseException | None] = [error]
        while pending:
            each = pending.pop()
            if each is not None:
                self.texts += [str(each), repr(each), repr(each.args), repr(vars(each))]
                pending += [each.__cause__, each.__context__]
        if isinstance(error, AstroZeroError):
            self.texts.append(pickle.dumps(error).decode("latin-1"))

    def all(self) -> str:
        logged = [
            f"{record.getMessage()} {record.exc_info} {record.exc_text}" for record in self._caplog.records
        ]
        transcripts = [path.read_text() for path in self._transcripts.glob("*.jsonl")]
        assert '"request":' in "".join(transcripts)
        return "\n".join([*self.texts, self._caplog.text, *logged, *self._capfd.readouterr(), *transcripts])


@pytest.fixture
def transcripts(tmp_path: Path) -> Path:
    """The folder in which all connections of a test record."""
    return tmp_path / "transcripts"


@pytest.fixture
def written(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], transcripts: Path
) -> Written:
    caplog.set_level(logging.DEBUG)
    for name in ("urllib3", "requests", "aiohttp", "asyncio", "tenacity", "airflow"):
        caplog.set_level(logging.DEBUG, logger=name)
    return Written(caplog, capfd, transcripts)


def check(server: EchoingServer, text: str, *others: str) -> None:
    """Search for every secret of a run in every encoding."""
    secrets = [*server.secrets, *others]
    shown = {secret: shown_in(text, secret) for secret in secrets}
    assert not {secret: names for secret, names in shown.items() if names}


Connect = Callable[..., None]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch, transcripts: Path) -> Connect:
    """Set the connection of the test."""

    def connect(url: str, conn_id: str = "astro_zero_default", **extra: Any) -> None:
        connection = {"conn_type": "astro_zero", "host": url, "login": "client", "password": CLIENT_SECRET}
        patient = {
            "max_attempts": 1,
            "max_wait": 0.01,
            "start_grace": 0.1,
            "record": str(transcripts),
            **extra,
        }
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({**connection, "extra": patient}))

    return connect


CALLS: dict[str, Callable[[], operations.Operation[Any]]] = {
    "token": lambda: operations.query("Running"),
    "csrf": lambda: operations.change_state("002N1", "suspend"),
    "query": lambda: operations.query("Running"),
    "start": lambda: operations.start(BPM),
}


def ends_in_thread(make: Callable[[], operations.Operation[Any]], count: int) -> list[Any]:
    """Return the results of some calls, or their errors."""
    ends: list[Any] = []
    hook = AstroZeroHook()
    for _ in range(count):
        try:
            ends.append(hook.client.call(make()))
        except AstroZeroError as error:
            ends.append(error)
    hook.client.close()
    return ends


def ends_in_loop(make: Callable[[], operations.Operation[Any]], count: int) -> list[Any]:
    """Do what ``ends_in_thread`` does, in an event loop."""

    async def ends() -> list[Any]:
        async with AstroZeroHook().async_client() as client:
            calls = [client.call(make()) for _ in range(count)]
            return [(await asyncio.gather(call, return_exceptions=True))[0] for call in calls]

    return asyncio.run(asyncio.wait_for(ends(), 30))


@pytest.mark.parametrize("ends_of", [ends_in_thread, ends_in_loop], ids=["sync", "async"])
@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("place", PLACES)
def test_no_call_leaks_a_secret(
    place: str,
    kind: str,
    ends_of: Callable[[Callable[[], operations.Operation[Any]], int], list[Any]],
    server: EchoingServer,
    connect: Connect,
    written: Written,
) -> None:
    connect(server.url(place, kind), csrf=True)
    ends = ends_of(CALLS[kind], ROUNDS)
    for end in ends:
        written.add(end)
    assert server.answered.count((place, kind)) >= ROUNDS
    assert all(isinstance(end, AstroZeroError) for end in ends) or place in ("row", "list", "rows", "result")
    check(server, written.all())


@pytest.mark.parametrize("ends_of", [ends_in_thread, ends_in_loop], ids=["sync", "async"])
def test_a_proxy_that_refuses_the_tunnel_leaks_no_secret(
    ends_of: Callable[[Callable[[], operations.Operation[Any]], int], list[Any]],
    server: EchoingServer,
    connect: Connect,
    written: Written,
) -> None:
    connect("https://somewhere.invalid", proxy=f"{PROXY}:{server.port}")
    ends = ends_of(CALLS["query"], ROUNDS)
    for end in ends:
        written.add(end)
        assert "HTTP 407" in str(end) or "407 " in str(end)
    assert len(server.answered) >= ROUNDS
    assert "the/password&of-a-proxy" in server.secrets
    check(server, written.all())


@pytest.mark.parametrize("ends_of", [ends_in_thread, ends_in_loop], ids=["sync", "async"])
def test_a_proxy_that_answers_for_the_server_leaks_no_secret(
    ends_of: Callable[[Callable[[], operations.Operation[Any]], int], list[Any]],
    server: EchoingServer,
    connect: Connect,
    written: Written,
) -> None:
    connect("http://somewhere.invalid", proxy=f"{PROXY}:{server.port}", allow_http=True)
    for end in ends_of(CALLS["query"], ROUNDS):
        written.add(end)
    assert server.answered == [("refused", "proxied")] * len(server.answered)
    assert "the/password&of-a-proxy" in server.secrets
    check(server, written.all())


MODES: dict[str, dict[str, Any]] = {
    "on_worker": {"deferrable": False},
    "deferred": {"deferrable": True},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["start", "query"])
@pytest.mark.parametrize("place", ["refused", "failed", "status_line", "header", "row", "list", "rows"])
def test_a_task_leaks_no_secret(
    place: str,
    kind: str,
    mode: str,
    server: EchoingServer,
    connect: Connect,
    written: Written,
    make_runner: Any,
) -> None:
    connect(server.url(place, kind))

    def make() -> AstroZeroStartBpmInstanceOperator:
        return AstroZeroStartBpmInstanceOperator(
            task_id="task", bpm_name=BPM, poll_interval=1, max_poll_failure_time=0.1, **MODES[mode]
        )

    runner = make_runner()
    written.add(runner.end_of(make), runner.ti.xcoms, runner.event)
    for deferral in runner.deferrals:
        written.add(deferral.trigger.serialize(), deferral.kwargs, json.dumps(runner.event))
    assert (place, kind) in server.answered
    check(server, written.all())


@pytest.mark.usefixtures("airflow_database")
@pytest.mark.filterwarnings("ignore")  # Airflow and its dependencies emit unrelated warnings here
def test_a_dag_run_leaks_no_secret(
    server: EchoingServer, connect: Connect, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Search everything that Airflow has written about a run: its logs, its database, and the errors that callbacks get."""
    bundle = {
        "name": "echoes",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(DAG_FILE.parent)},
    }
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))
    spec = importlib.util.spec_from_file_location("echoes", DAG_FILE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for conn_id, (place, kind) in module.PLACES.items():
        connect(server.url(place, kind), conn_id)
    ended = {ti.task_id: str(ti.state) for ti in module.dag.test().get_task_instances()}
    good = {"started_on_worker", "started_deferred", "batch", "queried"}
    assert {task_id for task_id, state in ended.items() if state == "success"} >= good
    assert {task_id for task_id, state in ended.items() if state == "failed"} >= set(module.PLACES) - good - {
        "told"
    }
    assert len(module.ended) >= len(set(module.PLACES) - good - {"told"})
    assert set(server.answered) == set(module.PLACES.values())
    home = Path(os.environ["AIRFLOW_HOME"])
    with closing(sqlite3.connect(home / "airflow.db")) as database:
        database.text_factory = lambda raw: raw.decode(errors="replace")
        tables = "\n".join(database.iterdump())
    for told in ("002N00000000001", "rendered_task_instance_fields", "xcom", "ufffd"):
        assert told in tables
    written.add(*module.ended, tables)
    written.add(*(path.read_text(errors="replace") for path in home.rglob("*.log")))
    check(server, written.all())
