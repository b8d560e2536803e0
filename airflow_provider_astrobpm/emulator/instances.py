"""One BPM instance: how it moves through its script, and what can be done to it.

Time is handed in, never read: :meth:`Instance.settle` brings an instance up to a moment, and whoever looks at an
instance settles it first. What a caller may do, and how it looks on the wire, is decided elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_astrobpm.emulator.process_scripts import End, Process, ScriptedOutcome, Step

ApiAction = Literal["suspend", "resume", "terminate"]


@dataclass(frozen=True)
class HistoryEntry:
    """An entry of an instance's history: what happened, and how the instance stood after it.

    :param at: seconds since the epoch.
    """

    at: float
    what: str
    state: str
    bp_status: str


@dataclass(frozen=True)
class Distortion:
    """How the API shows an instance otherwise than it is.

    :param fields: values by the names of fields, sent in place of the true ones.
    :param without: the names of fields that are left out.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    def applied(self, shown: dict[str, Any]) -> dict[str, Any]:
        """Return an object of the API as it is sent; fields that it has not are not added."""
        if not self.fields and not self.without:
            return shown
        return {
            name: self.fields.get(name, value) for name, value in shown.items() if name not in self.without
        }


@dataclass
class Instance:
    """A running or ended instance.

    :param number: counts the instances; a later one has a higher number.
    :param started: when, in seconds since the epoch; so are ``changed`` and ``ended``.
    :param suspended: whether it is held. A held instance does not move and its timer stands still.
    :param closed: whether it has ended.
    :param entered: how many steps it has entered, each as often as it came to it.
    :param distortion: how the API shows it otherwise than it is.
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
    distortion: Distortion = Distortion()
    _step: Step | None = None
    _next: int = 0
    _due: float = math.inf
    _held_for: float = math.inf
    _accepted: list[tuple[float, ApiAction, str]] = field(default_factory=list)

    @property
    def outcomes(self) -> dict[str, ScriptedOutcome]:
        """What a person may decide now; empty while nobody is awaited."""
        return {} if self._step is None or self.closed or self.suspended else self._step.outcomes

    @property
    def due(self) -> float:
        """When it moves by itself, in seconds since the epoch; infinite if it does not."""
        return min(self._due, self._accepted[0][0] if self._accepted else math.inf)

    @property
    def ends_next(self) -> bool:
        """Whether what happens next by itself is the end of its script."""
        is_acted_on = self._accepted and self._accepted[0][0] <= self._due
        return not is_acted_on and self._next >= len(self.process.steps)

    def begin(self) -> None:
        """Enter the first step; where the script has none, its end is due."""
        self.changed = self.started
        if self.process.steps:
            self._enter(0, self.started)
        else:
            self._due = self.started

    def settle(self, now: float) -> None:
        """Let happen what was due until now: steps that ran out, and actions that take effect late."""
        while self.due <= now:
            self.advance()

    def advance(self) -> None:
        """Let happen the one thing that is due next."""
        if self._accepted and self._accepted[0][0] <= self._due:
            self._apply(*self._accepted.pop(0))
        else:
            self._enter(self._next, self._due)

    def accept(self, action: ApiAction, terminate_state: str, at: float) -> None:
        """Take an action in; it takes effect when the instance is settled to ``at`` or later."""
        self._accepted.append((at, action, terminate_state))
        self._accepted.sort(key=itemgetter(0))

    def act(self, action: ApiAction, terminate_state: str, at: float) -> None:
        """Let an action take effect; one that is so already changes nothing."""
        self._apply(at, action, terminate_state)

    def decide(self, outcome: ScriptedOutcome, person: str, variables: dict[str, Any], at: float) -> None:
        """Complete the task that the instance waits at.

        :param variables: what the person filled in; it comes before what the outcome sets.
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
        """Set declared variables that are not read-only; other names are left out without a word."""
        self.variables.update(settable(self.process, variables))
        self._note(at, "variables set")

    def move(self, what: str, at: float, *, state: str | None, bp_status: str | None, closed: bool) -> None:
        """Put the instance into a state by hand. A new state stops the script's timer, a person may still decide."""
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

    def _apply(self, at: float, action: ApiAction, terminate_state: str) -> None:
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
    """Return those variables that the process declares and that are not read-only."""
    return {
        name: value
        for name, value in variables.items()
        if name in process.variables and name not in process.read_only
    }
