"""``make up`` and ``make demo`` end all processes that they started."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import airflow
import psutil
import pytest
from packaging.version import Version

from airflow_api import AirflowApi
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from local_stack import Stack
from up import NIGHTLY

ROOT = Path(__file__).resolve().parents[2]

# A parent that ignores SIGTERM, and its child, in its own process group, which also ignores it.
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setpgid(0, 0)
print("started", flush=True)
time.sleep(60)
"""


def _in_sessions(sessions: set[int]) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) in sessions and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {process.name()}")
        except (OSError, psutil.Error):
            continue
    return found


def test_stop_kills_processes_that_ignore_sigterm() -> None:
    with Stack() as stack:
        home = stack.home
        child = stack.start("stubborn", [sys.executable, "-c", STUBBORN], dict(os.environ))
        child.wait_for("both", lambda: child.output().count("started") == 2 or None, seconds=20)
        session = child.members()[0].pid
        assert len(_in_sessions({session})) == 2
        child.stop(patience=0.2)
        assert child.members() == []
    assert _in_sessions({session}) == []
    assert not home.exists()


def _addresses(log: Path, process: subprocess.Popen[bytes], seconds: float) -> dict[str, str]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        found = dict(re.findall(r"(Airflow|Emulator) +(http://[^\s/]+)", log.read_text()))
        if len(found) == 2:
            return found
        time.sleep(0.2)
    raise AssertionError(f"not up: {log.read_text()}")


@pytest.mark.long
def test_make_up_answers_and_leaves_nothing_behind(tmp_path: Path) -> None:
    log = tmp_path / "up.log"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with log.open("wb") as output:
        up = subprocess.Popen(
            [sys.executable, "scripts/up.py"],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(scratch)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        addresses = _addresses(log, up, seconds=150)
        api = AirflowApi(addresses["Airflow"])
        assert api.is_healthy()
        dags = {dag["dag_id"]: dag for dag in api.call("GET", "/api/v2/dags")["dags"]}
        # If unpaused, these would start a run on their own.
        by_themselves = {dag_id for dag_id, dag in dags.items() if "*" in str(dag["timetable_summary"])}
        assert by_themselves == NIGHTLY
        assert {dag_id for dag_id, dag in dags.items() if dag["is_paused"]} == NIGHTLY
        (form,) = [
            each
            for each in api.call("GET", "/ui/connections/hook_meta")
            if each["connection_type"] == "astro_zero"
        ]
        assert form["hook_name"] == "Huawei Cloud Astro Zero"
        if Version(airflow.__version__) >= Version("3.2"):  # older versions do not build forms from data
            assert form["extra_fields"]["access_token"]["schema"]["format"] == "password"
        assert EmulatorControl(addresses["Emulator"]).processes()
        sessions = {os.getsid(child.pid) for child in psutil.Process(up.pid).children()} | {up.pid}
        assert len(_in_sessions(sessions)) > 5
        up.send_signal(signal.SIGINT)
        assert up.wait(30) == 0, log.read_text()
    finally:
        up.terminate()  # has no effect if it has ended
        up.wait(30)
    assert _in_sessions(sessions) == []
    assert list(scratch.iterdir()) == []
