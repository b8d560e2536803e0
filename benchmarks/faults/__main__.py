"""``python -m benchmarks.faults``: let many waits poll a server that often fails, and print how they ended."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from typing import Any

from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from benchmarks.batch import ROOT
from local_stack import environment

WAITS, SECONDS, INTERVAL = 3000, 600.0, 5.0
SHORT_WAITS, SHORT_SECONDS = 300, 30.0
MAX_TIMES = 100_000  # how often the emulator applies a rule at most

# Each fault, and the percentage of all requests that it hits.
SENSELESS: list[tuple[float, dict[str, Any]]] = [
    (1.4, {"fault": "html", "status": 200}),
    (1.3, {"fault": "not_json"}),
    (1.3, {"fault": "wrong_shape"}),
]
LOST: list[tuple[float, dict[str, Any]]] = [
    (1.4, {"fault": "delay", "seconds": 2.0}),
    (1.2, {"fault": "status", "status": 429, "retry_after": 1}),
    (1.2, {"fault": "html", "status": 502}),
    (1.2, {"fault": "status", "status": 503}),
    (1.0, {"fault": "drop_before"}),
    (1.0, {"fault": "drop_after"}),
    (1.0, {"fault": "truncate"}),
]


def main() -> int:
    """Run the benchmark, and return the exit code."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="astrobpm-") as folder, EmulatorServer() as server:
        variables = environment() | {
            "AIRFLOW_HOME": folder,
            "AIRFLOW_CONN_ASTRO_ZERO_DEFAULT": server.connection_json(),
        }
        for fault in _rules(random.Random(options.seed)):  # noqa: S311 - the same in every run
            server.control.fault("any", **fault)
        print(
            f"{options.waits} waits that poll every {options.poll_interval:g} s, for {options.seconds:g} s;"
            f" {_percentage(SENSELESS):g} % of the answers make no sense,"
            f" {_percentage(LOST):g} % are lost, late or refused; --seed {options.seed}",
            flush=True,
        )
        work = json.dumps({**vars(options), "control": server.control.url})
        command = [sys.executable, "-m", "benchmarks.faults.waits"]
        return subprocess.run(command, input=work, text=True, cwd=ROOT, env=variables, check=False).returncode


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--short", action="store_true", help=f"{SHORT_WAITS} waits for {SHORT_SECONDS:g} s")
    parser.add_argument("--waits", type=int, help=f"how many waits ({WAITS})")
    parser.add_argument("--seconds", type=float, help=f"for how long ({SECONDS:g})")
    parser.add_argument("--poll-interval", type=float, default=INTERVAL, help=f"seconds ({INTERVAL:g})")
    parser.add_argument("--seed", type=int, help="of the instances' fates and the faults (random)")
    options = parser.parse_args()
    options.waits = options.waits or (SHORT_WAITS if options.short else WAITS)
    options.seconds = options.seconds or (SHORT_SECONDS if options.short else SECONDS)
    if options.seed is None:
        options.seed = random.randrange(10_000)  # noqa: S311 - not a secret
    return options


def _percentage(faults: list[tuple[float, dict[str, Any]]]) -> float:
    return round(sum(share for share, _ in faults), 9)


def _rules(chance: random.Random) -> list[dict[str, Any]]:
    """Return the emulator's rules in a random order. Each gets its share of the requests that the rules before it let pass."""
    rules, left = [], 1.0
    for percentage, fault in chance.sample(SENSELESS + LOST, len(SENSELESS + LOST)):
        rules.append({**fault, "share": percentage / 100 / left, "times": MAX_TIMES})
        left -= percentage / 100
    return rules


if __name__ == "__main__":
    sys.exit(main())
