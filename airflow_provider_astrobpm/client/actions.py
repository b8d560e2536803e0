"""Flows that change an instance, and check the effect by reading the instance. ``changes`` judges what they see.

A change that was accepted, or whose answer was lost, may take a while to show. So the instance is checked repeatedly for a
limited time, with growing delays. If the effect does not show by then, the error says what was accepted and what was seen.

If more than its id is known about the instance, it is read before anything is sent. Another instance that has its id now is
left alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from airflow_provider_astrobpm.client import operations, validation
from airflow_provider_astrobpm.client import variables as values
from airflow_provider_astrobpm.client.backoff import Backoff
from airflow_provider_astrobpm.client.changes import ChangeAttempt, ChangeResult
from airflow_provider_astrobpm.client.errors import (
    AuthenticationError,
    CallError,
    EffectNotShownError,
    InstanceNotFoundError,
    NotSentError,
)
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.operations import Sleep
from airflow_provider_astrobpm.client.sameness import KnownIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from airflow_provider_astrobpm.client.changes import Seen
    from airflow_provider_astrobpm.client.operations import Action, Flow, Operation

NOTHING_KNOWN = KnownIdentity()
IfClosed = Literal["succeed", "fail"]
IfMissing = Literal["succeed", "fail"]

CHECKS = Backoff(first=1, longest=15)
MAX_FAILED_CHECKS = 2  # consecutive failed checks, each with all its attempts, after which checking stops


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
    attempt = ChangeAttempt(instance_id, action, must_act=if_closed == "fail")
    result = yield from _change(attempt, operation, find, grace or 0, known=known, intent=intent)
    if isinstance(result.error, EffectNotShownError) and grace is None:
        return StateChange(result.error.instance, f"{action}: {result.note}", is_confirmed=False)
    return StateChange(cast("BpmInstance", result.checked().instance), result.note)


def delete(
    instance_id: str,
    *,
    find: Callable[[str], Flow[BpmInstance]],
    if_missing: IfMissing = "fail",
    grace: float = 0,
    intent: Intent = FIRST_TRY,
) -> Flow[str]:
    """Delete an instance permanently.

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
    attempt = ChangeAttempt(instance_id, "delete", must_act=if_missing == "fail")
    result = yield from _change(attempt, operation, find, grace, intent=intent)
    return result.checked().note


def set_variables(
    instance_id: str, variables: Mapping[str, Any], *, zone: values.Zone = values.unknown_zone
) -> Flow[None]:
    """Set variables of an instance.

    :param zone: returns the time zone of the API's timestamps, for datetimes among the variables.
    :raises CallError: if the call failed; it says so if the variables may have been set anyway.
    """
    operation = operations.set_variables(instance_id, variables, zone=zone)
    attempt = yield from _sent(ChangeAttempt(instance_id, "set"), operation)
    attempt.judge().checked()


def check_effects(
    attempts: Mapping[str, ChangeAttempt],
    find_all: Callable[[Collection[str]], Flow[Mapping[str, Seen]]],
    grace: float,
    *,
    record: Callable[[str, ChangeResult], None],
    is_over: Callable[[], bool] = lambda: False,
) -> Flow[None]:
    """Read instances until each shows what its change has resulted in.

    :param attempts: the changes to check, by the ids of their instances.
    :param grace: the seconds for which to check.
    :param is_over: returns whether to stop checking.
    """
    pending, failed, searched = dict(attempts), 0, 0.0
    for pause in (0.0, *check_delays(grace)):
        if pause and is_over():
            break
        if pause:
            yield Sleep(pause)
        searched += pause
        seen = yield from find_all(pending)
        failed = failed + 1 if all(isinstance(one, CallError) for one in seen.values()) else 0
        for one in [one for one, attempt in pending.items() if attempt.is_final(seen[one])]:
            record(one, pending.pop(one).judge(seen[one], searched))
        if not pending or failed >= MAX_FAILED_CHECKS:
            break
    for one, attempt in pending.items():
        record(one, attempt.judge(seen[one], searched))


def check_delays(grace: float, backoff: Backoff = CHECKS) -> Iterator[float]:
    """Yield the seconds between checks for the effect of a change. Their sum is ``grace``."""
    checks = 0
    while grace > 0:
        checks += 1
        pause = min(grace, backoff.pause(checks, random.random()))  # noqa: S311 - jitter
        yield pause
        grace -= pause


def _change(
    attempt: ChangeAttempt,
    operation: Operation[Any],
    find: Callable[[str], Flow[BpmInstance]],
    grace: float,
    *,
    known: KnownIdentity = NOTHING_KNOWN,
    intent: Intent,
) -> Flow[ChangeResult]:
    """Change one instance, and read it before and after where its result depends on that."""
    if attempt.must_act or known != NOTHING_KNOWN:
        before = yield from _seen(attempt.instance_id, find)
        if isinstance(before, (AuthenticationError, NotSentError)):
            raise before
        attempt = replace(attempt, before=before)
        if (result := attempt.judge_before(known, begun=intent.begun)) is not None:
            return result
        if attempt.must_act and isinstance(before, BpmInstance):
            intent.begin()
    attempt = yield from _sent(attempt, operation)
    if not attempt.needs_check:
        return attempt.judge()

    def find_all(ids: Collection[str]) -> Flow[Mapping[str, Seen]]:
        (one,) = ids
        return {one: (yield from _seen(one, find))}

    results: dict[str, ChangeResult] = {}
    yield from check_effects({attempt.instance_id: attempt}, find_all, grace, record=results.__setitem__)
    return results[attempt.instance_id]


def _sent(attempt: ChangeAttempt, operation: Operation[Any]) -> Flow[ChangeAttempt]:
    """Send a change, and return the attempt with the answer."""
    try:
        return replace(attempt, answer=(yield operation))
    except CallError as failure:
        return replace(attempt, answer=failure)


def _seen(instance_id: str, find: Callable[[str], Flow[BpmInstance]]) -> Flow[Seen]:
    try:
        return (yield from find(instance_id))
    except (CallError, InstanceNotFoundError) as error:
        return error
