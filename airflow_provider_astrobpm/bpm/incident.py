"""The plan of an incident: something has failed, and one process is started over it, however often it is reported.

Whoever reports keeps no record, so the business key alone tells whether an event was reported before::

    incident.orders.load.scheduled__2026-1-zld2ojgxmkbhmtqy-3
    readable, cut off                      hash             try, or clear

Two reports at the very same moment do not see each other, and may start two processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.bpm import states
from airflow_provider_astrobpm.bpm.errors import (
    AmbiguousStartError,
    AuthenticationError,
    CallError,
    NotSentError,
)
from airflow_provider_astrobpm.bpm.identity import key_prefix, task_words, title
from airflow_provider_astrobpm.bpm.key_form import KeyForms
from airflow_provider_astrobpm.bpm.key_search import KeyMatches, check_longest_lists, list_matches
from airflow_provider_astrobpm.bpm.lost_start import LostStart, recover_lost_starts
from airflow_provider_astrobpm.bpm.meter import AMBIGUOUS_STARTS, NO_METER, STARTS
from airflow_provider_astrobpm.bpm.wait import Note

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_astrobpm.bpm.api import Operation, Plan
    from airflow_provider_astrobpm.bpm.identity import Region
    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.bpm.meter import Meter

LOOK = 8.0  # seconds to look for earlier reports: Airflow gives whoever reports some twenty
_SUFFIX = 6  # characters kept free for the number


@dataclass(frozen=True, kw_only=True)
class Event:
    """What has happened: to a task, to a run of a DAG, or to a deadline of one.

    :param dag_id: the DAG.
    :param run_id: its run.
    :param task_id: the task, if it happened to one.
    :param map_index: the index of a mapped task; -1 for one that is not mapped.
    :param region: where a task of a loop runs; ``None`` outside of loops.
    :param deadline_id: the deadline that was missed, if it was one.
    :param number: which of several such events it is: the try of a task, or how often the run was cleared before.
    :param since: when it happened at the earliest, in seconds since the epoch, if that is known.
    """

    dag_id: str
    run_id: str
    task_id: str | None = None
    map_index: int = -1
    region: Region | None = None
    deadline_id: str | None = None
    number: int = 0
    since: float | None = None

    def key(self) -> str:
        """Return the business key of its process, at most 64 characters."""
        task = self.task_id and task_words(self.task_id, self.map_index, self.region)
        what = filter(
            None, ("incident", self.dag_id, task, "deadline" if self.deadline_id else None, self.run_id)
        )
        identity = [
            "incident", self.dag_id, self.run_id, self.task_id, self.map_index, self.deadline_id, self.number,
            *(self.region or ()),
        ]  # fmt: skip
        return f"{key_prefix('.'.join(what), identity, suffix=_SUFFIX)}{self.number % 10**_SUFFIX}"

    def title(self) -> str:
        """Return a title for people's to-do lists, at most 128 characters: ``orders.load, try 1 (run manual__2026-11-28)``."""
        task = self.task_id and task_words(self.task_id, self.map_index, self.region)
        if self.deadline_id:
            what = " missed its deadline"
        else:
            what = " ended" if task is None else f", try {self.number}"
        return title(".".join(filter(None, (self.dag_id, task))), what, self.run_id)

    def __str__(self) -> str:
        where = f"DAG {self.dag_id!r}, run {self.run_id!r}"
        if self.deadline_id:
            return f"missed deadline of {where}"
        if self.task_id is None:
            return f"end of {where}"
        index = f"[{self.map_index}]" if self.map_index >= 0 else ""
        if self.region is not None and not index:
            where = f"iteration {self.region.place}, {where}"
        return f"try {self.number} of task {self.task_id + index!r} of {where}"


class Reported(NamedTuple):
    """What came of a report."""

    instance: BpmInstance
    is_new: bool
    """Whether this report has started it."""


def report(
    start: Operation[BpmInstance],
    *,
    bpm_name: str,
    business_key: str,
    since: float | None,
    grace: float,
    clock: Callable[[], float],
    log: Callable[[Note], None],
    meter: Meter = NO_METER,
) -> Plan[Reported]:
    """Start a process, unless one of this BPM carries the business key already, open or ended.

    Where the lists do not tell that for certain it is started: an incident that is reported twice does less harm than one
    that nobody hears of.

    :param start: the operation that starts it.
    :param bpm_name: the BPM's name.
    :param business_key: the key that it carries.
    :param since: when the event happened at the earliest, in seconds since the epoch, if that is known.
    :param grace: seconds after which an instance that was started certainly shows in the lists.
    :param clock: the time, in seconds since the epoch.
    :param log: is told what happens.
    :param meter: is told what was started.
    :raises AmbiguousStartError: if nobody can know whether it was started.
    :raises CallError: if a call failed, and nothing was started.
    """
    keys = KeyForms([business_key])
    matches = KeyMatches(
        lambda one: one.name == bpm_name and keys.sent(one.business_key) is not None,
        resembles=keys.resembles,
        clock=clock,
    )
    doubt = yield from _look(matches, clock)
    if matches.instances:
        newest = max(matches.instances.values(), key=lambda one: one.start_time or "")
        return Reported(newest, is_new=False)
    if doubt := doubt or matches.doubt(bpm_name, since):
        log(Note(f"Whether this was reported before cannot be told: {doubt}. Reporting it", warning=True))
    posted_at = clock()
    try:
        instance: BpmInstance = yield start
    except CallError as error:
        if error.taken is not None:
            raise
        meter.count(AMBIGUOUS_STARTS)
        log(Note(f"The start is in doubt; looking for what came of it. {error}", warning=True))
        recovery = yield from recover_lost_starts(
            {business_key: LostStart(bpm_name)}, grace=grace, posted_at=posted_at, clock=clock
        )
        if business_key in recovery.doubts:
            raise _lost(error, bpm_name, business_key, recovery.doubts[business_key]) from error
        instance = recovery.instances[business_key]
    meter.count(STARTS)
    return Reported(instance, is_new=True)


def _look(matches: KeyMatches, clock: Callable[[], float]) -> Plan[str | None]:
    """Look for earlier reports, and return what leaves it open whether there are any.

    The states of open instances are listed once more, for a process that has just been started moves from one to another.

    :raises CallError: if the server could not be reached, or refused the credentials: then nothing can be started either.
    """
    doubt, until = None, clock() + LOOK
    lists: dict[str, Sequence[BpmInstance]] = {}
    for state in (*states.STATES, *states.OPEN_STATES):
        if matches.instances:
            break
        if clock() >= until:
            return f"the lists take more than {LOOK:g} s"
        try:
            lists |= yield from list_matches([state], matches)
        except CallError as error:
            if error.came_before or isinstance(error, (NotSentError, AuthenticationError)):
                raise
            doubt = doubt or f"state {state!r} could not be listed: {error.problem}"
    if lists and not matches.instances and doubt is None:
        yield from check_longest_lists(lists, matches)
    return doubt


def _lost(failure: CallError, bpm_name: str, business_key: str, doubt: str) -> AmbiguousStartError:
    lost = AmbiguousStartError(
        failure,
        business_key,
        f"It was not started again. Look for an instance of {bpm_name!r} with business key {business_key!r}; if there is "
        "none, start it yourself.",
    )
    lost.problem += f"; {doubt}"
    return lost
