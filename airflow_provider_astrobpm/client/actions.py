"""Flows that change an instance and judge the result by the state in which the instance is afterwards.

It is undocumented in which states an action is allowed, what a repeated action does, and what an action on an ended instance
does (API page 0071). So the instance is read again after a refused action:

| after the refusal it is          | suspend          | resume           | terminate        |
|----------------------------------|------------------|------------------|------------------|
| in none of the states            | not found        | not found        | not found        |
| ended                            | ``if_closed``    | ``if_closed``    | ``if_closed``    |
| open, with the effect            | already done     | already done     | (has not ended)  |
| open, without the effect         | the refusal      | the refusal      | the refusal      |

What was seen before decides whether this action ended the instance: an instance that was open before, and is terminated
after our action, was terminated by it, unless Astro Zero refused the only request that was sent.

An action that was accepted, or whose answer was lost, may take a while to show. So the instance is checked repeatedly for a
limited time. If the effect does not show by then, the error says what was accepted and what was seen.

If more than its id is known about the instance, it is read before anything is sent. Another instance that has its id now is
left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_astrobpm.client import operations, validation
from airflow_provider_astrobpm.client import variables as values
from airflow_provider_astrobpm.client.effect import (
    EffectCheck,
    describe_accepted,
    describe_after_failure,
    has_effect,
    is_settled,
)
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
from airflow_provider_astrobpm.client.sameness import KnownIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.operations import Action, Flow

NOTHING_KNOWN = KnownIdentity()
IfClosed = Literal["succeed", "fail"]
IfMissing = Literal["succeed", "fail"]


@dataclass(frozen=True)
class StateChange:
    """The result of an action.

    :param instance: the instance as last seen.
    :param note: what happened, in words.
    :param is_confirmed: whether the instance already shows the effect.
    """

    instance: BpmInstance
    note: str
    is_confirmed: bool = True


@dataclass(frozen=True)
class Intent:
    """What the tries of a task record about one action.

    :param begun: whether an earlier try found the instance in the state required before the action, and then sent the action.
    :param begin: records that, before the action is sent.
    """

    begun: bool = False
    begin: Callable[[], None] = lambda: None


FIRST_TRY = Intent()


def change_state(
    instance_id: str,
    action: Action,
    *,
    find: Callable[[str], Flow[BpmInstance]],
    if_closed: IfClosed = "succeed",
    known: KnownIdentity = NOTHING_KNOWN,
    grace: float | None = None,
    intent: Intent = FIRST_TRY,
) -> Flow[StateChange]:
    """Suspend, resume or terminate an instance.

    :param instance_id: the instance's id.
    :param action: the action.
    :param find: a flow that finds an instance by its id.
    :param if_closed: whether to succeed if the instance has already ended. With ``"fail"`` it is read first, because afterwards
        an earlier end cannot be distinguished from this one.
    :param known: what is known about the instance in addition to its id. If it cannot be read first, the action is sent anyway.
    :param grace: the seconds for which to check for the effect of an action that was accepted or whose answer was lost. With
        ``None`` it is checked once, and ``is_confirmed`` says whether the effect showed.
    :param intent: what earlier tries of a task recorded about the same action; for ``if_closed="fail"``.
    :raises AnotherInstanceError: if its id shows another instance.
    :raises InstanceNotFoundError: if there is no such instance.
    :raises InstanceClosedError: if it has ended, but not by this action, and ``if_closed`` is ``"fail"``.
    :raises EffectNotShownError: if the action was accepted, but its effect does not show in time.
    :raises CallError: if the action failed, and the instance does not show its effect.
    """
    validation.choice(if_closed, "if_closed", validation.SUCCEED_OR_FAIL)
    operation = operations.change_state(instance_id, action)
    if if_closed == "fail":
        before = yield from find(instance_id)
        _check_is_same(before, known)
        if before.is_closed and intent.begun and has_effect(before, action):
            return StateChange(before, f"{action}: done by an earlier try of this task, {before}")
        if before.is_closed:
            raise InstanceClosedError(before)
        intent.begin()
    elif known != NOTHING_KNOWN and (seen := (yield from _read_if_possible(instance_id, find))) is not None:
        _check_is_same(seen, known)
    check = EffectCheck(instance_id, action, find, grace)
    try:
        instance: BpmInstance = yield operation
    except CallError as failure:
        if was_certainly_not_sent(failure):
            raise
        return (yield from _after_failure(check, failure, if_closed))
    if not is_settled(instance, action):
        # The documented example of suspend shows the effect in the answer. If this answer does not, check again.
        outcome = yield from _after_acceptance(check, instance)
        if isinstance(outcome, StateChange):
            return outcome
        instance = outcome
    if has_effect(instance, action):
        return StateChange(instance, f"{action}: done, {instance}")
    return _ended(instance, action, if_closed)


def delete(
    instance_id: str,
    *,
    find: Callable[[str], Flow[BpmInstance]],
    if_missing: IfMissing = "fail",
    grace: float = 0,
    intent: Intent = FIRST_TRY,
) -> Flow[str]:
    """Delete an instance permanently.

    :param instance_id: the instance's id.
    :param find: a flow that finds an instance by its id.
    :param if_missing: whether to succeed if there is no such instance. With ``"fail"`` it is searched for first, because this
        is unknown afterwards. The deletion is sent even if the search does not find it, because lists may be truncated.
    :param grace: the seconds for which to check whether the instance is gone, if the answer to the deletion was lost.
    :param intent: what earlier tries of a task recorded about the same deletion; for ``if_missing="fail"``.
    :returns: what happened, in words.
    :raises InstanceNotFoundError: if there is none, and ``if_missing`` is ``"fail"``.
    :raises CallError: if the deletion failed, and the instance still exists or may exist.
    """
    validation.choice(if_missing, "if_missing", validation.SUCCEED_OR_FAIL)
    operation = operations.delete(instance_id)
    was_there: bool | None = None
    if if_missing == "fail":
        was_there = yield from _is_there(instance_id, find)
        if was_there is False and intent.begun:
            return f"instance {instance_id!r} was deleted by an earlier try of this task"
        if was_there:
            intent.begin()
    try:
        yield operation
    except CallError as failure:
        if was_certainly_not_sent(failure):
            raise
        seen = yield from EffectCheck(instance_id, "delete", find, grace).after(failure)
        if not isinstance(seen, InstanceNotFoundError):
            raise _with_last_seen(failure, seen, grace) from None
        if if_missing == "succeed":
            return _describe_missing(instance_id, failure)
        if was_there and _may_be_by(failure):
            return f"instance {instance_id!r} is gone, although the answer to its deletion was lost"
        if was_there is None:
            failure.problem += "; the instance does not exist, and it is unknown whether it existed before"
            raise failure from None
        raise _with_answer(seen, failure) from None
    return f"instance {instance_id!r} deleted"


def _describe_missing(instance_id: str, failure: CallError) -> str:
    """Describe an instance that does not exist after a failed deletion, if it need not have existed before."""
    if failure.may_have_been_processed:
        return (
            f"instance {instance_id!r} does not exist; it is unknown whether it existed before this deletion"
        )
    return f"instance {instance_id!r} did not exist"


def set_variables(
    instance_id: str, variables: Mapping[str, Any], *, zone: values.Zone = values.unknown_zone
) -> Flow[None]:
    """Set variables of an instance.

    :param instance_id: the instance's id.
    :param variables: names and values; see ``docs/variables.md`` for the types that can be sent.
    :param zone: returns the time zone of the API's timestamps, for datetimes among the variables.
    :raises CallError: if the call failed; it says so if the variables may have been set anyway.
    """
    try:
        yield operations.set_variables(instance_id, variables, zone=zone)
    except CallError as failure:
        failure.problem += note_on_possible_effect(failure)
        raise


def note_on_possible_effect(failure: AstroZeroError) -> str:
    """Return a note that a failed call may have set the variables, or an empty text if it certainly has not."""
    if not isinstance(failure, CallError) or not failure.may_have_been_processed:
        return ""
    return "; the variables may have been set anyway, and there is no way to check"


def was_certainly_not_sent(failure: CallError) -> bool:
    """Return whether a failed call certainly did not reach Astro Zero."""
    return isinstance(failure, (NotSentError, AuthenticationError)) and not failure.earlier_attempt_in_doubt


def _after_acceptance(check: EffectCheck, instance: BpmInstance) -> Flow[BpmInstance | StateChange]:
    """Check for the effect of an accepted action.

    :param check: the check.
    :param instance: the instance in the answer.
    :returns: the instance as soon as it is settled, or an unconfirmed change if there was no time to check.
    :raises EffectNotShownError: if the effect does not show in time.
    """
    grace = check.grace or 0
    seen = yield from check.until(grace)
    if not isinstance(seen, AstroZeroError):
        if check.ends(seen):
            return seen
        instance = seen
    words = describe_accepted(seen, grace)
    if check.grace is None:
        return StateChange(instance, f"{check.action}: {words}", is_confirmed=False)
    raise EffectNotShownError(check.instance_id, check.action, words, instance)


def _check_is_same(instance: BpmInstance, known: KnownIdentity) -> None:
    if not known.matches(instance):
        raise AnotherInstanceError(instance, known)


def _read_if_possible(instance_id: str, find: Callable[[str], Flow[BpmInstance]]) -> Flow[BpmInstance | None]:
    """Return an instance, or ``None`` if it cannot be read. The action itself will show whether it exists."""
    try:
        return (yield from find(instance_id))
    except (AuthenticationError, NotSentError):
        raise
    except (CallError, InstanceNotFoundError):
        return None


def _is_there(instance_id: str, find: Callable[[str], Flow[BpmInstance]]) -> Flow[bool | None]:
    """Return whether an instance exists, or ``None`` if that is unknown."""
    try:
        yield from find(instance_id)
    except InstanceNotFoundError:
        return False
    except (AuthenticationError, NotSentError):
        raise
    except CallError:
        return None
    return True


def _after_failure(check: EffectCheck, failure: CallError, if_closed: IfClosed) -> Flow[StateChange]:
    """Judge the state of an instance after a failed action, by the table above."""
    seen = yield from check.after(failure)
    if isinstance(seen, InstanceNotFoundError):
        raise _with_answer(seen, failure) from None
    if isinstance(seen, AstroZeroError) or not check.ends(seen):
        raise _with_last_seen(failure, seen, check.grace or 0) from None
    action: Any = check.action
    if not has_effect(seen, action):
        return _ended(seen, action, if_closed)
    if failure.may_have_been_processed:
        return StateChange(seen, f"{action}: done, although an answer was lost, {seen}")
    if seen.is_closed and (if_closed == "succeed" or not _may_be_by(failure)):
        return _ended(seen, action, if_closed)
    # With ``if_closed="fail"`` it was open just before.
    words = "done, although the answer says otherwise" if seen.is_closed else "nothing to do"
    return StateChange(seen, f"{action}: {words}, {seen}")


def _may_be_by(failure: CallError) -> bool:
    """Return whether the failed call may have caused the change that was seen afterwards.

    Only Astro Zero's own refusal of the only request proves that it did not. A gateway may refuse a request after it took effect.
    """
    return failure.may_have_been_processed or failure.earlier_attempt_sent or failure.res_code is None


def _with_last_seen(failure: CallError, seen: BpmInstance | AstroZeroError, grace: float) -> CallError:
    """Add the state of the instance after a failed action to the error of the action."""
    failure.problem += describe_after_failure(failure, seen, grace)
    return failure


def _ended(instance: BpmInstance, action: Action, if_closed: IfClosed) -> StateChange:
    if if_closed == "fail":
        raise InstanceClosedError(instance)
    return StateChange(instance, f"{action}: nothing to do, it has already ended, {instance}")


def _with_answer(missing: InstanceNotFoundError, failure: CallError) -> InstanceNotFoundError:
    """Add the server's answer to the action, the first sign of a missing instance, to the error."""
    found = InstanceNotFoundError(missing.sought, most_rows=missing.most_rows, refusal=failure)
    found.add_context(failure.attempt or "", failure.connection or "")
    return found
