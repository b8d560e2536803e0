"""``make up``: Airflow with the example DAGs, and the emulator they talk to, until Ctrl-C.

``docs/tour.md`` says what to click then. Every example that does nothing by itself is unpaused, the one whose watcher waits for
suppliers too. Those with a nightly schedule stay paused: Airflow starts last night's run at once when they are unpaused.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from airflow_api import AirflowApi, AirflowApiError
from local_stack import ROOT, Stack, StackError, Stopped
from standalone import start_standalone
from steps import Steps

if TYPE_CHECKING:
    from local_stack import Child, Emulator

START_SECONDS = 120

NIGHTLY = {"batch_launch", "incident_on_failure", "nightly_launch"}
FIRST_DAG = "approval_gate"


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
        emulator = stack.start_emulator()
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


def _addresses(tour: Tour) -> str:
    """Return what somebody needs who begins: where to ask, where to answer, and what else there is to see."""
    rows = [
        ("Airflow", f"{tour.airflow_url}/dags/{FIRST_DAG}", "the gate: trigger it here"),
        ("Emulator", tour.emulator.url, "Astro Zero: approve it here"),
        ("The tour", "docs/tour.md", "what to click, step by step"),
    ]
    width = max(len(address) for _, address, _ in rows)
    lines = [f"  {name:<10}{address:<{width}}  {about}" for name, address, about in rows]
    return "\n".join(["", *lines, "", "Ctrl-C stops everything."])


def _stay(tour: Tour) -> NoReturn:
    """Stay until a signal comes.

    :raises Stopped: once it has come.
    :raises StackError: if Airflow ends by itself.
    """
    try:
        while tour.airflow.exit_code is None:
            time.sleep(0.5)
    except Stopped:
        print("\nStopping ...", flush=True)
        raise
    raise tour.airflow.failure(f"ended by itself with exit code {tour.airflow.exit_code}")


def main() -> int:
    """Run until a signal comes or Airflow ends by itself."""
    try:
        with Stack() as stack:
            tour = start_tour(stack, Steps())
            print(_addresses(tour), flush=True)
            _stay(tour)
    except Stopped:
        print("Stopped.")
        return 0
    except StackError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
