"""The metrics that reach Airflow's Stats, with the names in ``docs/observability.md``."""

from __future__ import annotations

import ast
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_astrobpm._airflow import stats
from airflow_provider_astrobpm._airflow.stats import METER, PREFIX, StatsMeter
from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.client.metrics import METRICS, NULL_METER, BufferedMeter
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
from tests.support.clocks import ManualClock
from tests.support.statsd_mapping import DROPPED, exported, mapped

ROOT = Path(__file__).parent.parent.parent
EXPORTED = {one.name for one in exported()}
PAGE = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")


class Stats:
    """Airflow's Stats, with the metrics that it received."""

    def __init__(self) -> None:
        self.handed: list[tuple[Any, ...]] = []
        self.fails = False

    def incr(self, name: str, count: int, tags: dict[str, str] | None = None) -> None:
        if self.fails:
            raise RuntimeError("no such host")
        self.handed.append((name, count, tags) if tags else (name, count))

    gauge = incr


@pytest.fixture
def airflow_stats() -> Stats:
    return Stats()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(100.0)


@pytest.fixture
def stats_meter(airflow_stats: Stats, clock: ManualClock) -> StatsMeter:
    made = StatsMeter(clock)
    vars(made).update(_stats=airflow_stats, _hostname="host.example", _has_names_without_tags=True)
    return made


def test_counts_are_flushed_once_a_second(
    stats_meter: StatsMeter, airflow_stats: Stats, clock: ManualClock
) -> None:
    for _ in range(1000):
        stats_meter.count("polls")
    assert airflow_stats.handed == []
    clock.now += 1
    stats_meter.count("polls")
    assert airflow_stats.handed == [("astro_bpm.polls", 1001)]
    stats_meter.count("polls")
    assert len(airflow_stats.handed) == 1


def test_flush_passes_on_the_rest_once(stats_meter: StatsMeter, airflow_stats: Stats) -> None:
    stats_meter.count("starts", 3)
    stats_meter.flush()
    stats_meter.flush()
    assert airflow_stats.handed == [("astro_bpm.starts", 3)]


@pytest.mark.parametrize("with_second_names", [True, False])
def test_tag_values_are_also_part_of_a_second_name(
    stats_meter: StatsMeter, airflow_stats: Stats, *, with_second_names: bool
) -> None:
    vars(stats_meter).update(_has_names_without_tags=with_second_names)
    stats_meter.count("requests", 2, kind="query")
    stats_meter.gauge("waiters", 5)
    stats_meter.flush()
    first = [
        ("astro_bpm.requests", 2, {"kind": "query"}),
        ("astro_bpm.waiters", 5, {"hostname": "host.example"}),
    ]
    second = [("astro_bpm.requests.query", 2), ("astro_bpm.waiters.host__example", 5)]
    assert sorted(airflow_stats.handed) == sorted([*first, *second] if with_second_names else first)


def test_gauge_is_passed_on_with_every_flush(stats_meter: StatsMeter, airflow_stats: Stats) -> None:
    vars(stats_meter).update(_has_names_without_tags=False)
    for change in (1, 1, -2):
        stats_meter.gauge("waiters", change)
        stats_meter.flush()
    assert [value for _, value, _ in airflow_stats.handed] == [1, 2, 0]


def test_failing_stats_are_logged_once_and_harmless(
    stats_meter: StatsMeter, airflow_stats: Stats, caplog: pytest.LogCaptureFixture
) -> None:
    airflow_stats.fails = True
    for _ in range(3):
        stats_meter.count("polls")
        stats_meter.flush()
    assert [record.message for record in caplog.records] == [
        "Sending metrics to Airflow failed; this process sends no more metrics"
    ]


@pytest.mark.parametrize("switch", [None, *stats.SWITCHES])
def test_meter_is_active_only_if_airflow_metrics_are_on(
    switch: str | None, monkeypatch: pytest.MonkeyPatch, emulator: EmulatorControl
) -> None:
    del emulator
    if switch:
        monkeypatch.setenv(f"AIRFLOW__METRICS__{switch.upper()}", "True")
    expected = METER if switch else NULL_METER
    assert stats.meter() is expected
    hook = AstroZeroHook()
    assert hook.client.meter is expected
    assert hook.make_async_client(hook.settings).meter is expected


def test_stats_library_is_not_loaded_if_metrics_are_off() -> None:
    code = (
        "import sys\n"
        "from airflow_provider_astrobpm._airflow import stats\n"
        "stats.prepare(); stats.meter().count('polls'); stats.meter().flush()\n"
        "assert 'statsd' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60, cwd=ROOT)


def test_fork_does_not_repeat_the_counts_of_its_parent() -> None:
    METER.count("polls", 3)
    try:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.write(writer, b"%d" % len(METER.take()[0]))
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(reader, 1) == b"0"
        os.close(reader)
        os.close(writer)
    finally:
        METER.clear()


# The documentation page.


def rows_of(title: str) -> list[list[str]]:
    """Return the cells of a table of the page, without its header."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_page_lists_every_metric() -> None:
    documented = {
        name.strip("`"): (kind, tag.strip("`"), meaning) for name, kind, tag, meaning in rows_of("Metrics")
    }
    expected = {
        f"{PREFIX}{name}": (metric.type, metric.tag or "", metric.meaning) for name, metric in METRICS.items()
    }
    assert documented == expected


def test_page_lists_every_kind_of_request() -> None:
    tree = ast.parse(Path(operations.__file__).read_text(encoding="utf-8"))
    values = [
        word.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for word in node.keywords
        if word.arg == "kind"
    ]
    kinds = {value.value for value in values if isinstance(value, ast.Constant)} | set(operations.ACTIONS)
    (sentence,) = re.findall(r"The kinds of requests are ([^.]*)\.", PAGE)
    assert set(re.findall(r"`(\w+)`", sentence)) == kinds


# A real Airflow process.


@pytest.fixture
def statsd() -> Iterator[tuple[int, list[str]]]:
    """A StatsD server: its port, and the messages that it received."""
    received: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def listen() -> None:
            while datagram := server.recv(65536):
                received.extend(datagram.decode().splitlines())

        thread = threading.Thread(target=listen)
        thread.start()
        port = server.getsockname()[1]
        yield port, received
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", port))
        thread.join(10)


RUN = """
import importlib.util, pathlib, threading, time
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl

emulator = EmulatorControl({url!r})

def person():
    while True:
        for instance in emulator.instances(state="Waiting for user interaction"):
            emulator.act(instance["id"], "approve")
        time.sleep(0.1)

threading.Thread(target=person, daemon=True).start()
spec = importlib.util.spec_from_file_location("gate", {path!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
dag = module.approval_gate()
dag.get_task("request_approval").poll_interval = 1
assert dag.test().state == "success"
"""


@pytest.mark.usefixtures("airflow_database")
@pytest.mark.long
def test_deferred_task_is_visible_in_statsd(
    statsd: tuple[int, list[str]], emulator: EmulatorControl, emulator_server: EmulatorServer
) -> None:
    port, received = statsd
    environment = os.environ | {
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(port),
    }
    path = str(ROOT / "example_dags" / "approval_gate.py")
    code = RUN.format(url=emulator_server.url, path=path)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    ours = [line.removeprefix("airflow.") for line in received if line.startswith(f"airflow.{PREFIX}")]
    totals: dict[str, int] = {}
    for line in ours:
        name, value, kind = re.fullmatch(r"([\w.-]+):(\d+)\|([cg])", line).groups()  # type: ignore[union-attr]
        known = METRICS[name.removeprefix(PREFIX).split(".")[0]]
        assert kind == known.type[0]
        totals[name] = int(value) + (totals.get(name, 0) if kind == "c" else 0)
    sent = emulator.counts()
    assert totals["astro_bpm.starts"] == 1
    assert totals["astro_bpm.polls"] >= 1
    assert totals["astro_bpm.waiters"] == 0, "at the end"
    assert totals["astro_bpm.requests.start"] == sent["start"] == 1
    assert totals["astro_bpm.requests.query"] == sent["query"]
    assert totals["astro_bpm.requests"] == sum(n for name, n in totals.items() if ".requests." in name)
    assert totals["astro_bpm.token_requests"] >= 1
    prometheus = {mapped(f"airflow.{line.split(':')[0]}") for line in ours}
    assert None not in prometheus, "monitoring/statsd-mapping.yml has a name for each of them"
    names = {one.name for one in prometheus if one} - {DROPPED}
    assert (
        {"astro_bpm_waiters", "astro_bpm_polls_total", "astro_bpm_requests_by_kind_total"}
        <= names
        <= EXPORTED
    )
    (instance,) = emulator.instances()
    secrets = [emulator_server.settings.client_secret, instance["id"], instance["business_key"]]
    assert not [line for line in ours for secret in secrets if secret in line]


def test_separate_meter_is_flushed_at_once(monkeypatch: pytest.MonkeyPatch, airflow_stats: Stats) -> None:
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
    monkeypatch.setattr(StatsMeter, "_stats", airflow_stats)
    tally = BufferedMeter()
    tally.count("kills")
    stats.flush_buffer(tally)
    assert airflow_stats.handed == [("astro_bpm.kills", 1)]
