"""Plans that change an instance, judged by outcome: what counts is the state it is in afterwards.

Which states an action may be taken in, what acting twice does, and what acting on an instance that has ended does
are undocumented (API page 0071). So after a refused action the instance is read again:

| after the refusal it is          | suspend          | resume           | terminate        |
|----------------------------------|------------------|------------------|------------------|
| in none of the states            | not found        | not found        | not found        |
| ended                            | ``if_closed``    | ``if_closed``    | ``if_closed``    |
| open, and as the action wants it | already so       | already so       | (has not ended)  |
| open, and otherwise              | the refusal      | the refusal      | the refusal      |

Where something else than its id is known of the instance, it is read before anything is sent: another instance that has got
its id meanwhile is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from airflow_provider_astrobpm.bpm import api, checks, states
from airflow_provider_astrobpm.bpm.errors import (
    AnotherInstanceError,
    AuthenticationError,
    CallError,
    InstanceClosedError,
    InstanceNotFoundError,
    NotSentError,
    RefusedError,
)
from airflow_provider_astrobpm.bpm.sameness import Known

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.bpm.api import Action, Plan
    from airflow_provider_astrobpm.bpm.instance import BpmInstance

NOTHING_KNOWN = Known()
IfClosed = Literal["succeed", "fail"]
IfMissing = Literal["succeed", "fail"]


@dataclass(frozen=True)
class Change:
    """What came of an action.

    :param instance: the instance as it was seen last.
    :param note: what happened, in words.
    :param visible: whether the instance shows the effect already.
    """

    instance: BpmInstance
    note: str
    visible: bool = True


def change_state(
    instance_id: str,
    action: Action,
    *,
    find: Callable[[str], Plan[BpmInstance]],
    if_closed: IfClosed = "succeed",
    known: Known = NOTHING_KNOWN,
) -> Plan[Change]:
    """Suspend, resume or terminate an instance.

    :param instance_id: the instance's id.
    :param action: what to do.
    :param find: a plan that finds an instance by its id.
    :param if_closed: whether an instance that has ended already is fine. For ``"fail"`` it is read first, because
        afterwards nobody could tell an old end from this one.
    :param known: what is known of the instance besides its id. Where it cannot be read before, the action is sent all the
        same.
    :raises AnotherInstanceError: if its id shows another instance.
    :raises InstanceNotFoundError: if there is no such instance.
    :raises InstanceClosedError: if it has ended, and ``if_closed`` is ``"fail"``.
    :raises CallError: if the action failed and the instance is not as the action wants it.
    """
    checks.choice(if_closed, "if_closed", checks.SUCCEED_OR_FAIL)
    operation = api.act(instance_id, action)
    if known != NOTHING_KNOWN:
        yield from _check_is_same(instance_id, find, known)
    if if_closed == "fail":
        before = yield from find(instance_id)
        if before.is_closed:
            raise InstanceClosedError(before)
    try:
        instance: BpmInstance = yield operation
    except (NotSentError, AuthenticationError):
        raise
    except CallError as failure:
        return (yield from _after_failure(instance_id, action, find, failure, if_closed))
    if not shows(instance, action) and not instance.is_closed:
        # The documented example of suspend shows its effect in the answer. Where the answer does not, look again.
        try:
            instance = yield from find(instance_id)
        except (CallError, InstanceNotFoundError) as error:
            note = f"{action}: accepted, and then the instance could not be read ({error.problem})"
            return Change(instance, note, visible=False)
    if shows(instance, action):
        return Change(instance, f"{action}: done, {instance}")
    if instance.is_closed:
        return _ended(instance, action, if_closed)
    return Change(instance, f"{action}: accepted, its effect does not show yet, {instance}", visible=False)


def delete(
    instance_id: str, *, find: Callable[[str], Plan[BpmInstance]], if_missing: IfMissing = "fail"
) -> Plan[str]:
    """Delete an instance for good.

    :param instance_id: the instance's id.
    :param find: a plan that finds an instance by its id.
    :param if_missing: whether it is fine that there is no such instance. Where the answer to the deletion was lost, an
        instance that is gone counts as deleted.
    :returns: what happened, in words.
    :raises InstanceNotFoundError: if there is none, and ``if_missing`` is ``"fail"``.
    :raises CallError: if the deletion failed and the instance is still there.
    """
    checks.choice(if_missing, "if_missing", checks.SUCCEED_OR_FAIL)
    try:
        yield api.delete(instance_id)
    except (NotSentError, AuthenticationError):
        raise
    except CallError as failure:
        try:
            yield from find(instance_id)
        except InstanceNotFoundError as missing:
            if failure.taken is None:
                return f"instance {instance_id!r} is gone, though the answer to its deletion was lost"
            if if_missing == "succeed":
                return f"instance {instance_id!r} was not there"
            raise _with_answer(missing, failure) from None
        raise failure from None
    return f"instance {instance_id!r} deleted"


def _check_is_same(instance_id: str, find: Callable[[str], Plan[BpmInstance]], known: Known) -> Plan[None]:
    try:
        instance = yield from find(instance_id)
    except (AuthenticationError, NotSentError):
        raise
    except (CallError, InstanceNotFoundError):
        return  # The action itself finds out what there is.
    if not known.is_of(instance):
        raise AnotherInstanceError(instance, known)


def _after_failure(
    instance_id: str,
    action: Action,
    find: Callable[[str], Plan[BpmInstance]],
    failure: CallError,
    if_closed: IfClosed,
) -> Plan[Change]:
    try:
        instance = yield from find(instance_id)
    except InstanceNotFoundError as missing:
        raise _with_answer(missing, failure) from None
    if instance.is_closed:
        # An answer that was lost may have been the one that ended it.
        ended_here = failure.taken is None and shows(instance, action)
        return _ended(instance, action, "succeed" if ended_here else if_closed)
    if shows(instance, action):
        return Change(instance, f"{action}: nothing to do, {instance}")
    if isinstance(failure, RefusedError):
        failure.problem = f"{failure.problem}, and the instance is {instance.state!r}"
    raise failure from None


def _ended(instance: BpmInstance, action: Action, if_closed: IfClosed) -> Change:
    if if_closed == "fail":
        raise InstanceClosedError(instance)
    return Change(instance, f"{action}: nothing to do, it has ended already, {instance}")


def shows(instance: BpmInstance, action: Action) -> bool:
    """Tell whether an instance is as the action wants it."""
    if action == "terminate":
        return states.class_of(instance.state) is states.StateClass.CANCELLED
    return not instance.is_closed and instance.suspended == (action == "suspend")


def _with_answer(missing: InstanceNotFoundError, failure: CallError) -> InstanceNotFoundError:
    """Let "not found" say what the server answered to the action, which was the first sign of it."""
    found = InstanceNotFoundError(missing.sought, most_rows=missing.most_rows, refusal=failure)
    found.locate(failure.attempt or "", failure.connection or "")
    return found
