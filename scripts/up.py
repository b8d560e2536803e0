"""``make up``: Airflow with the example DAGs, and the emulator they talk to, until Ctrl-C."""

from __future__ import annotations

import sys
import time
import urllib.request
from typing import TYPE_CHECKING

from local_stack import Stack, StackError, Stopped, free_port

if TYPE_CHECKING:
    from local_stack import Child, Emulator

START_SECONDS = 120

USAGE = """
  Airflow   {airflow}
  Emulator  {emulator}

Unpause and trigger approval_gate in Airflow. Then, in another terminal, see who waits, and be the person:

  curl {emulator}/_emulator/instances
  curl -X POST {emulator}/_emulator/instances/INSTANCE_ID/act -d '{{"outcome": "approve"}}'

Ctrl-C stops both."""


def start_airflow(stack: Stack, emulator: Emulator) -> tuple[Child, str]:
    """Start all of Airflow and return once its API answers.

    :return: the process, and the address of the user interface.
    """
    url = f"http://127.0.0.1:{(port := free_port())}"
    env = stack.airflow_environment(
        emulator,
        AIRFLOW__API__BASE_URL=url,
        AIRFLOW__API__HOST="127.0.0.1",
        AIRFLOW__API__PORT=str(port),
        AIRFLOW__API__WORKERS="1",
        AIRFLOW__CORE__EXECUTION_API_SERVER_URL=f"{url}/execution/",
        AIRFLOW__CORE__PARALLELISM="8",
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True",
        AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT=str(free_port()),
        AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT=str(free_port()),
    )
    airflow = stack.start("airflow", ["airflow", "standalone"], env)
    airflow.wait_for("answer from Airflow's API", lambda: answers(f"{url}/api/v2/version"), START_SECONDS)
    return airflow, url


def answers(url: str) -> bool | None:
    """Return True if a GET of ``url`` succeeds, None otherwise."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=5):
            return True
    except OSError:
        return None


def main() -> int:
    """Run until a signal comes or Airflow ends by itself."""
    try:
        with Stack() as stack:
            print("Starting the emulator ...", flush=True)
            emulator = stack.start_emulator()
            print("Starting Airflow (about 20 s) ...", flush=True)
            airflow, url = start_airflow(stack, emulator)
            print(USAGE.format(airflow=url, emulator=emulator.url), flush=True)
            while airflow.exit_code is None:
                time.sleep(0.5)
            raise airflow.failure(f"ended by itself with exit code {airflow.exit_code}")
    except Stopped:
        print("\nStopped.")
        return 0
    except StackError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
