"""Measure how many milliseconds the provider's modules add to parsing a DAG file.

DAG files are parsed often, so each import counts. The measurement uses fresh processes with the Task SDK already loaded,
as in a DAG parser. The exit code is 1 if the imports take too long, or load a library that only a running task needs.
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
gc.disable()  # garbage of Airflow might be collected during any import
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
    """Import once in a fresh process, and return the milliseconds and the unwanted libraries that were loaded."""
    # An installed package has bytecode. Without it this would measure the compiler.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    probe = subprocess.run(
        [sys.executable, "-c", PROBE], check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    milliseconds, heavy = json.loads(probe.stdout.splitlines()[-1])
    return float(milliseconds), list(heavy)


def main() -> int:
    """Measure, print the results, and check the limits."""
    measure()  # compiles modules that have no bytecode yet
    times, heavy = zip(*(measure() for _ in range(PROCESSES)), strict=True)
    median = statistics.median(times)
    print(
        f"import of all modules that DAG files use: {median:.1f} ms (median of {PROCESSES}, {min(times):.1f} to {max(times):.1f})"
    )
    print(f"loaded libraries that only a running task needs: {', '.join(heavy[0]) or 'none'}")
    return int(median > BUDGET_MS or bool(heavy[0]))


if __name__ == "__main__":
    sys.exit(main())
