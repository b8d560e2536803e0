"""``make up``: run Airflow with the example DAGs, and an emulator for them, until Ctrl-C.

``docs/tour.md`` says what to click. The script unpauses every example that starts no run on its own, including the one
whose watcher waits for suppliers. Examples with a nightly schedule stay paused, because Airflow would start last night's
run immediately.
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
    """The Airflow and the emulator that ``make up`` started.

    :param airflow: Airflow's processes.
    :param airflow_url: the address of its user interface.
    :param emulator: the emulator; its address is also the address of its page.
    """

    airflow: Child
    airflow_url: str
    emulator: Emulator


def start_tour(stack: Stack, steps: Steps) -> Tour:
    """Start the emulator, and Airflow with the connection and the example DAGs.

    :raises StackError: if one of them does not start, or an example cannot be parsed.
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
    """Return the addresses that a new user needs: Airflow, the emulator and the tour."""
    rows = [
        ("Airflow", f"{tour.airflow_url}/dags/{FIRST_DAG}", "the gate: trigger it here"),
        ("Emulator", tour.emulator.url, "Astro Zero: approve it here"),
        ("The tour", "docs/tour.md", "what to click, step by step"),
    ]
    width = max(len(address) for _, address, _ in rows)
    lines = [f"  {name:<10}{address:<{width}}  {about}" for name, address, about in rows]
    return "\n".join(["", *lines, "", "Ctrl-C stops everything."])


def _stay(tour: Tour) -> NoReturn:
    """Wait for a signal.

    :raises Stopped: when the signal arrives.
    :raises StackError: if Airflow ends on its own.
    """
    try:
        while tour.airflow.exit_code is None:
            time.sleep(0.5)
    except Stopped:
        print("\nStopping ...", flush=True)
        raise
    raise tour.airflow.failure(f"ended on its own with exit code {tour.airflow.exit_code}")


def main() -> int:
    """Run until a signal arrives or Airflow ends on its own."""
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
