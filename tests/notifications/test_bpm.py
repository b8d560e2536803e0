"""Tests of the notifier against the emulator, in a thread and in an event loop. In ``tests/deployment`` Airflow calls it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.notifier import BaseNotifier

from airflow_provider_astrobpm.client.settings import Settings, StaticToken
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.notifications.bpm import AstroZeroStartBpmNotifier, _with_short_timeouts
from airflow_provider_astrobpm.starting.incident import IncidentKey

BPM = "SupplierOnboarding"
TI = SimpleNamespace(dag_id="orders", run_id="r1", task_id="load", map_index=-1, try_number=1)
KEY = IncidentKey(dag_id="orders", run_id="r1", task_id="load", number=1).key()

Report = Callable[..., None]


def failure(**changes: Any) -> dict[str, Any]:
    """The context of a task's callback, as far as the notifier uses it."""
    ti = SimpleNamespace(**{**vars(TI), **changes})
    return {"ti": ti, "run_id": ti.run_id, "dag": None, "exception": RuntimeError("{{ 7 * 6 }} is no number")}


HAS_DEADLINES = hasattr(BaseNotifier, "__await__")  # from Airflow 3.1 on


@pytest.fixture(params=["in a thread", "in an event loop"] if HAS_DEADLINES else ["in a thread"])
def report(request: pytest.FixtureRequest) -> Report:
    """Report as Airflow does: by calling a notifier, or by awaiting one that has a context."""

    def call(context: Any = None, **arguments: Any) -> None:
        AstroZeroStartBpmNotifier(**{"bpm_name": BPM, **arguments})(failure() if context is None else context)

    def wait_for(context: Any = None, **arguments: Any) -> None:
        async def main() -> None:
            notifier: Any = AstroZeroStartBpmNotifier
            event = failure() if context is None else context
            await notifier(**{"bpm_name": BPM, **arguments}, context=event)

        asyncio.run(main())

    return call if request.param == "in a thread" else wait_for


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    return lambda: capsys.readouterr().out + caplog.text


@pytest.fixture
def make_conn(emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Change the connection."""

    def make(*, extra: dict[str, Any] | None = None, **fields: Any) -> None:
        connection = {**json.loads(emulator_server.connection_json()), "extra": extra or {}, **fields}
        monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))

    return make


def test_repeated_reports_start_one_process(
    report: Report, emulator: EmulatorControl, said: Callable[[], str], make_conn: Callable[..., None]
) -> None:
    make_conn(extra={"instance_url": "https://{host}/i/{instance_id}"})
    report(
        variables={"supplier": "{{ exception }}", "country": "{{ ti.task_id }}"},
        title="{{ ti.dag_id }} has failed",
    )
    (instance,) = emulator.instances()
    assert (instance["business_key"], instance["title"]) == (KEY, "orders has failed")
    assert instance["variables"]["country"] == "load"
    assert instance["variables"]["supplier"] == "{{ 7 * 6 }} is no number", (
        "rendered values are not rendered again"
    )
    words = said()
    assert f"Reporting try 1 of task 'load' of DAG 'orders', run 'r1' to BPM '{BPM}'" in words
    assert f"Started instance '{instance['id']}'" in words
    assert f"/i/{instance['id']}" in words

    report()
    emulator.move(instance["id"], state="Completed OK")
    report()
    assert emulator.counts()["start"] == 1
    assert f"Nothing was started: this was already reported to instance '{instance['id']}'" in said()

    report(failure(try_number=2))
    assert emulator.counts()["start"] == 2


@pytest.mark.parametrize(
    ("arguments", "title"),
    [
        ({}, "orders.load, try 1 (run r1)"),
        ({"business_key": "own"}, "orders.load, try 1 (run r1)"),
        ({"title": "own"}, "own"),
        ({"variables": {"$Flow.Title": "of the variables"}}, "of the variables"),
    ],
)
def test_default_title(
    arguments: dict[str, Any], title: str, report: Report, emulator: EmulatorControl
) -> None:
    report(**arguments)
    (instance,) = emulator.instances()
    assert instance["title"] == title


def test_no_title_without_a_dag_run(report: Report, emulator: EmulatorControl) -> None:
    report({}, business_key="own")
    assert len(emulator.instances()) == 1


def test_one_notifier_serves_many_incidents(emulator: EmulatorControl) -> None:
    notifier = AstroZeroStartBpmNotifier(
        bpm_name=BPM, title="{{ ti.task_id }}", variables={"country": "{{ run_id }}"}
    )
    notifier(failure(task_id="load"))
    notifier(failure(task_id="store", run_id="r2"))
    seen = {(one["title"], one["variables"]["country"]) for one in emulator.instances()}
    assert seen == {("load", "r1"), ("store", "r2")}
    assert notifier.title == "{{ ti.task_id }}"


def test_a_custom_business_key(report: Report, emulator: EmulatorControl) -> None:
    for _ in range(2):
        report(business_key="orders-{{ run_id }}")
    report({"dag": None, "run_id": "r2"}, business_key="orders-{{ run_id }}")
    assert {one["business_key"] for one in emulator.instances()} == {"orders-r1", "orders-r2"}
    assert emulator.counts()["start"] == 2


def test_reports_the_same_incident_to_another_bpm(report: Report, emulator: EmulatorControl) -> None:
    report()
    report(bpm_name="PublishApproval")
    assert {one["name"] for one in emulator.instances()} == {BPM, "PublishApproval"}


@pytest.mark.parametrize("fault", ["drop_after", "truncate", "not_json"])
def test_finds_the_instance_of_a_lost_start(
    fault: str,
    report: Report,
    emulator: EmulatorControl,
    said: Callable[[], str],
    make_conn: Callable[..., None],
) -> None:
    make_conn(extra={"start_grace": 0.2})
    emulator.fault("start", fault, **({"work_done": True} if fault == "not_json" else {}))
    report()
    (instance,) = emulator.instances()
    assert f"Started instance '{instance['id']}'" in said()
    assert emulator.counts()["start"] == 1


def test_logs_a_start_that_stays_in_doubt(
    report: Report, emulator: EmulatorControl, said: Callable[[], str], make_conn: Callable[..., None]
) -> None:
    make_conn(extra={"start_grace": 0.2})
    emulator.fault("start", "drop_before")
    report()
    words = said()
    assert "It was not started again. Search for an instance of" in words
    assert KEY in words
    assert emulator.instances() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"bpm_name": "NoSuch"}, "RefusedError"),
        ({"title": "{{ none }}", "business_key": "  "}, "business_key must be a text that is not blank"),
        ({"business_key": "{{ none }}"}, "business_key must not be 'None': a template renders this"),
        ({"version": "{{ none }}"}, "version must not be 'None'"),
        ({"title": "a\0b"}, "title must be a text without NUL"),
        ({"title": "{{ nothing.at.all }}"}, "'nothing' is undefined"),
        ({"title": "{{ unclosed"}, "TemplateSyntaxError"),
        ({"context": {"dag": None}}, "give the notifier a business_key"),
        ({"astro_zero_conn_id": "no_such"}, "no_such"),
    ],
)
def test_logs_errors_and_does_not_raise_them(
    arguments: dict[str, Any], words: str, report: Report, emulator: EmulatorControl, said: Callable[[], str]
) -> None:
    report(**arguments)
    logged = said()
    assert "Could not confirm that a process was started" in logged
    assert words in logged
    assert emulator.instances() == []


def test_logs_refused_credentials_without_showing_them(
    report: Report, emulator: EmulatorControl, said: Callable[[], str], make_conn: Callable[..., None]
) -> None:
    make_conn(password="wrong-secret-of-the-test")
    report()
    words = said()
    assert "AuthenticationError" in words
    assert "Check the login" in words
    assert "wrong-secret-of-the-test" not in words


def test_gives_up_soon_if_the_server_is_down(
    report: Report,
    emulator: EmulatorControl,
    said: Callable[[], str],
    free_port: int,
    make_conn: Callable[..., None],
) -> None:
    make_conn(host="127.0.0.1", port=free_port)
    began = time.monotonic()
    report()
    assert time.monotonic() - began < 10
    assert "the server could not be reached" in said()


@pytest.mark.skipif(not HAS_DEADLINES, reason="Airflow awaits notifiers from 3.1 on")
def test_the_event_loop_keeps_running_while_the_notifier_waits_for_answers(
    emulator: EmulatorControl, emulator_server: EmulatorServer, make_conn: Callable[..., None]
) -> None:
    """Every request goes through a relay on the notifier's own event loop: a blocked loop would never get an answer."""
    relayed = 0

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while chunk := await source.read(65536):
            target.write(chunk)
            await target.drain()
        target.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal relayed
        relayed += 1
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", emulator_server.port)
        await asyncio.gather(copy(reader, upstream_writer), copy(upstream_reader, writer))

    async def main() -> None:
        async with await asyncio.start_server(relay, "127.0.0.1", 0) as relay_server:
            make_conn(host="127.0.0.1", port=relay_server.sockets[0].getsockname()[1])
            await AstroZeroStartBpmNotifier(bpm_name=BPM, context=failure())  # type: ignore[arg-type]

    asyncio.run(asyncio.wait_for(main(), 60))
    assert relayed
    assert len(emulator.instances()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"bpm_name": ""}, "bpm_name must be a text"),
        ({"bpm_name": None}, "bpm_name must be a text"),
        ({"variables": "a=1"}, "variables must be a mapping"),
        ({"variables": {"a": object()}}, "variables.'a'. cannot be sent"),
    ],
)
def test_bad_arguments_fail_when_the_dag_is_parsed(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AstroZeroStartBpmNotifier(**{"bpm_name": BPM, **arguments})


def test_a_template_rendered_to_none_starts_nothing(
    emulator: EmulatorControl, said: Callable[[], str]
) -> None:
    notifier = AstroZeroStartBpmNotifier(bpm_name=BPM, business_key="{{ a template }}")
    notifier.business_key = None
    notifier.notify(failure())  # type: ignore[arg-type]
    assert "business_key was provided, but rendered as None" in said()
    assert not any(emulator.counts().values())


def test_template_fields_are_arguments() -> None:
    notifier = AstroZeroStartBpmNotifier(bpm_name=BPM)
    for field in notifier.template_fields:
        assert hasattr(notifier, field)


def test_keeps_the_read_timeout() -> None:
    settings = Settings("conn", "https://host.example", StaticToken("t"), connect_timeout=10, read_timeout=30)
    hasty = _with_short_timeouts(settings)
    assert (hasty.connect_timeout, hasty.max_attempts, hasty.max_wait) == (3, 2, 3)
    assert (hasty.read_timeout, hasty.answer_timeout) == (30, 300)
    quicker = replace(settings, connect_timeout=1, max_attempts=1, max_wait=0.5)
    assert _with_short_timeouts(quicker) == quicker
