"""Terminates the instances of a task from its signal handler, when Airflow stops the task process on a worker.

The handler interrupts the task anywhere, even while it holds a lock or requests a token. So the work runs in separate
threads with their own client and token, and with a time limit: Airflow kills the process five seconds after it has asked
the process to stop.

Airflow stops task processes for many reasons. An instance is terminated only if the state of the task shows that a user ended it
(``_airflow.user_action``).
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from airflow_provider_astrobpm._airflow import stats, user_action
from airflow_provider_astrobpm.client import actions, search
from airflow_provider_astrobpm.client.key_form import KeyForms
from airflow_provider_astrobpm.client.key_search import KeyMatches, list_matches
from airflow_provider_astrobpm.client.metrics import KILLS, BufferedMeter
from airflow_provider_astrobpm.client.states import OPEN_STATES
from airflow_provider_astrobpm.client.sync_client import BpmClient
from airflow_provider_astrobpm.client.tokens import TokenCache
from airflow_provider_astrobpm.task_base import clearing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_astrobpm._airflow.user_action import TaskInstanceRef
    from airflow_provider_astrobpm.client.operations import Flow
    from airflow_provider_astrobpm.client.settings import Settings

T = TypeVar("T")


class KillTarget(NamedTuple):
    """The instance that a task has started or is about to start."""

    business_key: str
    """A key that only this task uses."""
    instance_id: str | None = None
    """Its id, once that is known."""

    def __str__(self) -> str:
        return f"Instance {self.instance_id!r}" if self.instance_id else f"Business key {self.business_key!r}"


STATE_PATIENCE = 1.5  # seconds to read the state of the task
PATIENCE = 3.0  # seconds to terminate
METRICS_SECONDS = 0.2  # to hand over the metrics
BATCH_SENDING_SECONDS = (
    2.0  # of PATIENCE, to send the terminations of a batch; the rest is for checking their effect
)


def terminate_instance(settings: Settings, what: KillTarget, task: TaskInstanceRef, log: Any) -> None:
    """Terminate an instance if a user ended its task, and log the outcome.

    :param settings: the settings of the connection.
    :param what: the instance.
    :param task: the task instance that waits for it.
    :param log: the log of the task.
    """
    quick, tally = _with_short_timeouts(settings), BufferedMeter()

    def work() -> str:
        with BpmClient(quick, tokens=TokenCache(), meter=tally) as client:
            find = search.instance_finder(quick)
            matches = None if what.instance_id else client.run(_open_matches(what.business_key))
            ids = _open_ids(matches) if matches else [str(what.instance_id)]
            done = [client.run(actions.change_state(one, "terminate", find=find)).note for one in ids]
            if not done and matches and (reason := matches.why_keyless()):
                return f"{reason}, so it may still be open; search for it by its BPM and start time"
            return "; ".join(done) or "no open instance was found"

    if was_ended_by_user(task, str(what), log):
        _terminate_and_log(work, str(what), log, tally)


def terminate_batch(
    settings: Settings,
    instances: Mapping[str, str | None],
    log: Any,
    *,
    max_concurrency: int,
) -> None:
    """Terminate as many instances of a batch as the time allows, and log the outcome.

    :param settings: the settings of the connection.
    :param instances: the ids of the instances, each with its last polled state if it is known.
    :param log: the log of the task.
    :param max_concurrency: the maximum number of calls at the same time.
    """
    from airflow_provider_astrobpm.batches import bulk_change  # noqa: PLC0415 - a worker of single instances needs no aiohttp
    from airflow_provider_astrobpm.client.async_client import AsyncBpmClient  # noqa: PLC0415

    tally = BufferedMeter()

    async def terminated() -> str:
        async with AsyncBpmClient(_with_short_timeouts(settings), tokens=TokenCache(), meter=tally) as client:
            done = await bulk_change.change_all(
                client,
                instances,
                "terminate",
                max_concurrency=max_concurrency,
                patience=BATCH_SENDING_SECONDS,
                grace=0,
                log=lambda note: note.write_to(log),
            )
        if done.is_complete:
            return done.note
        more = clearing.advice("it terminates only instances whose key was derived from the task")
        return f"{done.note}; clearing the task terminates the instances that are still open.{more}"

    _terminate_and_log(lambda: asyncio.run(terminated()), "The batch", log, tally)


def was_ended_by_user(task: TaskInstanceRef, what: str, log: Any) -> bool:
    """Return whether a user ended the task. If not, or if that is unknown, log that nothing is terminated.

    :param task: the task instance.
    :param what: the instance or batch of the task, as the beginning of a sentence.
    :param log: the log of the task.
    """
    state, failure = _run_with_timeout(STATE_PATIENCE, lambda: user_action.state_on_worker(task))
    if failure is None and user_action.judge(state) is user_action.TaskVerdict.ENDED_BY_USER:
        return True
    why = failure or f"the task is {state}"
    log.warning(
        "The task process is stopping, but no user ended the task (%s). Not terminating: %s", why, what
    )
    return False


def _terminate_and_log(work: Callable[[], str], what: str, log: Any, tally: BufferedMeter) -> None:
    tally.count(KILLS)
    note, failure = _run_with_timeout(PATIENCE, work)
    log.warning("This task was ended by a user. %s: %s", what, note or f"it may still be open: {failure}")
    # Last, and with a separate meter: the handler may have interrupted the task while it used the meter of the process.
    _run_with_timeout(METRICS_SECONDS, lambda: stats.flush_buffer(tally))


def _with_short_timeouts(settings: Settings) -> Settings:
    """Return the settings for a client that also records nothing: the interrupted thread may hold the writer's lock."""
    return settings.with_short_timeouts(max_wait=min(settings.max_wait, 2), record=None)


def _open_matches(business_key: str) -> Flow[KeyMatches]:
    keys = KeyForms([business_key])
    matches = KeyMatches(lambda one: keys.sent(one.business_key) is not None)
    for _ in range(2):  # it may have changed its state against the order of the first pass
        if not matches.has_open:
            yield from list_matches(OPEN_STATES, matches)
    return matches


def _open_ids(matches: KeyMatches) -> list[str]:
    return [one.id for one in matches.instances.values() if not one.is_closed]


def _run_with_timeout(seconds: float, work: Callable[[], T]) -> tuple[T | None, str | None]:
    """Run a function in a thread, and return its result, and the reason if it has none in time."""
    outcomes: list[tuple[T | None, str | None]] = []

    def run() -> None:
        try:
            outcomes.append((work(), None))
        except Exception as error:  # noqa: BLE001 - it is logged; there is no caller to handle it
            outcomes.append((None, f"{type(error).__name__}: {error}"))

    thread = threading.Thread(target=run, name="astro-zero-kill", daemon=True)
    thread.start()
    thread.join(seconds)
    return outcomes[0] if outcomes else (None, "no answer in time")
