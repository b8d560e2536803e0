"""What a run with --start has started: it is written down before each start is sent, and terminated at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.bpm import api, states
from airflow_provider_astrobpm.doctor.observation import Probe, instance_of, raw, rows_of, text
from airflow_provider_astrobpm.doctor.start_markers import matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_astrobpm.doctor.observation import Observation, ProbeFlow, Row

# Seconds between two looks for something that does not show yet, about a minute in all: the lists are long.
POLL_DELAYS_SECONDS = (1, 2, 4, 8, 8, 8, 8, 8, 8, 8)
REFUSED_START_POLL_DELAYS_SECONDS = (4,)
TERMINATION_DELAYS_SECONDS = (0, 2, 8)  # seconds before each attempt to terminate an instance


@dataclass
class SentStart:
    """One start that was sent.

    :param business_key: the key that the instance carries.
    :param instance_id: its id, once it is known.
    :param shown: whether it has shown in the lists.
    :param refused: whether the start was refused. A gateway may refuse what the server has carried out before.
    :param end: how it ended, once it has: words for the report.
    :param problem: why it is not known to have ended.
    """

    business_key: str
    instance_id: str | None = None
    shown: bool = False
    refused: bool = False
    end: str | None = None
    problem: str = "whether its start was taken is not known"

    def __str__(self) -> str:
        name = f"instance {self.instance_id}" if self.instance_id else "an instance"
        although = ", though its start was refused" if self.refused else ""
        return f"{name} with business key {self.business_key!r}{although}"


@dataclass
class StartedInstances:
    """All starts of one run.

    :param process: the name of the process.
    :param csrf: whether writes carry a CSRF token.
    :param granted: the kinds of calls that were granted to this run. What is refused of another kind may be for want of a right.
    :param unseen: whether the lists have not all been read since the last start. A start that was sent again because its token
        was refused may have left an instance that no answer named.
    """

    process: str
    csrf: bool = False
    starts: list[SentStart] = field(default_factory=list)
    granted: set[str] = field(default_factory=set)
    needs_sweep: bool = False

    def begin(self, business_key: str) -> SentStart:
        """Write down a start that is about to be sent."""
        start = SentStart(business_key)
        self.starts.append(start)
        self.needs_sweep = True
        return start

    @property
    def first(self) -> SentStart:
        """The first start that was answered by an instance."""
        return next(start for start in self.starts if start.instance_id and not start.refused)

    def not_ended(self) -> list[SentStart]:
        """Return what is not known to have ended."""
        return [start for start in self.starts if start.end is None]

    def claim(self, rows: Iterable[Row]) -> list[SentStart]:
        """Write down which rows are of instances that this run has started and whose ids were not known yet.

        :returns: what was found so.
        """
        found = []
        for row in rows:
            like = [start for start in self.starts if matches(row, start.business_key)]
            if not like or row["id"] in {start.instance_id for start in self.starts}:
                continue
            start = next((each for each in like if each.instance_id is None), None)
            if start is None:  # one request may have started two
                start = SentStart(like[0].business_key, refused=like[0].refused)
                self.starts.append(start)
            start.instance_id, start.shown = row["id"], True
            found.append(start)
        return found


def find_row(instance_id: str, last_state: str) -> ProbeFlow[tuple[Row | None, Observation]]:
    """Look for an instance in all lists, that of its last state first.

    :returns: its row, or ``None``; and the list that shows it, or else one that failed, or else the last one.
    """
    failed: Observation | None = None
    for state in sorted(states.STATES, key=lambda each: each != last_state):
        seen = yield Probe(raw(api.query(state)))
        rows = rows_of(seen)
        failed = seen if rows is None else failed
        for row in rows or ():
            if row["id"] == instance_id:
                return row, seen
    return None, failed or seen


class AwaitedRow(NamedTuple):
    """What a look that was repeated has found."""

    wanted: Row | None
    """The instance as it was wanted, if it ever showed so."""
    last: Row | None
    """The instance at the last look, if it showed."""
    observation: Observation
    """The list that showed it, or the last one."""
    at: float
    """The time of the last look, in seconds since the epoch."""


def await_row(
    instance_id: str, last_state: str, wanted: Callable[[Row], bool], clock: Callable[[], float]
) -> ProbeFlow[AwaitedRow]:
    """Look until an instance shows as it is wanted, for about a minute."""
    for pause in (*POLL_DELAYS_SECONDS, None):
        row, seen = yield from find_row(instance_id, last_state)
        if row is not None and wanted(row):
            return AwaitedRow(row, row, seen, clock())
        if not seen.asked:
            break
        if pause is not None:
            yield api.Pause(pause)
    return AwaitedRow(None, row, seen, clock())


def terminate_all(own: StartedInstances) -> ProbeFlow[None]:
    """Terminate everything that was started and has not ended, and write down what came of it."""
    yield from _identify(own, refused=False)
    yield from _identify(own, refused=True)
    if own.starts and own.needs_sweep:
        yield from sweep_lists(own, even_if_down=True)
    for start in own.not_ended():
        if start.instance_id is not None:
            yield from terminate_one(own, start)


def action_probe(
    own: StartedInstances, instance_id: str, action: api.Action, *, even_if_down: bool = False
) -> Probe:
    """Return the question that suspends, resumes or terminates.

    It is not sent again when it may have been taken: the second answer would tell of acting twice.
    """
    operation = raw(api.act(instance_id, action), resend_if_unsure=False)
    return Probe(operation, csrf=own.csrf, remark=action, even_if_down=even_if_down)


class ListSweep(NamedTuple):
    """What listing every state has shown."""

    rows: dict[str, list[Row]]
    """The rows of each state that could be listed."""
    failed: Observation | None
    """A list that could not be read, if there was one."""
    down: bool
    """Whether the endpoint seemed to be down, so that the rest was not asked."""


def sweep_lists(own: StartedInstances, *, even_if_down: bool = False) -> ProbeFlow[ListSweep]:
    """List every state once, and claim what this run has started.

    :param must: whether to ask even an endpoint that seems to have gone.
    """
    lists: dict[str, list[Row]] = {}
    failed: Observation | None = None
    for state in states.STATES:
        seen = yield Probe(raw(api.query(state)), even_if_down=even_if_down)
        rows = rows_of(seen)
        if rows is not None:
            lists[state] = rows
            own.claim(rows)
            continue
        failed = seen
        if seen.error is not None and seen.error.passing:
            return ListSweep(lists, failed, down=True)
    own.needs_sweep = False
    return ListSweep(lists, failed, down=False)


def _identify(own: StartedInstances, *, refused: bool) -> ProbeFlow[None]:
    """Look for instances whose starts were not answered by an instance.

    :param refused: whether to look for those whose starts were refused, or for the others. A refused start is expected to
        have started nothing, so it is crossed out where the lists show nothing of it.
    """
    for pause in (*(REFUSED_START_POLL_DELAYS_SECONDS if refused else POLL_DELAYS_SECONDS), None):
        missing = _unidentified(own, refused=refused)
        if not missing:
            return
        look = yield from sweep_lists(own, even_if_down=True)
        if pause is not None and _unidentified(own, refused=refused):
            yield api.Pause(pause)
    for start in _unidentified(own, refused=refused):
        if not refused:
            start.problem = "whether its start was taken is not known, and it does not show in the lists"
        elif look.down:
            start.problem = "its start was refused, and the lists that would show it could not be read"
        else:
            own.starts.remove(start)


def _unidentified(own: StartedInstances, *, refused: bool) -> list[SentStart]:
    return [start for start in own.not_ended() if start.instance_id is None and start.refused is refused]


def terminate_one(own: StartedInstances, start: SentStart) -> ProbeFlow[None]:
    """Terminate one instance, and write down what came of it."""
    instance_id = start.instance_id or ""
    for before in TERMINATION_DELAYS_SECONDS:
        if before:
            yield api.Pause(before)
        seen = yield action_probe(own, instance_id, "terminate", even_if_down=True)
        answer = instance_of(seen)
        if answer is not None and has_ended(answer):
            start.end = text(answer, "state")
            return
        accepted = seen.error is None
        for pause in (*POLL_DELAYS_SECONDS, None) if accepted else (None,):
            row, lists = yield from find_row(instance_id, states.OPEN_STATES[0])
            if row is not None and has_ended(row):
                start.end = text(row, "state")
                return
            if row is None and accepted and start.shown and rows_of(lists) is not None:
                start.end = "terminated, and in none of the lists any more"
                return
            if not lists.asked:
                break
            if pause is not None:
                yield api.Pause(pause)
        if row is not None and is_suspended(row):
            yield action_probe(
                own, instance_id, "resume", even_if_down=True
            )  # it may be held by this run, and not end while it is
        reason = seen.error.problem if seen.error else "it was accepted, and the instance was not seen to end"
        at_last = f"; it is {text(row, 'state')!r}" if row is not None else ""
        start.problem = (
            f"to terminate it was tried {len(TERMINATION_DELAYS_SECONDS)} times: {reason}{at_last}"
        )


def has_ended(row: Row) -> bool:
    """Tell whether an instance has certainly ended, by its state, its flag or the time of its end.

    That an instance is broken does not say so: where people can repair one it is open still, and can be suspended.
    """
    if row.get("isClosed") is True:
        return True
    if is_broken(row):
        return bool(text(row, "endTime").strip())
    return states.is_terminal(text(row, "state"))


def is_broken(row: Row) -> bool:
    """Tell whether an instance is broken, whether it has ended or not."""
    return states.class_of(text(row, "state")) is states.StateClass.BROKEN


def is_suspended(row: Row) -> bool:
    """Tell whether an instance is suspended, by its flag or its state."""
    return row.get("suspended") is True or text(row, "state") == states.SUSPENDED
