"""What the modules that DAG files import add to the parsing of one, in milliseconds.

DAG files are parsed again and again, and each import counts. Measured in fresh processes that have the Task SDK
loaded already, as a DAG parser has. Exit code 1 if it is too much, or if a library came along that only a running
task needs.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

BUDGET_MS = 20.0
PROCESSES = 9
ONLY_FOR_RUNNING = ("aiohttp", "msgspec", "requests")

PROBE = f"""
import gc, json, sys, time
from airflow.sdk import BaseOperator, BaseSensorOperator
loaded_before = set(sys.modules)
gc.collect()
gc.disable()  # a collection of what Airflow left behind may fall into any import
begin = time.perf_counter()
import airflow_provider_astrobpm.operators.bpm
import airflow_provider_astrobpm.sensors.bpm
import airflow_provider_astrobpm.decorators.bpm
import airflow_provider_astrobpm.notifications.bpm
import airflow_provider_astrobpm.policies.bpm
milliseconds = (time.perf_counter() - begin) * 1000
heavy = [name for name in {ONLY_FOR_RUNNING!r} if name in sys.modules and name not in loaded_before]
print(json.dumps([milliseconds, heavy]))
"""


def measure() -> tuple[float, list[str]]:
    """Import once in a fresh process; return the milliseconds, and the unwanted libraries that came along."""
    # An installed package has its bytecode: without it one would measure the compiler.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    probe = subprocess.run(
        [sys.executable, "-c", PROBE], check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    milliseconds, heavy = json.loads(probe.stdout.splitlines()[-1])
    return float(milliseconds), list(heavy)


def main() -> int:
    """Measure, print, judge."""
    measure()  # compiles to bytecode what was not compiled yet
    times, heavy = zip(*(measure() for _ in range(PROCESSES)), strict=True)
    median = statistics.median(times)
    print(
        f"import of all that DAG files import: {median:.1f} ms (median of {PROCESSES}, {min(times):.1f} to {max(times):.1f})"
    )
    print(f"libraries loaded by it that only a running task needs: {', '.join(heavy[0]) or 'none'}")
    return int(median > BUDGET_MS or bool(heavy[0]))


if __name__ == "__main__":
    sys.exit(main())
