"""DAGs that ``dag.test()`` runs in this process, and a person at the emulator meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

from airflow_provider_astrobpm.emulator.remote import EmulatorControl


def run_dag(dag: Any, **options: Any) -> tuple[str, dict[str, str]]:
    """Run a DAG, and return how it ended and how each of its tasks did."""
    dag_run = dag.test(**options)
    tasks = {
        f"{ti.task_id}[{ti.map_index}]" if ti.map_index >= 0 else ti.task_id: str(ti.state)
        for ti in dag_run.get_task_instances()
    }
    return str(dag_run.state), tasks


@contextmanager
def person(emulator: EmulatorControl, act: Callable[[dict[str, Any]], object]) -> Iterator[list[str]]:
    """Do something with each instance that waits for a person, while the block runs."""
    done: list[str] = []
    over = Event()

    def watch() -> None:
        while not over.wait(0.1):
            for instance in emulator.instances(state="Waiting for user interaction"):
                if instance["id"] not in done:
                    act(instance)
                    done.append(instance["id"])

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield done
        finally:
            over.set()
            watching.result(30)
