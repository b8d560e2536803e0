"""Converts the end of a wait into the JSON payload of a trigger event, and back.

A resuming task does not trust the event. An empty, unknown or incomplete event is an error that quotes what arrived, never a
success. So is an event for another task: on SQLite, Airflow gives the id of a deleted trigger to the next one, and a triggerer
that has not noticed yet hands the old trigger's event to the new trigger's task.

The event of a batch has one character for each member, in the order of the members, because there may be ten thousand. Each
reason of failure is stored once.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_astrobpm.client import errors, texts
from airflow_provider_astrobpm.client.errors import AstroZeroError, UnknownEventError
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.waiting.batch_wait import BatchWaitResult

if TYPE_CHECKING:
    from collections.abc import Sequence

# The errors that may end a wait. Any other error arrives as their base class.
ERRORS: dict[str, type[AstroZeroError]] = {
    kind.__name__: kind
    for kind in (
        errors.AnotherInstanceError,
        errors.AstroZeroError,
        errors.AuthenticationError,
        errors.InstanceNotFoundError,
        errors.InterruptedCallError,
        errors.KeysNotShownError,
        errors.NotSentError,
        errors.PreparationError,
        errors.RefusedError,
        errors.ServerError,
        errors.SettingsError,
        errors.SeveralInstancesError,
        errors.ThrottledError,
        errors.TokenRefusedError,
        errors.TlsError,
        errors.UnexpectedAnswerError,
        errors.WaitFailedError,
        errors.WaitTimeoutError,
    )
}


class _Success(msgspec.Struct, tag_field="status", tag="success", frozen=True):
    instance: BpmInstance
    waiter: str | None = None


class _Failure(msgspec.Struct, tag_field="status", tag="failure", frozen=True):
    error: str
    problem: str
    advice: str = ""
    attempt: str | None = None
    connection: str | None = None
    http_status: int | None = None
    res_code: str | None = None
    res_msg: str | None = None
    instance: BpmInstance | None = None
    argument: str = "timeout"
    """The argument that set the deadline of a wait that timed out."""
    waiter: str | None = None


SUCCEEDED, FAILED, OPEN = "+-o"


class _Group(msgspec.Struct, tag_field="status", tag="group", frozen=True):
    outcomes: str
    """One of the three characters for each member."""
    members: str
    """The digest of the members' ids, by which the task recognizes its own batch."""
    reasons: list[tuple[str, list[int]]]
    """Why members failed, in the order of failing, each with the positions of the members that failed for it."""
    error: _Failure | None = None
    """What ended the wait before all members were decided."""
    waiter: str | None = None


def dump(ending: BpmInstance | Exception, waiter: str | None = None) -> dict[str, Any]:
    """Return the event for the end of a wait.

    :param ending: the instance that met the condition, or the error.
    :param waiter: the id of the waiting task instance, if it is known.
    """
    if isinstance(ending, BpmInstance):
        return _plain(_Success(ending, waiter))
    return _plain(_failure(ending, waiter))


def dump_batch(
    end: BatchWaitResult, ids: Sequence[str], error: Exception | None = None, waiter: str | None = None
) -> dict[str, Any]:
    """Return the event for the end of a wait for a batch.

    :param end: the outcome for each member.
    :param ids: the members' ids, in the order that the task knows.
    :param error: what ended the wait before all members were decided, if anything did.
    :param waiter: the id of the waiting task instance, if it is known.
    """
    places = {instance_id: place for place, instance_id in enumerate(ids)}
    still_open = set(end.open)
    reasons: dict[str, list[int]] = {}
    for instance_id, reason in end.failed.items():
        reasons.setdefault(reason, []).append(places[instance_id])
    outcomes = "".join(
        OPEN if one in still_open else FAILED if one in end.failed else SUCCEEDED for one in ids
    )
    failure = None if error is None else _failure(error, None)
    return _plain(_Group(outcomes, _digest(ids), list(reasons.items()), failure, waiter))


def _digest(ids: Sequence[str]) -> str:
    """Return a short text that differs for other ids and for another order of them."""
    return blake2b("\n".join(ids).encode(), digest_size=8).hexdigest()


def _plain(event: msgspec.Struct) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(event)
    return texts.storable(plain)


def _failure(error: Exception, waiter: str | None) -> _Failure:
    if not isinstance(error, AstroZeroError):
        # Do not quote an unknown error: its text may contain anything.
        return _Failure(
            error=AstroZeroError.__name__,
            problem=f"The trigger failed with {type(error).__name__}",
            advice="The trigger's log, which is part of this task's log, says more.",
            waiter=waiter,
        )
    name = type(error).__name__
    return _Failure(
        error=name if name in ERRORS else AstroZeroError.__name__,
        problem=error.problem,
        advice=error.advice,
        attempt=error.attempt,
        connection=error.connection,
        http_status=error.status,
        res_code=error.res_code,
        res_msg=error.res_msg,
        instance=getattr(error, "instance", None),
        argument=getattr(error, "argument", "timeout"),
        waiter=waiter,
    )


def is_for_other_task_instance(event: object, waiter: str | None) -> bool:
    """Return whether an event belongs to another task instance.

    :param waiter: the id of the task instance that received the event.
    """
    addressee = event.get("waiter") if isinstance(event, dict) else None
    return isinstance(addressee, str) and waiter is not None and addressee != waiter


def load(event: object) -> BpmInstance | AstroZeroError:
    """Return the instance or the error that an event stands for.

    :raises UnknownEventError: if the event is not understood.
    """
    known = _known(event, _Success | _Failure)
    return known.instance if isinstance(known, _Success) else _error(event, known)


def load_batch(event: object, ids: Sequence[str]) -> tuple[BatchWaitResult | None, AstroZeroError | None]:
    """Return what an event reports about a batch: its result, if any, and the error that ended the wait early, if any.

    :param ids: the members' ids, in the order that the trigger knew.
    :raises UnknownEventError: if the event does not describe this batch.
    """
    known = _known(event, _Group | _Failure)
    if isinstance(known, _Failure):
        return None, _error(event, known)
    if len(known.outcomes) != len(ids) or set(known.outcomes) - {SUCCEEDED, FAILED, OPEN}:
        raise UnknownEventError(event, f"it does not report {len(ids)} instances")
    if known.members != _digest(ids):
        raise UnknownEventError(event, "it reports other instances than those of this batch")
    by_outcome: dict[str, list[str]] = {SUCCEEDED: [], FAILED: [], OPEN: []}
    for instance_id, outcome in zip(ids, known.outcomes, strict=True):
        by_outcome[outcome].append(instance_id)
    why = [(place, reason) for reason, places in known.reasons for place in places]
    if sorted(place for place, _ in why) != [n for n, one in enumerate(known.outcomes) if one == FAILED]:
        raise UnknownEventError(event, "its reasons do not match the failed instances")
    failed = {ids[place]: reason for place, reason in why}
    end = BatchWaitResult(len(by_outcome[SUCCEEDED]), failed, tuple(by_outcome[OPEN]))
    return end, None if known.error is None else _error(event, known.error)


def _known(event: object, kinds: Any) -> Any:
    try:
        return msgspec.convert(texts.storable(event), type=kinds)
    except (msgspec.ValidationError, ValueError, RecursionError) as error:
        raise UnknownEventError(event, str(error)) from None


def _error(event: object, known: _Failure) -> AstroZeroError:
    if known.error not in ERRORS:
        raise UnknownEventError(event, f"it names an unknown error, {known.error!r}")
    kind = ERRORS[known.error]
    ending = kind.__new__(kind, known.problem)
    AstroZeroError.__init__(
        ending, known.problem, status=known.http_status, res_code=known.res_code, res_msg=known.res_msg
    )
    ending.advice, ending.attempt, ending.connection = known.advice, known.attempt, known.connection
    ending.__dict__["instance"] = known.instance
    if isinstance(ending, errors.WaitTimeoutError):
        ending.argument = known.argument
    return ending
