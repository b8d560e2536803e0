"""How a wait ended, as the plain JSON that a trigger hands to its task, and back.

A task that resumes takes nothing on trust: an event that is empty, unknown or incomplete is an error that says what
arrived, and never a success. Nor is one that another task waited for: where Airflow keeps its database in SQLite, the id
of a trigger that is gone is given to the next one, and a triggerer that has not noticed yet hands the old one's event to
the new one's task.
"""

from __future__ import annotations

from typing import Any

import msgspec

from airflow_provider_astrobpm.bpm import errors
from airflow_provider_astrobpm.bpm.errors import AstroZeroError, UnknownEventError
from airflow_provider_astrobpm.bpm.instance import BpmInstance

# The errors with which a wait may end; everything else arrives as the root of them.
ERRORS: dict[str, type[AstroZeroError]] = {
    kind.__name__: kind
    for kind in (
        errors.AstroZeroError,
        errors.AuthenticationError,
        errors.InstanceNotFoundError,
        errors.InterruptedCallError,
        errors.NotSentError,
        errors.RefusedError,
        errors.ServerError,
        errors.SettingsError,
        errors.SeveralInstancesError,
        errors.ThrottledError,
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
    waiter: str | None = None


def encode(ending: BpmInstance | Exception, waiter: str | None = None) -> dict[str, Any]:
    """Return an ending as an event.

    :param ending: the instance at its good end, or the error.
    :param waiter: the id of the task instance that waits for it, where that is known.
    """
    if isinstance(ending, BpmInstance):
        event: _Success | _Failure = _Success(ending, waiter)
    elif isinstance(ending, AstroZeroError):
        name = type(ending).__name__
        event = _Failure(
            error=name if name in ERRORS else AstroZeroError.__name__,
            problem=ending.problem,
            advice=ending.advice,
            attempt=ending.attempt,
            connection=ending.connection,
            http_status=ending.status,
            res_code=ending.res_code,
            res_msg=ending.res_msg,
            instance=getattr(ending, "instance", None),
            waiter=waiter,
        )
    else:
        # Not with its words: what an unknown error says may hold anything.
        event = _Failure(
            error=AstroZeroError.__name__,
            problem=f"The trigger failed with {type(ending).__name__}",
            advice="Its own log says more, as part of this task's log.",
            waiter=waiter,
        )
    plain: dict[str, Any] = msgspec.to_builtins(event)
    return plain


def is_for_another(event: object, waiter: str | None) -> bool:
    """Tell whether an event ends a wait of another task instance.

    :param waiter: the id of the task instance that the event has reached.
    """
    addressee = event.get("waiter") if isinstance(event, dict) else None
    return None not in {addressee, waiter} and addressee != waiter


def decode(event: object) -> BpmInstance | AstroZeroError:
    """Return the ending that an event stands for.

    :raises UnknownEventError: if it stands for none.
    """
    try:
        known = msgspec.convert(event, type=_Success | _Failure)
    except msgspec.ValidationError as error:
        raise UnknownEventError(event, str(error)) from None
    if isinstance(known, _Success):
        return known.instance
    if known.error not in ERRORS:
        raise UnknownEventError(event, f"no error {known.error!r} is known")
    kind = ERRORS[known.error]
    ending = kind.__new__(kind, known.problem)
    AstroZeroError.__init__(
        ending, known.problem, status=known.http_status, res_code=known.res_code, res_msg=known.res_msg
    )
    ending.advice, ending.attempt, ending.connection = known.advice, known.attempt, known.connection
    ending.__dict__["instance"] = known.instance
    return ending
