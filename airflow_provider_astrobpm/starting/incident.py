"""Starts one process for an incident, no matter how often the incident is reported.

Reporters keep no record. So the business key alone shows whether an incident was reported before::

    incident.orders.load.scheduled__2026-1-zld2ojgxmkbhmtqy-3
    readable, cut off                      hash             try, or clear

Two simultaneous reports do not see each other and may start two processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.client import states
from airflow_provider_astrobpm.client.errors import (
    AmbiguousStartError,
    AuthenticationError,
    CallError,
    NotSentError,
)
from airflow_provider_astrobpm.client.key_form import KeyForms
from airflow_provider_astrobpm.client.key_search import KeyMatches, check_longest_lists, list_matches
from airflow_provider_astrobpm.client.log_note import LogNote
from airflow_provider_astrobpm.client.metrics import AMBIGUOUS_STARTS, NULL_METER, STARTS
from airflow_provider_astrobpm.starting.business_keys import key_prefix, task_label, title
from airflow_provider_astrobpm.starting.lost_start import LostStart, recover_lost_starts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.metrics import Meter
    from airflow_provider_astrobpm.client.operations import Flow, Operation
    from airflow_provider_astrobpm.starting.business_keys import Region

MAX_SEARCH_SECONDS = 8.0  # seconds to search for earlier reports: Airflow stops a reporter after about twenty
_SUFFIX = 6  # characters reserved for the number


@dataclass(frozen=True, kw_only=True)
class IncidentKey:
    """Identifies an incident of a task, of a DAG run, or of a deadline of a run. See also ``TaskIdentity``.

    :param task_id: the task; ``None`` for an incident of the run.
    :param deadline_id: the deadline that was missed; ``None`` for any other incident.
    :param number: distinguishes incidents of the same task or run: the try of the task, or how often the run was cleared.
    :param since: the earliest time at which it can have happened, in seconds since the epoch, if known.
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
        """Return the business key of the incident's process, at most 64 characters."""
        task = self.task_id and task_label(self.task_id, self.map_index, self.region)
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
        task = self.task_id and task_label(self.task_id, self.map_index, self.region)
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


class IncidentResult(NamedTuple):
    """The result of a report."""

    instance: BpmInstance
    is_new: bool
    """Whether this report started the instance."""


def report_incident(
    start: Operation[BpmInstance],
    *,
    bpm_name: str,
    business_key: str,
    since: float | None,
    grace: float,
    clock: Callable[[], float],
    log: Callable[[LogNote], None],
    meter: Meter = NULL_METER,
) -> Flow[IncidentResult]:
    """Start a process, unless an instance of this BPM already has the business key. The instance may be open or closed.

    If the lists do not show that for certain, the process is started: a second report does less harm than an unnoticed
    incident.

    :param start: the operation that starts the process.
    :param since: the earliest time at which the incident can have happened, in seconds since the epoch, if known.
    :param grace: seconds after which a started instance certainly shows in the lists.
    :raises AmbiguousStartError: if it is unknown whether the process was started.
    :raises CallError: if a call failed, and nothing was started.
    """
    keys = KeyForms([business_key])
    matches = KeyMatches(
        lambda one: one.name == bpm_name and keys.sent(one.business_key) is not None,
        resembles=keys.resembles,
        clock=clock,
    )
    doubt = yield from _search(matches, clock)
    if matches.instances:
        newest = max(matches.instances.values(), key=lambda one: one.start_time or "")
        return IncidentResult(newest, is_new=False)
    if doubt := doubt or matches.doubt(bpm_name, since):
        log(LogNote(f"It is unknown whether this was reported before: {doubt}. Reporting it", warning=True))
    posted_at = clock()
    try:
        instance: BpmInstance = yield start
    except CallError as error:
        if error.was_processed is not None:
            raise
        meter.count(AMBIGUOUS_STARTS)
        log(LogNote(f"The answer to the start was lost; searching for the instance. {error}", warning=True))
        recovery = yield from recover_lost_starts(
            {business_key: LostStart(bpm_name)}, grace=grace, posted_at=posted_at, clock=clock
        )
        if business_key in recovery.doubts:
            raise _lost_error(error, bpm_name, business_key, recovery.doubts[business_key]) from error
        instance = recovery.instances[business_key]
    meter.count(STARTS)
    return IncidentResult(instance, is_new=True)


def _search(matches: KeyMatches, clock: Callable[[], float]) -> Flow[str | None]:
    """Search for earlier reports. Return why the search is inconclusive, or ``None`` if it is not.

    The states of open instances are listed twice, because a process that has just been started moves between states.

    :raises CallError: if the server could not be reached or refused the credentials, so that a start would fail too.
    """
    doubt, until = None, clock() + MAX_SEARCH_SECONDS
    lists: dict[str, Sequence[BpmInstance]] = {}
    for state in (*states.STATES, *states.OPEN_STATES):
        if matches.instances:
            break
        if clock() >= until:
            return f"listing takes more than {MAX_SEARCH_SECONDS:g} s"
        try:
            lists |= yield from list_matches([state], matches)
        except CallError as error:
            if error.failed_fetching_token or isinstance(error, (NotSentError, AuthenticationError)):
                raise
            doubt = doubt or f"state {state!r} could not be listed: {error.problem}"
    if lists and not matches.instances and doubt is None:
        yield from check_longest_lists(lists, matches)
    return doubt


def _lost_error(failure: CallError, bpm_name: str, business_key: str, doubt: str) -> AmbiguousStartError:
    lost = AmbiguousStartError(
        failure,
        business_key,
        f"It was not started again. Search for an instance of {bpm_name!r} with business key {business_key!r}; if there is "
        "none, start it yourself.",
    )
    lost.problem += f"; {doubt}"
    return lost
