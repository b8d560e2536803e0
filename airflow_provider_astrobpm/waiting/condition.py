"""The condition of a wait: ``WaitCondition.judge`` decides whether an instance keeps waiting, has succeeded or has failed.

Pure functions. One rule comes first: a wait succeeds only on ``Completed OK`` or on a state or status that was asked for by
name. An unknown state is never a success.

``judge`` checks in this order:

1. The instance is in a failure state or shows a failure business status: failed.
2. Everything that was asked for is there: done. If business statuses are asked for or count as failures, a closed instance
   must show one: an instance that shows none may have any. The same holds for a status with lost characters (U+FFFD).
3. The instance is closed for any other reason: failed.
4. The instance is suspended, and ``on_suspended`` is ``"fail"``: failed.
5. Anything else: waiting.

Blanks around a business status are ignored, in the condition and in what the instance shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_astrobpm.client import states, validation
from airflow_provider_astrobpm.client.texts import REPLACEMENT

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_astrobpm.client.instance import BpmInstance


OnSuspended = Literal["wait", "fail"]
ON_SUSPENDED: tuple[OnSuspended, ...] = ("wait", "fail")


CONDITION_ARGUMENTS = ("states", "bp_statuses", "failed_states", "failed_bp_statuses")
"""The task arguments that make a condition. All of them are templates."""


class NotGiven(Enum):
    """The type of ``NOT_GIVEN``. It is an enum, because copying an enum member returns the same member."""

    NOT_GIVEN = "not given"


NOT_GIVEN: Any = NotGiven.NOT_GIVEN
"""Default for omitted arguments. Not ``None``: a template or a mapping may produce ``None``, and that must be an error."""


def given_condition_arguments(**arguments: Any) -> dict[str, Any]:
    """Return the condition arguments that the author gave, before their templates are rendered.

    :raises ValueError: for ``None``, and for a literal that is a single text or names an unknown state.
    """
    given = {argument: value for argument, value in arguments.items() if value is not NOT_GIVEN}
    for argument, value in given.items():
        if value is None:
            raise ValueError(f"{argument} is None; omit it instead")
        validation.reject_single_text(value, argument)
        if argument in ("states", "failed_states"):
            check_literal_states(value, argument)
    return given


def check_literal_states(value: object, argument: str) -> None:
    """Check literal states while the DAG is parsed. Templates are checked when the task runs.

    :raises ValueError: for an unknown state.
    """
    if isinstance(value, (list, tuple, set, frozenset)):
        written = [state for state in value if isinstance(state, str) and "{" not in state]
        if written:
            states.require_known(written, argument)


NO_NAMES: frozenset[str] = frozenset()  # shared, because most of thousands of waits have empty sets


class Outcome(Enum):
    """What an instance means for the wait."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Verdict:
    """An outcome and the reason for it."""

    outcome: Outcome
    reason: str


# Shared, because one poll may judge ten thousand instances.
_WAITING = Verdict(Outcome.WAITING, "the condition is not met yet")
_DONE = Verdict(Outcome.DONE, "the condition is met")


@dataclass(frozen=True)
class WaitCondition:
    """What must be true of an instance for the wait to succeed, and what makes it fail.

    Without ``states`` and ``bp_statuses`` the instance has to end in ``Completed OK``. With ``states`` it has to be in one of
    them; any state will do, even ``Terminated``, if it was asked for. With ``bp_statuses`` it has to show one of those business
    statuses in a known state that is neither broken nor cancelled. With both, both have to hold in the same poll. A closed
    instance has to show a business status if ``bp_statuses`` or ``failed_bp_statuses`` are given.

    :param states: states to wait for.
    :param bp_statuses: business statuses (``bpStatus``) to wait for.
    :param failed_states: states that fail the wait.
    :param failed_bp_statuses: business statuses that fail the wait.
    :param on_suspended: ``"wait"`` keeps waiting for a suspended instance, ``"fail"`` fails the wait.
    :raises ValueError: for an unknown state, a blank status, or a name that would mean both success and failure.
    """

    states: frozenset[str] = NO_NAMES
    bp_statuses: frozenset[str] = NO_NAMES
    failed_states: frozenset[str] = NO_NAMES
    failed_bp_statuses: frozenset[str] = NO_NAMES
    on_suspended: OnSuspended = "wait"

    def __post_init__(self) -> None:
        for argument in ("states", "failed_states"):
            if chosen := getattr(self, argument):
                states.require_known(chosen, argument)
        for argument in ("bp_statuses", "failed_bp_statuses"):
            if chosen := getattr(self, argument):
                object.__setattr__(self, argument, validation.statuses(chosen, argument))
        validation.choice(self.on_suspended, "on_suspended", ON_SUSPENDED)
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
        """Make a condition from lists. ``None`` asks for nothing.

        :raises ValueError: as the class does, and for an empty list.
        """

        def chosen(names: Collection[str] | None, argument: str) -> frozenset[str]:
            return NO_NAMES if names is None else validation.identifiers(names, argument)

        return cls(
            chosen(states, "states"),
            chosen(bp_statuses, "bp_statuses"),
            chosen(failed_states, "failed_states"),
            chosen(failed_bp_statuses, "failed_bp_statuses"),
            on_suspended,
        )

    def judge(self, instance: BpmInstance) -> Verdict:
        """Return what this instance means for the wait, and why."""
        seen = instance.shown_states()
        # An event or record of an older version of this provider may still have the blanks around the status.
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
    def is_permanent(self) -> bool:
        """Whether an instance that met this once meets it forever: true if it has to end in ``Completed OK``."""
        return not self.states and not self.bp_statuses

    @property
    def only_failing_statuses(self) -> frozenset[str]:
        """The failing business statuses, if no status is asked for by name, so that any other status succeeds."""
        return NO_NAMES if self.bp_statuses else self.failed_bp_statuses

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
        # A status from before the instance broke or was cancelled does not count, nor does one in an unknown state.
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
        return f"it ended in state {instance.state!r}{shown}; the wait was for {' and '.join(asked)}"


def _either(names: Collection[str]) -> str:
    return " or ".join(map(repr, sorted(names)))
