"""What a wait is for: ``WaitCondition.judge`` says of an instance whether to go on, to succeed or to fail.

Pure. The rule above all others: nothing is a success that was not asked for by name, or is not
``Completed OK``; a state that nobody knows never is.

In this order:

1. a failure state or failure business status: failed
2. everything asked for is there: done. An instance that has ended has to show a business status for that, where some are
   asked for or count as failures: one that shows none may have any. So may one that shows a status of which characters were
   lost (U+FFFD)
3. the instance has ended in any other way: failed
4. the instance is suspended, and ``on_suspended`` is ``"fail"``: failed
5. anything else: waiting

Blanks around a business status do not count, neither in what is asked for nor in what an instance shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_astrobpm.bpm import checks, states
from airflow_provider_astrobpm.bpm.texts import REPLACEMENT

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_astrobpm.bpm.instance import BpmInstance


OnSuspended = Literal["wait", "fail"]
ON_SUSPENDED: tuple[OnSuspended, ...] = ("wait", "fail")


ARGUMENTS = ("states", "bp_statuses", "failed_states", "failed_bp_statuses")
"""The arguments of a task that make its condition, all of them templates."""


class NotGiven(Enum):
    """The type of ``NOT_GIVEN``; an enum, because copies of its members are the same member."""

    NOT_GIVEN = "not given"


NOT_GIVEN: Any = NotGiven.NOT_GIVEN
"""The default of those arguments. ``None`` is none: it is what a template or a mapping may leave of a condition."""


def given_conditions(**arguments: Any) -> dict[str, Any]:
    """Return those of a task's condition arguments that were given, before their templates are rendered.

    :raises ValueError: for ``None``, for one text that is written out, and for an unknown state that is.
    """
    given = {argument: value for argument, value in arguments.items() if value is not NOT_GIVEN}
    for argument, value in given.items():
        if value is None:
            raise ValueError(f"{argument} is None; leave it out to ask for nothing")
        checks.not_one_text(value, argument)
        if argument in ("states", "failed_states"):
            check_written_states(value, argument)
    return given


def check_written_states(value: object, argument: str) -> None:
    """Check states that are written out, while the DAG is parsed; what is a template is checked when the task runs.

    :raises ValueError: for an unknown state.
    """
    if isinstance(value, (list, tuple, set, frozenset)):
        written = [state for state in value if isinstance(state, str) and "{" not in state]
        if written:
            states.require_known(written, argument)


NOTHING: frozenset[str] = frozenset()  # one for all: thousands of waits ask for nothing


class Outcome(Enum):
    """What a look at the instance means for the wait."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Verdict:
    """An outcome and the reason for it."""

    outcome: Outcome
    reason: str


# One for all: a look may judge ten thousand instances.
_WAITING = Verdict(Outcome.WAITING, "it has not come to that yet")
_DONE = Verdict(Outcome.DONE, "it is as was asked for")


@dataclass(frozen=True)
class WaitCondition:
    """What has to be true of an instance for the wait to succeed, and what ends it in failure.

    With neither ``states`` nor ``bp_statuses`` the instance has to end in ``Completed OK``. With ``states``
    it has to be in one of them, whichever they are: ``Terminated`` opens the gate if it was asked for. With
    ``bp_statuses`` it has to show one of those business statuses in a known state, not broken, not cancelled.
    With both, both have to hold at the same look. An instance that has ended has to show a business status where
    ``bp_statuses`` or ``failed_bp_statuses`` are given.

    :param states: states to wait for.
    :param bp_statuses: business statuses (``bpStatus``) to wait for.
    :param failed_states: states that fail the wait.
    :param failed_bp_statuses: business statuses that fail the wait.
    :param on_suspended: whether a suspended instance is waited through or fails the wait.
    :raises ValueError: for an unknown state, a blank status, or a name that would both succeed and fail.
    """

    states: frozenset[str] = NOTHING
    bp_statuses: frozenset[str] = NOTHING
    failed_states: frozenset[str] = NOTHING
    failed_bp_statuses: frozenset[str] = NOTHING
    on_suspended: OnSuspended = "wait"

    def __post_init__(self) -> None:
        for argument in ("states", "failed_states"):
            if chosen := getattr(self, argument):
                states.require_known(chosen, argument)
        for argument in ("bp_statuses", "failed_bp_statuses"):
            if chosen := getattr(self, argument):
                object.__setattr__(self, argument, checks.statuses(chosen, argument))
        checks.choice(self.on_suspended, "on_suspended", ON_SUSPENDED)
        if both := (self.states & self.failed_states) | (self.bp_statuses & self.failed_bp_statuses):
            raise ValueError(f"{sorted(both)} cannot mean success and failure at once")

    @classmethod
    def of(
        cls,
        *,
        states: Collection[str] | None = None,
        bp_statuses: Collection[str] | None = None,
        failed_states: Collection[str] | None = None,
        failed_bp_statuses: Collection[str] | None = None,
        on_suspended: OnSuspended = "wait",
    ) -> WaitCondition:
        """Make a condition of lists, or ``None`` where nothing is asked.

        :raises ValueError: as the class does, and for an empty list.
        """

        def chosen(names: Collection[str] | None, argument: str) -> frozenset[str]:
            return NOTHING if names is None else checks.identifiers(names, argument)

        return cls(
            chosen(states, "states"),
            chosen(bp_statuses, "bp_statuses"),
            chosen(failed_states, "failed_states"),
            chosen(failed_bp_statuses, "failed_bp_statuses"),
            on_suspended,
        )

    def judge(self, instance: BpmInstance) -> Verdict:
        """Say what this look at the instance means."""
        seen = instance.shown_states()
        # An event or a record of an older version of this provider may hold it with the blanks around it.
        status = (instance.bp_status or "").strip() or None
        if seen & self.failed_states:
            return Verdict(Outcome.FAILED, f"it is in state {instance.state!r}, one of failed_states")
        if status in self.failed_bp_statuses:
            return Verdict(Outcome.FAILED, f"its business status is {status!r}, one of failed_bp_statuses")
        if self._is_met(instance, seen, status):
            return _DONE
        if instance.is_closed:
            return Verdict(Outcome.FAILED, self._why_not(instance, status))
        if instance.suspended and self.on_suspended == "fail":
            return Verdict(Outcome.FAILED, 'it is suspended, and on_suspended is "fail"')
        return _WAITING

    @property
    def is_lasting(self) -> bool:
        """Whether an instance that has met this once meets it for ever: where it had to end in ``Completed OK``."""
        return not self.states and not self.bp_statuses

    @property
    def failing_statuses_alone(self) -> frozenset[str]:
        """The business statuses that fail, where none is asked for by name, so that any other one succeeds."""
        return NOTHING if self.bp_statuses else self.failed_bp_statuses

    def _is_met(self, instance: BpmInstance, seen: frozenset[str], status: str | None) -> bool:
        if self.states and not seen & self.states:
            return False
        if self.failed_bp_statuses and (REPLACEMENT in status if status else instance.is_closed):
            return False
        if not self.bp_statuses:
            return bool(self.states) or instance.state == states.COMPLETED
        if status not in self.bp_statuses:
            return False
        if self.states or instance.state == states.COMPLETED:
            return True
        # A status that was reached before the instance broke or was cancelled opens nothing, nor does one that
        # stands beside a state nobody knows.
        return instance.state in states.STATES and not instance.is_closed

    def _why_not(self, instance: BpmInstance, status: str | None) -> str:
        asked = [f"state {_either(self.states or {states.COMPLETED})}"]
        if self.bp_statuses:
            asked.append(f"business status {_either(self.bp_statuses)}")
        elif self.failed_bp_statuses and (status is None or REPLACEMENT in status):
            asked.append(f"a business status other than {_either(self.failed_bp_statuses)}")
        if status is not None:
            shown = f" with business status {status!r}"
        else:
            shown = " without showing a business status" if len(asked) > 1 else ""
        return f"it ended in state {instance.state!r}{shown}; asked for was {' and '.join(asked)}"


def _either(names: Collection[str]) -> str:
    return " or ".join(map(repr, sorted(names)))
