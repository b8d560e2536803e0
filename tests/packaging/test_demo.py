"""``make demo`` shows the current step on a terminal, and prints plain lines elsewhere."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
SLOW_STEP = """
import time
import demo
from steps import Steps

with Steps(demo.make_console()).step("Prepare Airflow's database"):
    time.sleep(0.3)
"""
# Variables that request colours do not turn a pipe into a terminal.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SCRIPTS), "FORCE_COLOR": "1", "TERM": "xterm-256color"}
COMMAND = [sys.executable, "-c", SLOW_STEP]


def test_a_pipe_receives_plain_lines() -> None:
    done = subprocess.run(COMMAND, env=ENVIRONMENT, check=True, capture_output=True, text=True, timeout=60)
    assert re.fullmatch(r"Prepare Airflow's database \.\.\. 0\.\d s\n", done.stdout)
    assert done.stderr == ""


def test_a_terminal_shows_the_elapsed_seconds() -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(COMMAND, env=ENVIRONMENT, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        try:
            while piece := os.read(ours, 65536):
                seen += piece
        except OSError:  # Linux reports this way that the terminal is closed
            pass
        finally:
            os.close(ours)
        assert process.wait(60) == 0
    shown = seen.decode()
    assert re.search(r"Prepare Airflow's database .*0:00:00", shown), shown
    assert re.search(r"Prepare Airflow's database: 0\.\d s\s*$", shown), shown
    assert "\x1b[?25h" in shown, "the cursor is shown again"
