"""Terminates an instance from within a signal handler, when Airflow kills the worker's task that waits for it.

The handler interrupts the task anywhere, maybe while it holds a lock or asks for a token. So what is done is done in
threads of its own, with a client and a token of its own, and is given up after a while: Airflow kills the process five
seconds after it has asked it to end.

A worker is asked to end for many reasons. Only where the state of the task was read, and is one that a person has put it
in, the instance is terminated.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from airflow_provider_astrobpm.bpm import change, search
from airflow_provider_astrobpm.bpm.client import BpmClient
from airflow_provider_astrobpm.bpm.key_form import KeyForms
from airflow_provider_astrobpm.bpm.key_search import KeyMatches, list_matches
from airflow_provider_astrobpm.bpm.meter import KILLS, Tally
from airflow_provider_astrobpm.bpm.states import OPEN_STATES
from airflow_provider_astrobpm.bpm.token import TokenCache
from airflow_provider_astrobpm.hooks import metrics
from airflow_provider_astrobpm.tasks import clearing
from airflow_provider_astrobpm.triggers.kill import state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_astrobpm.bpm.api import Plan
    from airflow_provider_astrobpm.bpm.settings import Settings
    from airflow_provider_astrobpm.triggers.kill import TaskInstanceKey

T = TypeVar("T")


class AtStake(NamedTuple):
    """The instance that a task has started, or is about to."""

    business_key: str
    """A key that nobody else uses."""
    instance_id: str | None = None
    """Its id, once that is known."""

    def __str__(self) -> str:
        return f"Instance {self.instance_id!r}" if self.instance_id else f"Business key {self.business_key!r}"


ENDED = ("failed", "success", "skipped", "upstream_failed", "removed")
ENDED_BY_A_PERSON = (None, *ENDED, "restarting")
"""The states of a running task that somebody has changed; without one it is gone with its run."""

STATE_PATIENCE = 1.5  # seconds to learn the task's state
PATIENCE = 3.0  # seconds to terminate
METER_PATIENCE = 0.2  # seconds to hand over what was counted meanwhile
SENDING = 2.0  # seconds of these in which terminations of a batch are sent; the rest is for looking what came of them


def terminate(settings: Settings, what: AtStake, task: TaskInstanceKey, log: Any) -> None:
    """Terminate an instance if a person ended its task, and say in the log what came of it.

    :param settings: the environment.
    :param what: the instance.
    :param task: the task instance that waits for it.
    :param log: the log of the task.
    """
    quick, tally = _hasty(settings), Tally()

    def work() -> str:
        with BpmClient(quick, tokens=TokenCache(), meter=tally) as client:
            find = search.finder(quick)
            matches = None if what.instance_id else client.run(_open_matches(what.business_key))
            ids = _open_ids(matches) if matches else [str(what.instance_id)]
            done = [client.run(change.change_state(one, "terminate", find=find)).note for one in ids]
            if not done and matches and (reason := matches.keyless()):
                return f"{reason}, so it may still be open; look for it by its BPM and start time"
            return "; ".join(done) or "there is none that shows"

    if was_ended_by_a_person(task, str(what), log):
        _do(work, str(what), log, tally)


def terminate_all(
    settings: Settings,
    instances: Mapping[str, str | None],
    log: Any,
    *,
    max_concurrency: int,
) -> None:
    """Terminate as many instances of a batch as there is time for, and say in the log what came of it.

    :param settings: the environment.
    :param instances: their ids, each with the state in which it was last seen, if that is known.
    :param log: the log of the task.
    :param max_concurrency: calls under way at once.
    """
    from airflow_provider_astrobpm.bpm import group_change  # noqa: PLC0415 - a worker of single instances needs no aiohttp
    from airflow_provider_astrobpm.bpm.aio import AsyncBpmClient  # noqa: PLC0415

    tally = Tally()

    async def terminated() -> str:
        async with AsyncBpmClient(_hasty(settings), tokens=TokenCache(), meter=tally) as client:
            done = await group_change.change_all(
                client,
                instances,
                "terminate",
                max_concurrency=max_concurrency,
                patience=SENDING,
                grace=0,
                log=lambda note: note.write_to(log),
            )
        if done.is_complete:
            return done.note
        more = clearing.advice("it ends only what carries a key that was made from the task")
        return f"{done.note}; clearing the task ends what is still open.{more}"

    _do(lambda: asyncio.run(terminated()), "The batch", log, tally)


def was_ended_by_a_person(task: TaskInstanceKey, what: str, log: Any) -> bool:
    """Tell whether a person ended the task; if not, or if nobody knows, say in the log that all is left as it is.

    :param task: the task instance.
    :param what: what it is about, as the beginning of a sentence.
    :param log: the log of the task.
    """
    seen = _within(STATE_PATIENCE, lambda: _own_state(task))
    if seen.failure is None and seen.value in ENDED_BY_A_PERSON:
        return True
    why = seen.failure or f"the task is {seen.value}"
    log.warning(
        "This process is being ended, and by nobody's act on the task (%s). Left as it is: %s", why, what
    )
    return False


def _own_state(task: TaskInstanceKey) -> str | None:
    """Return the state of the task instance; ``None`` if it is gone with its run.

    Of a task in a loop Airflow tells the state of the newest iteration. Of those that have ended it tells the region, too.
    """
    state = state_of(task)
    if task.region is None or state not in ENDED:
        return state
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance  # noqa: PLC0415

    for one in RuntimeTaskInstance.get_task_breadcrumbs(task.dag_id, task.run_id):
        region = str(one.get("region_id")), one.get("region_index")
        if one["task_id"] == task.task_id and region == task.region:
            ended: str = one["state"]
            return ended
    return "running"


def _do(work: Callable[[], str], what: str, log: Any, tally: Tally) -> None:
    tally.count(KILLS)
    outcome = _within(PATIENCE, work)
    came_of_it = outcome.value or f"it may still be open: {outcome.failure}"
    log.warning("This task was ended by a person. %s: %s", what, came_of_it)
    # Last, and with a meter of its own: the one of the process may be in use where the handler has interrupted the task.
    _within(METER_PATIENCE, lambda: metrics.hand_over(tally))


def _hasty(settings: Settings) -> Settings:
    return settings.in_a_hurry(max_wait=min(settings.max_wait, 2))


def _open_matches(business_key: str) -> Plan[KeyMatches]:
    keys = KeyForms([business_key])
    matches = KeyMatches(lambda one: keys.sent(one.business_key) is not None)
    for _ in range(2):  # it may have moved against the order of the first pass
        if not matches.has_open:
            yield from list_matches(OPEN_STATES, matches)
    return matches


def _open_ids(matches: KeyMatches) -> list[str]:
    return [one.id for one in matches.instances.values() if not one.is_closed]


@dataclass(frozen=True)
class _Outcome(Generic[T]):
    value: T | None = None
    failure: str | None = None


def _within(seconds: float, work: Callable[[], T]) -> _Outcome[T]:
    """Return what came of some work in time: its result, or in words why there is none."""
    outcomes: list[_Outcome[T]] = []

    def run() -> None:
        try:
            outcomes.append(_Outcome(work()))
        except Exception as error:  # noqa: BLE001 - it is told, and nobody is left to handle it
            outcomes.append(_Outcome(failure=f"{type(error).__name__}: {error}"))

    thread = threading.Thread(target=run, name="astro-zero-kill", daemon=True)
    thread.start()
    thread.join(seconds)
    return outcomes[0] if outcomes else _Outcome(failure="no answer in time")
