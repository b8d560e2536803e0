"""Terminates an instance from within a signal handler, when Airflow kills the worker's task that waits for it.

The handler interrupts the task anywhere, maybe while it holds a lock or asks for a token. So what is done is done in
threads of its own, with a client and a token of its own, and is given up after a while.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_astrobpm.bpm import change, search
from airflow_provider_astrobpm.bpm.client import BpmClient
from airflow_provider_astrobpm.bpm.token import TokenCache
from airflow_provider_astrobpm.triggers.kill import state_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.bpm.settings import Settings
    from airflow_provider_astrobpm.triggers.kill import TaskInstanceKey

T = TypeVar("T")

STATE_PATIENCE = 3.0  # seconds to learn the task's state
PATIENCE = 20.0  # seconds to terminate


def terminate(settings: Settings, instance_id: str, task: TaskInstanceKey, log: Any) -> None:
    """Terminate an instance unless only the worker is being stopped, and say in the log what came of it.

    :param settings: the environment.
    :param instance_id: the instance's id.
    :param task: the task instance that waits for it.
    :param log: the log of the task.
    """
    # Airflow kills a task whose state somebody has changed. One that still runs dies with its worker.
    if _within(STATE_PATIENCE, lambda: state_of(task)) == "running":
        log.warning("This worker is being stopped. Instance %r is left as it is", instance_id)
        return
    quick = settings.in_a_hurry(max_wait=min(settings.max_wait, 2))

    def work() -> str:
        with BpmClient(quick, tokens=TokenCache()) as client:
            return client.run(change.change_state(instance_id, "terminate", find=search.finder(quick))).note

    outcome = _within(PATIENCE, work)
    log.warning(
        "This task was ended by a person. Instance %r: %s", instance_id, outcome or "no answer in time"
    )


def _within(seconds: float, work: Callable[[], T]) -> T | str | None:
    """Return what came of some work, an error in words; ``None`` if it takes longer."""
    said: list[T | str] = []

    def run() -> None:
        try:
            said.append(work())
        except Exception as error:  # noqa: BLE001 - it is told, and nobody is left to handle it
            said.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=run, name="astro-zero-kill", daemon=True)
    thread.start()
    thread.join(seconds)
    return said[0] if said else None
