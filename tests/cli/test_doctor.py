"""The command ``doctor`` in a new process: its report, its exit code, and its documentation page."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from airflow_provider_astrobpm.doctor.findings import DESCRIPTIONS, READ_ONLY_FINDINGS, START_FINDINGS
from airflow_provider_astrobpm.doctor.probe_sender import ProbeSender
from airflow_provider_astrobpm.doctor.report import LEGEND
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
from airflow_provider_astrobpm.hooks.connection import EXTRAS
from airflow_provider_astrobpm.testing.emulator_fixture import AstroZeroEmulator
from tests.cli.conftest import Run
from tests.support.warm_python import warm

PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"
COMMAND = (sys.executable, "-m", "airflow_provider_astrobpm", "doctor")
PROCESS = "SupplierOnboarding"


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        warm([*COMMAND, *arguments]), capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def patient_doctor(run: Run, emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in this process, where it advances the emulator's clock instead of waiting."""
    slept = 0.0

    def sleep(seconds: float) -> None:
        nonlocal slept
        slept += seconds
        emulator.advance(seconds)

    sender = partial(ProbeSender, sleep=sleep, clock=lambda: time.time() + slept)
    monkeypatch.setattr("airflow_provider_astrobpm.cli.doctor_command.ProbeSender", sender)
    return lambda *arguments: run("doctor", *arguments)


def test_run_without_start_changes_nothing(
    emulator: EmulatorControl, emulator_server: EmulatorServer
) -> None:
    emulator.start(PROCESS, business_key="supplier-1")
    emulator.reset_counts()
    run = doctor()
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith(f"Connection 'astro_zero_default', {emulator_server.url}\nRead only: ")
    assert LEGEND in run.stdout
    assert set(re.findall(r"^(?:ok|!|\?) +(\w+)", run.stdout, re.MULTILINE)) == set(READ_ONLY_FINDINGS)
    assert 'Extras to set on the connection:\n{"instance_lookup": "list"}\n' in run.stdout
    assert emulator_server.settings.client_secret not in run.stdout
    counts = emulator.counts()
    assert f"Read only: {sum(counts.values())} requests" in run.stdout
    assert not any(counts[kind] for kind in ("start", "action", "variables", "delete", "csrf"))


def test_run_with_start_has_every_finding_and_valid_extras(
    patient_doctor: Run,
    emulator: EmulatorControl,
    emulator_server: EmulatorServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    emulator.start("Instant")
    emulator.switch(csrf_required=True, utc_offset=8, get_by_id="action")
    done = patient_doctor("--start", PROCESS, "--output", "json")
    assert (done.code, done.err) == (0, "")
    report = json.loads(done.out)
    assert {finding["name"] for finding in report["points"]} == set(DESCRIPTIONS)
    assert len(report["started"]) == 2
    assert report["not_terminated"] == []
    assert report["extras"] == {"instance_lookup": "auto", "csrf": True, "timezone": "Etc/GMT-8"}
    assert set(report["extras"]) <= set(EXTRAS)
    assert emulator.instances(state="Waiting for user interaction") == []

    connection = json.loads(emulator_server.connection_json())
    monkeypatch.setenv("AIRFLOW_CONN_MY_CONN", json.dumps({**connection, "extra": report["extras"]}))
    hook = AstroZeroHook("my_conn")
    started = hook.as_dict(hook.start_instance(PROCESS))
    hook.client.close()
    assert started["start_time_utc"] is not None
    again = json.loads(patient_doctor("--conn-id", "my_conn", "--start", PROCESS, "-o", "json").out)
    assert again["extras"] == report["extras"]
    by_name = {finding["name"]: finding for finding in again["points"]}
    assert by_name["csrf"]["fine"]
    assert by_name["timezone"]["fine"]


def test_a_recorded_run_replays_to_the_same_report(
    patient_doctor: Run, emulator: AstroZeroEmulator, tmp_path: Path
) -> None:
    emulator.start("Instant", business_key="order-of-Anna-Miller")
    emulator.switch(get_by_id="action", key_form="cut_50", csrf_required=True, bad_token="403_html")
    file = tmp_path / "doctor.jsonl"
    options = ("--start", PROCESS, "--output", "json")
    recorded = patient_doctor(*options, "--record", str(file))
    assert (recorded.code, recorded.err) == (0, "")
    text = file.read_text()
    for value in ("order-of-Anna-Miller", PROCESS, "emulator-only-secret"):
        assert value not in text
    emulator.reset()
    replay = emulator.replay(file)
    replayed = patient_doctor(*options)
    assert replay.differences == []
    points, again = (
        {point["name"]: point["value"] for point in json.loads(done.out)["points"]}
        for done in (recorded, replayed)
    )
    timing = {"start_lag", "action_lag", "clock"}
    assert {name: value for name, value in again.items() if name not in timing} == {
        name: value for name, value in points.items() if name not in timing
    }


def test_an_existing_file_is_not_overwritten(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "precious.txt"
    file.write_text("precious")
    done = run("doctor", "--record", str(file))
    assert done.code == 2
    assert done.err == f"--record: {file} cannot be created: File exists.\n"
    assert file.read_text() == "precious"


def test_wrong_secret_fails_with_a_report(
    emulator: EmulatorControl, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = {**json.loads(emulator_server.connection_json()), "password": "something-else"}
    monkeypatch.setenv("AIRFLOW_CONN_MY_CONN", json.dumps(connection))
    run = doctor("--conn-id", "my_conn")
    assert (run.returncode, run.stderr) == (1, "")
    assert "the client id or the secret was refused. Check the login" in " ".join(run.stdout.split())
    assert "something-else" not in run.stdout


def test_unreachable_host_fails_with_a_report(
    free_port: int, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = {**json.loads(emulator_server.connection_json()), "port": free_port}
    monkeypatch.setenv("AIRFLOW_CONN_MY_CONN", json.dumps(connection))
    run = doctor("--conn-id", "my_conn", "-o", "json")
    assert (run.returncode, run.stderr) == (1, "")
    report = json.loads(run.stdout)
    assert [(finding["name"], finding["fine"]) for finding in report["points"]] == [("connection", False)]
    assert not report["signed_in"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--conn-id", "no_such_conn"), "no_such_conn"),
        (("--start", " "), "--start must be a text that is not blank"),
    ],
)
def test_invalid_arguments_send_nothing(
    arguments: tuple[str, ...], words: str, emulator: EmulatorControl, airflow_database: None
) -> None:
    run = doctor(*arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert words in run.stderr
    assert sum(emulator.counts().values()) == 0


@pytest.mark.parametrize("kind", ["start", "action"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_signal_terminates_the_run_and_its_instances(
    number: signal.Signals, kind: str, emulator: EmulatorControl
) -> None:
    emulator.fault(kind, "delay", seconds=60, work_done=True)
    with subprocess.Popen(
        warm([*COMMAND, "--start", PROCESS, "-o", "json"]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_until(lambda: emulator.counts()[kind] == 1)
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "Interrupted. Terminating the started instances; interrupt again to leave them.\n"
    report = json.loads(output)
    assert report["interrupted"]
    assert report["not_terminated"] == []
    assert [each["id"] for each in report["started"]] == [each["id"] for each in emulator.instances()]
    assert all(instance["closed"] for instance in emulator.instances())


def wait_until(condition: Callable[[], bool], patience: float = 60) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def table(title: str) -> list[tuple[str, str]]:
    """Return the first two columns of a table on the page."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \| (.*?) \| .*\|$", section, re.MULTILINE)


def test_page_describes_every_finding() -> None:
    for title, descriptions in (
        ("What every run tells", READ_ONLY_FINDINGS),
        ("What `--start` tells as well", START_FINDINGS),
    ):
        assert dict(table(title)) == dict(descriptions)


def test_reports_on_the_page_are_real(patient_doctor: Run, emulator: EmulatorControl) -> None:
    """They are equal word for word, except for values that differ in every run."""
    emulator.start(PROCESS, business_key="supplier-1")
    emulator.advance(5)
    emulator.start(PROCESS, business_key="supplier-2")
    emulator.start("Instant")
    emulator.switch(business_keys_in_rows=False, get_by_id="row", utc_offset=8)
    reading, end = re.findall(r"```text\n(.*?)\n```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert normalized(reading) == normalized(patient_doctor().out)
    report = patient_doctor("--start", PROCESS).out
    assert normalized(end) == normalized(report[report.index("Started and ended") :])


def normalized(text: str) -> list[str]:
    """Return the words of a report, with placeholders for ids, ports, keys and times."""
    for pattern, name in (
        (r"127\.0\.0\.1:\d+", "HOST"),
        (r"002N\w{16}", "ID"),
        (r"doctor-[0-9a-f]{12}\.\S+-[a-z2-7]{16}-1", "KEY"),
        (r"\d{4}-\d\d-\d\d", "DATE"),
        (r"\d+:\d\d:\d\d", "TIME"),
        (r"clock is .*? this", "clock is this"),
    ):
        text = re.sub(pattern, name, text)
    return text.split()
