"""``make demo``: a pipeline waits for an approval, and a person approves or rejects.

Runs ``example_dags/approval_gate.py`` in Airflow against the emulator, plays the person, and prints the result: the task
states from Airflow's database, and the process instance from the emulator. The exit code is 0 only if the gate did what
the person decided.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from local_stack import Stack, StackError
from steps import Steps

if TYPE_CHECKING:
    from pathlib import Path

    from local_stack import Child

DAG_ID = "approval_gate"
ASKING_TASK = "request_approval"
DAG_SECONDS = 75

# The expected task states for each decision. Any other result fails the demo.
EXPECTED = {
    outcome: {
        "prepare_data": "success",
        ASKING_TASK: "success",
        "decide": "success",
        "publish": "success" if outcome == "approve" else "skipped",
        "roll_back": "success" if outcome == "reject" else "skipped",
    }
    for outcome in ("approve", "reject")
}


@dataclass(frozen=True)
class DagRun:
    """A DAG run, as Airflow's database has it.

    :param states: task id to state.
    :param returned: the return value of the task that asks for the approval; empty if it returned nothing.
    """

    states: dict[str, str | None]
    returned: dict[str, object]

    @classmethod
    def read(cls, database: Path) -> DagRun:
        """Read the only run in a scratch database.

        This reads the database directly, because no Airflow command shows XComs and each command takes seconds to start.
        """
        tasks = "SELECT task_id, state FROM task_instance WHERE dag_id = ?"
        xcom = "SELECT value FROM xcom WHERE dag_id = ? AND task_id = ? AND key = 'return_value'"
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            states = dict(connection.execute(tasks, [DAG_ID]).fetchall())
            stored = connection.execute(xcom, [DAG_ID, ASKING_TASK]).fetchone()
        return cls(states, _decode_xcom(stored[0]) if stored else {})


def _decode_xcom(stored: str) -> dict[str, object]:
    value = json.loads(stored)
    while isinstance(value, str):  # Airflow stores some values as JSON inside JSON
        value = json.loads(value)
    return dict(value)


def play_the_person(control: EmulatorControl, dag: Child, outcome: str) -> None:
    """Wait until the instance waits for a person, then decide.

    :param dag: the process of the DAG run; if it ends, waiting ends too.
    """

    def waiting() -> str | None:
        return next((found["id"] for found in control.instances() if outcome in found["outcomes"]), None)

    instance_id = dag.wait_for("process instance that waits for a person", waiting, DAG_SECONDS)
    control.act(instance_id, outcome)


def faults(outcome: str, run: DagRun, instance_ids: list[str]) -> list[str]:
    """Return the differences from the result that the decision should have; empty if there are none."""
    found = [
        f"{task} should be {state}, it is {run.states.get(task)}"
        for task, state in EXPECTED[outcome].items()
        if run.states.get(task) != state
    ]
    if instance_ids != [run.returned.get("id")]:
        found.append(f"{ASKING_TASK} returned {run.returned.get('id')}, the emulator has {instance_ids}")
    return found


def show(console: Console, run: DagRun, control: EmulatorControl) -> None:
    """Print one line for each task, with the instance of the asking task, and then whether the gate opened."""
    table = Table("Task", "State", "Instance", "Instance state", "Outcome", box=box.SIMPLE)
    instances = {instance["id"]: instance for instance in control.instances()}
    for task in EXPECTED["approve"]:
        instance = instances.get(str(run.returned.get("id"))) if task == ASKING_TASK else None
        about = [instance["id"], instance["state"], instance["bp_status"]] if instance else []
        table.add_row(task, run.states.get(task) or "did not run", *about)
    published = run.states.get("publish") == "success"
    table.add_section()
    table.add_row("the gate", "open" if published else "shut", "", "", str(run.returned.get("bp_status")))
    console.print(table)


def demonstrate(stack: Stack, steps: Steps, outcome: str) -> None:
    """Run the DAG once, decide as the person, and print the result.

    :raises StackError: if the result is not the one that ``outcome`` should have.
    """
    with steps.step("Start the emulator"):
        emulator = stack.start_emulator()
    control = EmulatorControl(emulator.url)
    env = stack.airflow_environment(emulator)
    with steps.step("Prepare Airflow's database"):
        stack.run("airflow db migrate", ["airflow", "db", "migrate"], env, seconds=60)
    with steps.step(f"Run the DAG {DAG_ID} until its process PublishApproval asks a person"):
        dag = stack.start("airflow dags test", ["airflow", "dags", "test", DAG_ID], env)
        play_the_person(control, dag, outcome)
    with steps.step(f"The person chose: {outcome}. Wait until the DAG ends"):
        exit_code = dag.wait_for_end(DAG_SECONDS)
    run = DagRun.read(stack.home / "airflow.db")
    show(steps.console, run, control)
    wrong = faults(outcome, run, [instance["id"] for instance in control.instances()])
    if exit_code != 0 or wrong:
        raise dag.failure("; ".join([f"ended with exit code {exit_code}", *wrong]))


def make_console() -> Console:
    """Return the console of the demo: wide enough for whole ids, and without control characters in a pipe."""
    return Console(highlight=False, width=100, force_terminal=sys.stdout.isatty())


def main() -> int:
    """Parse the command line and run the demo."""
    parser = argparse.ArgumentParser(description="Run the approval gate against the emulator.")
    parser.add_argument("outcome", choices=sorted(EXPECTED), help="what the person decides")
    outcome = parser.parse_args().outcome
    try:
        with Stack() as stack:
            demonstrate(stack, Steps(make_console()), outcome)
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
