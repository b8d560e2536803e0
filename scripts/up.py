"""``make up``: Airflow with the example DAGs, and the emulator they talk to, until Ctrl-C.

``docs/tour.md`` says what to click then. Every example that does nothing by itself is unpaused, the one whose watcher waits for
suppliers too. Those with a nightly schedule stay paused: Airflow starts last night's run at once when they are unpaused.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airflow_api import AirflowApi, AirflowApiError
from local_stack import ROOT, Stack, StackError, Stopped
from standalone import start_standalone
from steps import Steps

if TYPE_CHECKING:
    from local_stack import Child, Emulator

START_SECONDS = 120

NIGHTLY = {"batch_launch", "incident_on_failure", "nightly_launch"}
FIRST_DAG = "approval_gate"

USAGE = f"""
  Airflow     {{airflow}}/dags/{FIRST_DAG}   the gate: trigger it here
  Emulator    {{emulator}}   the people's side: approve it here
  The tour    docs/tour.md   what to click, step by step

Ctrl-C stops everything."""


@dataclass(frozen=True)
class Tour:
    """What ``make up`` has started.

    :param airflow: Airflow's processes.
    :param airflow_url: the address of its user interface.
    :param emulator: the emulator, whose address is that of its page too.
    """

    airflow: Child
    airflow_url: str
    emulator: Emulator


def start_tour(stack: Stack, steps: Steps) -> Tour:
    """Start the emulator and Airflow, with the connection and the example DAGs in place.

    :raises StackError: if one of them does not come up, or an example cannot be read.
    """
    with steps.step("Start the emulator"):
        emulator = _with_link(stack.start_emulator())
    with steps.step("Start Airflow, which takes about 20 s"):
        env = stack.airflow_environment(emulator, AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True")
        airflow = start_standalone(stack, env)
        api = AirflowApi(airflow.url)
        airflow.child.wait_for("health of Airflow", lambda: api.is_healthy() or None, START_SECONDS)
    with steps.step("Unpause the example DAGs"):
        names = {path.stem for path in (ROOT / "example_dags").glob("*.py")}
        try:
            airflow.child.wait_for(
                "example DAGs", lambda: names.issubset(api.dag_ids()) or None, START_SECONDS
            )
            for dag_id in sorted(names - NIGHTLY):
                api.unpause(dag_id)
        except AirflowApiError as error:
            raise airflow.child.failure(str(error)) from None
    return Tour(airflow.child, airflow.url, emulator)


def _with_link(emulator: Emulator) -> Emulator:
    """Let the tasks of its connection link to the page of their instance."""
    extra = {"instance_url": f"{emulator.url}/instances/{{instance_id}}"}
    return replace(emulator, connection=json.dumps({**json.loads(emulator.connection), "extra": extra}))


def main() -> int:
    """Run until a signal comes or Airflow ends by itself."""
    try:
        with Stack() as stack:
            tour = start_tour(stack, Steps())
            print(USAGE.format(airflow=tour.airflow_url, emulator=tour.emulator.url), flush=True)
            while tour.airflow.exit_code is None:
                time.sleep(0.5)
            raise tour.airflow.failure(f"ended by itself with exit code {tour.airflow.exit_code}")
    except Stopped:
        print("\nStopped.")
        return 0
    except StackError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
