"""The instances that a run with ``--start`` starts.

Each start is recorded before it is sent, and each instance is terminated at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from airflow_provider_astrobpm.client import operations, states
from airflow_provider_astrobpm.client.actions import check_delays
from airflow_provider_astrobpm.client.backoff import Backoff
from airflow_provider_astrobpm.doctor.observation import Probe, text
from airflow_provider_astrobpm.doctor.start_markers import matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_astrobpm.doctor.observation import InstanceRow, Observation, ProbeFlow

POLL_SECONDS = 60.0  # for an instance or an effect that is not visible yet
POLLS = Backoff(first=1, longest=8)  # closer together than a task's checks, because lags are measured by them
SECOND_SEARCH_DELAY_SECONDS = 4.0  # after the first; an instance may change its state between two lists
TERMINATION_DELAYS_SECONDS = (0, 2, 8)  # before each request to terminate an instance


@dataclass
class SentStart:
    """One start that was sent.

    :param business_key: the business key of the instance.
    :param instance_id: the id of the instance, if it is known.
    :param shown: whether a list has shown the instance.
    :param refused: whether the start was refused. A gateway may refuse a start that the server has processed.
    :param end: how the instance ended, if it has, for the report.
    :param problem: why the instance is not known to have ended, for the report.
    """

    business_key: str
    instance_id: str | None = None
    shown: bool = False
    refused: bool = False
    end: str | None = None
    problem: str = "it is unknown whether its start was processed"

    def __str__(self) -> str:
        name = f"instance {self.instance_id}" if self.instance_id else "an instance"
        although = ", though its start was refused" if self.refused else ""
        return f"{name} with business key {self.business_key!r}{although}"


@dataclass
class StartedInstances:
    """All starts of one run.

    :param process: the name of the process.
    :param csrf: whether writes need a CSRF token.
    :param granted: the kinds of calls that were granted to this run, ``"an action"`` or ``"setting variables"``. A refusal of
        another kind may mean a missing permission.
    :param needs_sweep: whether some list has not been read since the last start. A start that was resent because its token
        was refused may have created an instance that no answer named.
    """

    process: str
    csrf: bool = False
    starts: list[SentStart] = field(default_factory=list)
    granted: set[str] = field(default_factory=set)
    needs_sweep: bool = False

    def record(self, business_key: str) -> SentStart:
        """Record a start that is about to be sent, and return it."""
        start = SentStart(business_key)
        self.starts.append(start)
        self.needs_sweep = True
        return start

    @property
    def first(self) -> SentStart:
        """The first start whose answer was an instance."""
        return next(start for start in self.starts if start.instance_id and not start.refused)

    def not_ended(self) -> list[SentStart]:
        """Return the starts whose instances are not known to have ended."""
        return [start for start in self.starts if start.end is None]

    def claim(self, rows: Iterable[InstanceRow]) -> None:
        """Record the ids of instances of this run that are in these rows and were unknown so far."""
        for row in rows:
            like = [start for start in self.starts if matches(row, start.business_key)]
            if not like or row["id"] in {start.instance_id for start in self.starts}:
                continue
            start = next((each for each in like if each.instance_id is None), None)
            if start is None:  # one request may have started two
                start = SentStart(like[0].business_key, refused=like[0].refused)
                self.starts.append(start)
            start.instance_id, start.shown = row["id"], True


def find_row(last: InstanceRow) -> ProbeFlow[tuple[InstanceRow | None, Observation]]:
    """Search for an instance in all lists, beginning with the list of its last state.

    :param last: the instance as last observed.
    :returns: its row or ``None``, and the list that shows it; without a row, a failed list if any, or the last one.
    """
    failed: Observation | None = None
    for state in sorted(states.STATES, key=lambda each: each != last["state"]):
        seen = yield Probe(operations.query(state))
        rows = seen.rows
        failed = seen if rows is None else failed
        for row in rows or ():
            if row["id"] == last["id"]:
                return row, seen
    return None, failed or seen


def _poll_pauses() -> Iterable[float]:
    return (0.0, *check_delays(POLL_SECONDS, POLLS))


class AwaitedRow(NamedTuple):
    """The result of polling for an instance."""

    row: InstanceRow | None
    """The row at the last poll, if the instance was visible."""
    is_wanted: bool
    """Whether it meets the condition."""
    lag: float
    """Seconds until the last poll."""
    observation: Observation
    """The list that showed it, or the last one."""


def await_row(
    last: InstanceRow, since: float, is_wanted: Callable[[InstanceRow], bool]
) -> ProbeFlow[AwaitedRow]:
    """Poll for about a minute until the row of an instance meets a condition.

    :param last: the instance as last observed.
    :param since: the time from which to measure the lag, in seconds since the epoch.
    """
    for pause in _poll_pauses():
        yield operations.Sleep(pause)
        row, seen = yield from find_row(last)
        found = AwaitedRow(row, row is not None and is_wanted(row), round(seen.at - since, 1), seen)
        if found.is_wanted or not seen.sent:
            break
    return found


def terminate_all(started: StartedInstances) -> ProbeFlow[None]:
    """Terminate all instances of this run that have not ended, and record the results."""
    yield from _identify(started, refused=False)
    yield from _identify(started, refused=True)
    if started.starts and started.needs_sweep:
        yield from sweep_lists(started, even_if_down=True)
    for start in started.not_ended():
        if start.instance_id is not None:
            yield from terminate_one(started, start)


def action_probe(
    started: StartedInstances, instance_id: str, action: operations.Action, *, even_if_down: bool = False
) -> Probe:
    """Return the probe that suspends, resumes or terminates an instance.

    It is not resent if the server may have processed it: the second answer would be that of a repeated action.
    """
    change = operations.change_state(instance_id, action)
    operation = msgspec.structs.replace(change, resend_if_in_doubt=False)
    return Probe(operation, csrf=started.csrf, remark=action, even_if_down=even_if_down)


class ListSweep(NamedTuple):
    """The result of listing every state once."""

    rows: dict[str, list[InstanceRow]]
    """The rows of each state that could be listed."""
    failed: Observation | None
    """A list that could not be read, if there was one."""
    down: bool
    """Whether the endpoint seemed to be down, so that the remaining states were skipped."""


def sweep_lists(started: StartedInstances, *, even_if_down: bool = False) -> ProbeFlow[ListSweep]:
    """List every state once, and claim the instances of this run.

    :param even_if_down: whether to send requests even if the endpoint seems to be down.
    """
    lists: dict[str, list[InstanceRow]] = {}
    failed: Observation | None = None
    for state in states.STATES:
        seen = yield Probe(operations.query(state), even_if_down=even_if_down)
        rows = seen.rows
        if rows is not None:
            lists[state] = rows
            started.claim(rows)
            continue
        failed = seen
        if seen.error is not None and seen.error.is_transient:
            return ListSweep(lists, failed, down=True)
    started.needs_sweep = False
    return ListSweep(lists, failed, down=False)


def _identify(started: StartedInstances, *, refused: bool) -> ProbeFlow[None]:
    """Search for instances whose ids are unknown.

    :param refused: whether to search for instances of refused starts, or of the others. A refused start normally creates
        nothing, so it is removed if the lists show no instance of it.
    """
    for pause in (0.0, SECOND_SEARCH_DELAY_SECONDS) if refused else _poll_pauses():
        if not _unidentified(started, refused=refused):
            return
        yield operations.Sleep(pause)
        sweep = yield from sweep_lists(started, even_if_down=True)
    for start in _unidentified(started, refused=refused):
        if not refused:
            start.problem = "it is unknown whether its start was processed, and the lists do not show it"
        elif sweep.down:
            start.problem = "its start was refused, and the lists could not be read"
        else:
            started.starts.remove(start)


def _unidentified(started: StartedInstances, *, refused: bool) -> list[SentStart]:
    return [start for start in started.not_ended() if start.instance_id is None and start.refused is refused]


def terminate_one(started: StartedInstances, start: SentStart) -> ProbeFlow[None]:
    """Terminate one instance, and record the result."""
    instance_id = start.instance_id or ""
    for before in TERMINATION_DELAYS_SECONDS:
        yield operations.Sleep(before)
        seen = yield action_probe(started, instance_id, "terminate", even_if_down=True)
        answer = seen.instance
        if answer is not None and has_ended(answer):
            start.end = text(answer, "state")
            return
        accepted = seen.error is None
        for pause in _poll_pauses() if accepted else (0.0,):
            yield operations.Sleep(pause)
            row, lists = yield from find_row({"id": instance_id, "state": states.OPEN_STATES[0]})
            if row is not None and has_ended(row):
                start.end = text(row, "state")
                return
            if row is None and accepted and start.shown and lists.rows is not None:
                start.end = "terminated, and no longer in any list"
                return
            if not lists.sent:
                break
        if row is not None and is_suspended(row):
            # This run may have suspended it, and a suspended instance may not end.
            yield action_probe(started, instance_id, "resume", even_if_down=True)
        reason = seen.error.problem if seen.error else "the last one was accepted"
        state = f"; it is {text(row, 'state')!r}" if row is not None else ""
        requests = len(TERMINATION_DELAYS_SECONDS)
        start.problem = f"it did not end after {requests} requests to terminate it: {reason}{state}"


def has_ended(row: InstanceRow) -> bool:
    """Return whether an instance has certainly ended, by its state, its flag or its end time.

    A broken instance may still be open: if users can repair it, it can also be suspended.
    """
    if row.get("isClosed") is True:
        return True
    if is_broken(row):
        return bool(text(row, "endTime").strip())
    return states.is_terminal(text(row, "state"))


def is_broken(row: InstanceRow) -> bool:
    """Return whether an instance is broken, open or not."""
    return states.class_of(text(row, "state")) is states.StateClass.BROKEN


def is_suspended(row: InstanceRow) -> bool:
    """Return whether an instance is suspended, by its flag or its state."""
    return row.get("suspended") is True or text(row, "state") == states.SUSPENDED
