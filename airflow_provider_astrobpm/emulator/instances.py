"""One BPM instance: how it advances through its script, and the actions on it.

The time is passed in, never read. Before the engine reads an instance it settles it: it calls :meth:`Instance.advance`
until nothing is due. Other modules decide which actions a caller may take and how the API shows an instance.
"""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from airflow_provider_astrobpm.emulator.process_scripts import End, Process, ScriptedOutcome, Step


@dataclass(frozen=True)
class HistoryEntry:
    """An entry in the history of an instance: what happened, and the state after it.

    :param at: seconds since the epoch.
    """

    at: float
    what: str
    state: str
    bp_status: str


class Distortion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The changes that the API makes to an instance when it shows it.

    :param fields: field name to the value that is sent instead of the real one.
    :param without: the names of omitted fields.
    """

    fields: dict[str, Any] = {}
    without: tuple[str, ...] = ()

    def applied(self, shown: dict[str, Any]) -> dict[str, Any]:
        """Return an API object with the distortion applied. No fields are added."""
        if not self.fields and not self.without:
            return shown
        return {
            name: self.fields.get(name, value) for name, value in shown.items() if name not in self.without
        }


@dataclass
class Instance:
    """An open or closed instance.

    :param number: the sequence number; a later instance has a higher one.
    :param started: when it started, in seconds since the epoch, as are ``changed`` and ``ended``.
    :param suspended: whether it is suspended. A suspended instance does not advance, and its timer is paused.
    :param closed: whether it has ended.
    :param entered: how many steps it has entered; a repeated step counts each time.
    :param distortion: the changes that the API makes when it shows the instance.
    """

    number: int
    id: str
    definition_id: str
    process: Process
    business_key: str
    title: str
    created_by: str
    started: float
    variables: dict[str, Any]
    state: str = "New"
    bp_status: str = "New"
    bp_step: str = ""
    element: str = ""
    task_outcome: str = ""
    suspended: bool = False
    closed: bool = False
    entered: int = 0
    ended: float | None = None
    changed: float = 0.0
    history: list[HistoryEntry] = field(default_factory=list)
    distortion: Distortion = field(default_factory=Distortion)
    _step: Step | None = None
    _next: int = 0
    _due: float = math.inf
    _held_for: float = math.inf
    _accepted: list[tuple[float, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Enter the first step. If the script has no steps, its end is due."""
        self.changed = self.started
        if self.process.steps:
            self._enter(0, self.started)
        else:
            self._due = self.started

    @property
    def outcomes(self) -> dict[str, ScriptedOutcome]:
        """The outcomes that a person may choose now; empty while the instance waits for no person."""
        return {} if self._step is None or self.closed or self.suspended else self._step.outcomes

    @property
    def due(self) -> float:
        """When the instance next advances on its own, in seconds since the epoch; infinity if it does not."""
        return min(self._due, self._accepted[0][0] if self._accepted else math.inf)

    @property
    def ends_next(self) -> bool:
        """Whether the next thing that is due is the end of the script."""
        is_acted_on = self._accepted and self._accepted[0][0] <= self._due
        return not is_acted_on and self._next >= len(self.process.steps)

    def advance(self) -> None:
        """Apply the one thing that is due next: a step that ran out, or an accepted action."""
        if self._accepted and self._accepted[0][0] <= self._due:
            self.act(*self._accepted.pop(0))
        else:
            self._enter(self._next, self._due)

    def accept(self, at: float, action: str, terminate_state: str) -> None:
        """Accept an action. It takes effect when the instance is settled to ``at`` or later."""
        insort(self._accepted, (at, action, terminate_state), key=itemgetter(0))

    def act(self, at: float, action: str, terminate_state: str) -> None:
        """Apply an action now. It changes nothing if the instance is in that state already."""
        if self.closed or (action != "terminate" and self.suspended == (action == "suspend")):
            return
        if action == "terminate":
            self.state = terminate_state
            self._close(at)
        elif action == "suspend":
            self.suspended = True
            self._held_for, self._due = self._due - at, math.inf
        else:
            self.suspended = False
            self._due = at + self._held_for
        self._note(at, {"suspend": "suspended", "resume": "resumed", "terminate": "terminated"}[action])

    def decide(self, outcome: ScriptedOutcome, person: str, variables: dict[str, Any], at: float) -> None:
        """Complete the task at which the instance waits.

        :param variables: the values that the person enters. Values that the outcome sets override them.
        """
        self.variables.update({**variables, **outcome.variables})
        self.task_outcome = outcome.task_outcome
        self.bp_status = outcome.bp_status or self.bp_status
        self._note(at, f"{person} chose {outcome.name}")
        if outcome.end is not None:
            self._end(outcome.end, at)
        else:
            self._enter(self._next if outcome.goto is None else self.process.position_of(outcome.goto), at)

    def store(self, variables: dict[str, Any], at: float) -> None:
        """Set declared variables that are not read-only. Other names are silently ignored."""
        self.variables.update(settable(self.process, variables))
        self._note(at, "variables set")

    def move(self, what: str, at: float, *, state: str | None, bp_status: str | None, closed: bool) -> None:
        """Force the instance into a state. A new state stops the timer of the script; a person may still decide."""
        if state is not None:
            self.state = state
            self._due = self._held_for = math.inf
        self.bp_status = self.bp_status if bp_status is None else bp_status
        if closed and not self.closed:
            self._close(at)
        elif self.closed and not closed:
            self.closed, self.ended = False, None
        self._note(at, what)

    def break_(self, at: float) -> None:
        """End as ``Broken``."""
        self.move("broken", at, state="Broken", bp_status=None, closed=True)

    def _enter(self, position: int, at: float) -> None:
        if position >= len(self.process.steps):
            self._end(self.process.end, at)
            return
        step = self._step = self.process.steps[position]
        self.entered += 1
        self._next = position + 1
        self._due = math.inf if step.seconds is None else at + step.seconds
        self.state = step.state
        self.bp_status = step.bp_status or self.bp_status
        self.bp_step = step.bp_step or ""
        self.element = step.element or ""
        self._note(at, f"entered {step.name or step.element or step.state}")

    def _end(self, end: End, at: float) -> None:
        self.state = end.state
        self.bp_status = end.bp_status or self.bp_status
        self._close(at)
        self._note(at, "ended")

    def _close(self, at: float) -> None:
        self.closed, self.ended, self.suspended = True, at, False
        self._step, self._due = None, math.inf
        self._accepted.clear()
        self.bp_step = self.element = ""

    def _note(self, at: float, what: str) -> None:
        self.changed = at
        self.history.append(HistoryEntry(at, what, self.state, self.bp_status))


def settable(process: Process, variables: dict[str, Any]) -> dict[str, Any]:
    """Return the variables that the process declares and does not make read-only."""
    return {name: value for name, value in variables.items() if name in process.settable}
