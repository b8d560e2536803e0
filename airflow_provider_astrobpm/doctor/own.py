"""What a run with --start has started: it is written down before each start is sent, and terminated at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.bpm import api, states
from airflow_provider_astrobpm.doctor.asking import Ask, instance_of, raw, rows_of, text

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.doctor.asking import Probing, Row, Seen

# Seconds between two looks for something that does not show yet, about a minute in all: the lists are long.
PAUSES = (1, 2, 4, 8, 8, 8, 8, 8, 8, 8)
ATTEMPTS_AFTER = (0, 2, 8)  # seconds before each attempt to terminate an instance


@dataclass
class Started:
    """One start that was sent.

    :param business_key: the key that the instance carries.
    :param instance_id: its id, once it is known.
    :param shown: whether it has shown in the lists.
    :param end: how it ended, once it has: words for the report.
    :param problem: why it is not known to have ended.
    """

    business_key: str
    instance_id: str | None = None
    shown: bool = False
    end: str | None = None
    problem: str = "whether its start was taken is not known"

    def __str__(self) -> str:
        name = f"instance {self.instance_id}" if self.instance_id else "an instance"
        return f"{name} with business key {self.business_key!r}"


@dataclass
class Own:
    """All starts of one run.

    :param process: the name of the process.
    :param csrf: whether writes carry a CSRF token.
    """

    process: str
    csrf: bool = False
    starts: list[Started] = field(default_factory=list)

    def left(self) -> list[Started]:
        """Return what is not known to have ended."""
        return [start for start in self.starts if start.end is None]


def find(instance_id: str, last_state: str) -> Probing[tuple[Row | None, Seen]]:
    """Look for an instance in all lists, that of its last state first.

    :returns: its row, or ``None``; and the list that shows it, or else one that failed, or else the last one.
    """
    failed: Seen | None = None
    for state in sorted(states.STATES, key=lambda each: each != last_state):
        seen = yield Ask(raw(api.query(state)))
        rows = rows_of(seen)
        failed = seen if rows is None else failed
        for row in rows or ():
            if row["id"] == instance_id:
                return row, seen
    return None, failed or seen


class Look(NamedTuple):
    """What a look that was repeated has found."""

    wanted: Row | None
    """The instance as it was wanted, if it ever showed so."""
    last: Row | None
    """The instance at the last look, if it showed."""
    seen: Seen
    """The list that showed it, or the last one."""
    at: float
    """The time of the last look, in seconds since the epoch."""


def find_until(
    instance_id: str, last_state: str, wanted: Callable[[Row], bool], clock: Callable[[], float]
) -> Probing[Look]:
    """Look until an instance shows as it is wanted, for about a minute."""
    for pause in (*PAUSES, None):
        row, seen = yield from find(instance_id, last_state)
        if row is not None and wanted(row):
            return Look(row, row, seen, clock())
        if not seen.asked:
            break
        if pause is not None:
            yield api.Pause(pause)
    return Look(None, row, seen, clock())


def end_all(own: Own) -> Probing[None]:
    """Terminate everything that was started and has not ended, and write down what came of it."""
    for start in own.left():
        if start.instance_id is None:
            yield from _identify(own, start)
        if start.instance_id is not None:
            yield from end_one(own, start)


def act(own: Own, instance_id: str, action: api.Action, *, must: bool = False) -> Ask:
    """Return the question that suspends, resumes or terminates.

    It is not sent again when it may have been taken: the second answer would tell of acting twice.
    """
    operation = raw(api.act(instance_id, action), resend_if_unsure=False)
    return Ask(operation, csrf=own.csrf, remark=action, must=must)


def _identify(own: Own, start: Started) -> Probing[None]:
    """Look for an instance whose start was not answered, by its business key."""
    for pause in (*PAUSES, None):
        for state in states.STATES:
            seen = yield Ask(raw(api.query(state)), must=True)
            if seen.error is not None and seen.error.passing:
                break  # it may be down: try again after the pause, not state by state
            for row in rows_of(seen) or ():
                known = {each.instance_id for each in own.starts}
                if text(row, "businessKey") == start.business_key and row["id"] not in known:
                    start.instance_id, start.shown = row["id"], True
                    return
        if pause is not None:
            yield api.Pause(pause)
    start.problem = "whether its start was taken is not known, and it does not show in the lists"


def end_one(own: Own, start: Started) -> Probing[None]:
    """Terminate one instance, and write down what came of it."""
    instance_id = start.instance_id or ""
    for before in ATTEMPTS_AFTER:
        if before:
            yield api.Pause(before)
        seen = yield act(own, instance_id, "terminate", must=True)
        answer = instance_of(seen)
        if answer is not None and has_ended(answer):
            start.end = text(answer, "state")
            return
        accepted = seen.error is None
        for pause in (*PAUSES, None) if accepted else (None,):
            row, lists = yield from find(instance_id, states.OPEN_STATES[0])
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
        reason = seen.error.problem if seen.error else "it was accepted, and the instance was not seen to end"
        start.problem = f"to terminate it was tried {len(ATTEMPTS_AFTER)} times: {reason}"


def has_ended(row: Row) -> bool:
    """Tell whether an instance has ended, by its state or its flag."""
    return states.is_terminal(text(row, "state")) or row.get("isClosed") is True
