"""A process that Airflow has given up, or soon will, stops starting launches."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest

from airflow_provider_astrobpm.task_base import heartbeat

WATCH = """
import asyncio, pathlib, sys
from airflow_provider_astrobpm.task_base import heartbeat

heartbeat.CHECK_INTERVAL_SECONDS = 0.05
reason_file = pathlib.Path(sys.argv[1])


async def main():
    watching = asyncio.ensure_future(
        heartbeat.stop_when_superseded(lambda reason: reason_file.write_text(str(reason)))
    )
    await asyncio.sleep(0)  # now it knows its supervisor, which may die
    reason_file.write_text("it watches")
    await watching


asyncio.run(main())
"""
# A supervisor that dies as soon as its process watches it.
DIE = """
import pathlib, subprocess, sys, time

reason_file = pathlib.Path(sys.argv[2])
subprocess.Popen([sys.executable, "-c", sys.argv[1], str(reason_file)])
while not reason_file.exists():
    time.sleep(0.01)
"""


def test_stops_when_the_supervisor_has_died(tmp_path: Path) -> None:
    reason_file = tmp_path / "told"
    subprocess.run([sys.executable, "-c", DIE, WATCH, str(reason_file)], check=True, timeout=120)
    deadline = time.monotonic() + 60
    while "has died" not in reason_file.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_stops_after_standing_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "CHECK_INTERVAL_SECONDS", 0.0)
    jumps = count(0, 1000)
    monkeypatch.setattr(time, "time", lambda: float(next(jumps)))
    reasons: list[Exception] = []
    asyncio.run(asyncio.wait_for(heartbeat.stop_when_superseded(reasons.append), 30))
    assert "stood still for 1000 s" in str(reasons[0])


def test_does_nothing_while_the_supervisor_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "CHECK_INTERVAL_SECONDS", 0.0)

    async def watched() -> None:
        watch = asyncio.ensure_future(heartbeat.stop_when_superseded(pytest.fail))  # type: ignore[arg-type]
        for _ in range(100):
            await asyncio.sleep(0)
        assert not watch.done()
        watch.cancel()

    asyncio.run(watched())
