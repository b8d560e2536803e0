"""What a change of an instance results in: a row for each change, and one judgement for one instance and for many. Pure.

It is undocumented in which states a change is allowed, what a repeated change does, and what a change of an ended instance
does (API pages 0071 to 0073). So the instance is read again, unless the answer is conclusive:

| the call               | and then the instance is | suspend, resume, terminate    | delete                | set      |
|------------------------|--------------------------|-------------------------------|-----------------------|----------|
| was certainly not sent | not read                 | failed                        | failed                | failed   |
| was accepted           | as the change wants it   | done                          | done, it is not read  | the same |
| was accepted           | ended otherwise          | ``if_closed``                 |                       |          |
| was accepted           | none of these            | in doubt                      |                       |          |
| was refused            | as the change wants it   | done; if ended, ``if_closed`` | ``if_missing``        | failed   |
| was lost               | as the change wants it   | done                          | done, if it was there | in doubt |
| was refused or lost    | ended otherwise          | ``if_closed``                 |                       |          |
| was refused or lost    | without the effect       | failed                        | failed                |          |
| was refused or lost    | in none of the states    | not found                     |                       |          |

With ``if_closed="fail"`` or ``if_missing="fail"`` the instance is read before, and that decides whether this change ended or
deleted it: it was open before, and is not afterwards, unless Astro Zero refused the only request that was sent.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, NamedTuple

from airflow_provider_astrobpm.client.errors import (
    AnotherInstanceError,
    AstroZeroError,
    AuthenticationError,
    CallError,
    EffectNotShownError,
    InstanceClosedError,
    InstanceNotFoundError,
    NotSentError,
)
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.operations import Action
from airflow_provider_astrobpm.client.states import StateClass, class_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.client.sameness import KnownIdentity

ChangeName = Action | Literal["delete", "set"]
Seen = BpmInstance | AstroZeroError
"""An instance as it was read, or why it could not be read."""


class ChangeRow(NamedTuple):
    """One kind of change."""

    do: str
    """The beginning of a sentence about instances to change."""
    done: str
    """The beginning of a sentence about changed instances."""
    already: str = ""
    """How to describe an instance that needs no change."""
    shows_effect: Callable[[BpmInstance], bool] | None = None
    """Whether an instance shows the effect; ``None`` if no instance can show it."""
    removes: bool = False
    """Whether the effect is that the instance does not exist any more."""
    doubt: str = ""
    """What an error adds if the answer was lost and no instance can show the effect."""


CHANGES: dict[ChangeName, ChangeRow] = {
    "suspend": ChangeRow(
        "Suspend", "Suspended", "suspended already", lambda one: one.suspended and not one.is_closed
    ),
    "resume": ChangeRow(
        "Resume", "Resumed", "not suspended", lambda one: not one.suspended and not one.is_closed
    ),
    "terminate": ChangeRow(
        "Terminate",
        "Terminated",
        "terminated already",
        lambda one: class_of(one.state) is StateClass.CANCELLED,
    ),
    "delete": ChangeRow("Delete", "Deleted", removes=True),
    # Unknown and read-only names are silently ignored (API page 0073), and reading variables is undocumented.
    "set": ChangeRow(
        "Set the variables of",
        "Set the variables of",
        doubt="; the variables may have been set anyway, and there is no way to check",
    ),
}


class ChangeOutcome(Enum):
    """The outcome of a change for one instance."""

    DONE = "done"
    """It is as the change wants it, because of the change or already before."""
    ENDED = "ended"
    """It ended in another way, so there was nothing to do."""
    FAILED = "failed"
    """It is not as the change wants it, as far as known."""
    IN_DOUBT = "in doubt"
    """The change may have worked: it was accepted but does not show, or the instance has disappeared."""


class ChangeResult(NamedTuple):
    """The result of a change for one instance."""

    outcome: ChangeOutcome
    note: str
    """What happened, in words."""
    seen: Seen | None = None
    """The instance as last seen, or why it could not be read; ``None`` if it was not read."""
    error: AstroZeroError | None = None
    """The error of a task for which this result is a failure."""

    @property
    def instance(self) -> BpmInstance | None:
        """The instance as last seen, if it could be read."""
        return self.seen if isinstance(self.seen, BpmInstance) else None

    @property
    def reason(self) -> str:
        """Why the change failed, without action, connection and id, because thousands may fail for the same reason."""
        cause, lead = self.error, ""
        if isinstance(cause, EffectNotShownError) and isinstance(self.seen, InstanceNotFoundError):
            cause, lead = self.seen, "accepted, but "
        if cause is None or isinstance(cause, EffectNotShownError):
            return self.note
        brief = copy(cause)
        brief.attempt = brief.connection = None
        if isinstance(brief, InstanceNotFoundError):
            brief.problem = f"it{brief.problem.removeprefix(brief.sought)}"
        return f"{lead}{brief}".removesuffix(".")

    def checked(self) -> ChangeResult:
        """Return this result, or raise its error."""
        if self.error is not None:
            raise self.error from None
        return self


@dataclass(frozen=True)
class ChangeAttempt:
    """One change of one instance, with what is known about it so far.

    :param answer: the error of the call, or the instance in its answer, if that shows one.
    :param must_act: whether an instance that had ended or was missing before counts as a failure.
    :param before: the instance before the change; ``None`` if it was not read.
    """

    instance_id: str
    action: ChangeName
    answer: BpmInstance | CallError | None = None
    must_act: bool = False
    before: Seen | None = None

    @property
    def failure(self) -> CallError | None:
        """The error of the call; ``None`` if the change was accepted."""
        return self.answer if isinstance(self.answer, CallError) else None

    @property
    def needs_check(self) -> bool:
        """Whether the instance must be read after the answer."""
        if isinstance(self.answer, CallError):
            can_show = self._row.removes or self._row.shows_effect is not None
            return can_show and not was_certainly_not_sent(self.answer)
        return self.answer is not None and not self._is_settled(self.answer)

    def is_final(self, seen: Seen) -> bool:
        """Return whether further reads cannot change the result."""
        may_still_show = self.failure is None or self.failure.may_have_been_processed
        return self._is_settled(seen) or not may_still_show

    def judge_before(self, known: KnownIdentity, *, begun: bool) -> ChangeResult | None:
        """Return the result if nothing is to be sent, by the instance as it was before.

        :param begun: whether an earlier try of the task found the instance as the change requires it, and sent the change.
        """
        before, by_earlier = self.before, "by an earlier try of this task"
        if isinstance(before, BpmInstance) and not known.matches(before):
            return _failed(AnotherInstanceError(before, known), before)
        if self._row.removes:
            # The deletion is sent even if the search finds nothing, because lists may be truncated.
            is_gone = begun and isinstance(before, InstanceNotFoundError)
            return _done(f"instance {self.instance_id!r} was deleted {by_earlier}") if is_gone else None
        if not self.must_act or before is None:
            return None
        if isinstance(before, AstroZeroError):
            return _failed(before, before)
        if begun and before.is_closed and has_effect(before, self.action):
            return _done(f"{self.action}: done {by_earlier}, {before}", before)
        return self._ended(before) if before.is_closed else None

    def judge(self, seen: Seen | None = None, searched: float = 0.0) -> ChangeResult:
        """Return the result, by the table above.

        :param seen: the instance as last seen, or why it could not be read; ``None`` if it was not read after the answer.
        :param searched: the seconds for which it was checked.
        """
        failure = self.failure
        if failure is None:
            return self._judge_accepted(self.answer if seen is None else seen, searched)
        if seen is None:
            doubt = self._row.doubt if failure.may_have_been_processed else ""
            return _failed(_extended(failure, doubt) if doubt else failure, in_doubt=bool(doubt))
        if isinstance(seen, InstanceNotFoundError):
            return self._judge_missing(failure, seen)
        if isinstance(seen, AstroZeroError) or not self._is_settled(seen):
            return _failed(_extended(failure, _describe_after(failure, seen, searched)), seen)
        return self._judge_settled(failure, seen)

    def _judge_accepted(self, seen: Seen | None, searched: float) -> ChangeResult:
        if not isinstance(self.answer, BpmInstance) or seen is None:
            note = f"instance {self.instance_id!r} deleted" if self._row.removes else f"{self.action}: done"
            return _done(note)
        if isinstance(seen, AstroZeroError) or not self._is_settled(seen):
            words = _describe_accepted(seen, searched)
            last = seen if isinstance(seen, BpmInstance) else self.answer
            error = EffectNotShownError(self.instance_id, self.action, words, last)
            return ChangeResult(ChangeOutcome.IN_DOUBT, words, seen, error)
        shows = has_effect(seen, self.action)
        return _done(f"{self.action}: done, {seen}", seen) if shows else self._ended(seen)

    def _judge_settled(self, failure: CallError, seen: BpmInstance) -> ChangeResult:
        """Judge an instance that shows the effect, or has ended, after a failed call."""
        is_lost = failure.may_have_been_processed
        is_foreign = seen.is_closed and not is_lost and not (self.must_act and _may_be_by(failure))
        if is_foreign or not has_effect(seen, self.action):
            return self._ended(seen)
        words = "nothing to do"
        if is_lost:
            words = "done, although an answer was lost"
        elif seen.is_closed:  # with ``if_closed="fail"`` it was open just before
            words = "done, although the answer says otherwise"
        return _done(f"{self.action}: {words}, {seen}", seen)

    def _judge_missing(self, failure: CallError, seen: InstanceNotFoundError) -> ChangeResult:
        """Judge an instance that is in none of the states after a failed call."""
        what = f"instance {self.instance_id!r}"
        if self._row.removes and not self.must_act:
            words = "does not exist; it is unknown whether it existed before this deletion"
            return _done(f"{what} {words if failure.may_have_been_processed else 'did not exist'}", seen)
        if self._row.removes and isinstance(self.before, BpmInstance) and _may_be_by(failure):
            return _done(f"{what} is gone, although the answer to its deletion was lost", seen)
        if self._row.removes and isinstance(self.before, CallError):
            words = "; the instance does not exist, and it is unknown whether it existed before"
            return _failed(_extended(failure, words), seen, in_doubt=True)
        return _failed(_with_answer(seen, failure), seen, in_doubt=True)

    @property
    def _row(self) -> ChangeRow:
        return CHANGES[self.action]

    def _is_settled(self, seen: Seen) -> bool:
        """Return whether the effect shows, or never will because the instance has ended."""
        if self._row.removes:
            return isinstance(seen, InstanceNotFoundError)
        return isinstance(seen, BpmInstance) and (seen.is_closed or has_effect(seen, self.action))

    def _ended(self, seen: BpmInstance) -> ChangeResult:
        outcome = ChangeOutcome.DONE if has_effect(seen, self.action) else ChangeOutcome.ENDED
        words = f"{self.action}: nothing to do, it has already ended, {seen}"
        return ChangeResult(outcome, words, seen, InstanceClosedError(seen) if self.must_act else None)


def has_effect(instance: BpmInstance, action: ChangeName) -> bool:
    """Return whether an instance shows the effect of a change."""
    shows_effect = CHANGES[action].shows_effect
    return shows_effect is not None and shows_effect(instance)


def was_certainly_not_sent(failure: CallError) -> bool:
    """Return whether a failed call certainly did not reach Astro Zero."""
    return isinstance(failure, (NotSentError, AuthenticationError)) and not failure.earlier_attempt_in_doubt


def _may_be_by(failure: CallError) -> bool:
    """Return whether the failed call may have caused the change that was seen afterwards.

    Only Astro Zero's own refusal of the only request proves that it did not. A gateway may refuse a request after it took effect.
    """
    return failure.may_have_been_processed or failure.earlier_attempt_sent or failure.res_code is None


def _describe_accepted(seen: Seen, searched: float) -> str:
    """Describe a change that was accepted but shows no effect after it was checked for some seconds."""
    if isinstance(seen, InstanceNotFoundError):
        return f"accepted, but {seen.problem}"
    if isinstance(seen, AstroZeroError):
        return f"accepted, but then the instance could not be read ({seen.problem})"
    when = f"shows no effect after {searched:g} s" if searched > 0 else "shows no effect yet"
    return f"accepted, but {when}: the instance is {_describe_state(seen)}"


def _describe_after(failure: CallError, seen: Seen, searched: float) -> str:
    """Describe an instance after a failed change, as the end of a sentence."""
    if isinstance(seen, AstroZeroError):
        return f", and afterwards the instance could not be read ({seen.problem})"
    when = f"after {searched:g} s " if failure.may_have_been_processed and searched > 0 else ""
    return f", and {when}the instance is {_describe_state(seen)}"


def _describe_state(instance: BpmInstance) -> str:
    return f"{instance.state!r}{', suspended' if instance.suspended else ''}"


def _done(note: str, seen: Seen | None = None) -> ChangeResult:
    return ChangeResult(ChangeOutcome.DONE, note, seen)


def _failed(error: AstroZeroError, seen: Seen | None = None, *, in_doubt: bool = False) -> ChangeResult:
    outcome = ChangeOutcome.IN_DOUBT if in_doubt else ChangeOutcome.FAILED
    return ChangeResult(outcome, error.problem, seen, error)


def _extended(error: CallError, words: str) -> CallError:
    """Return a copy of an error with more words. Thousands of instances may share the original."""
    extended = copy(error)
    extended.problem += words
    return extended


def _with_answer(missing: InstanceNotFoundError, failure: CallError) -> InstanceNotFoundError:
    """Return an error with the server's answer to the change, the first sign that the instance is missing."""
    answered = copy(missing)
    answered.status, answered.res_code, answered.res_msg = failure.status, failure.res_code, failure.res_msg
    answered.attempt, answered.connection = failure.attempt, failure.connection
    return answered
