"""How a wait ended, as the plain JSON that a trigger hands to its task, and back.

A task that resumes takes nothing on trust: an event that is empty, unknown or incomplete is an error that says what
arrived, and never a success.
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


def encode(ending: BpmInstance | Exception) -> dict[str, Any]:
    """Return an ending as an event.

    :param ending: the instance at its good end, or the error.
    """
    if isinstance(ending, BpmInstance):
        event: _Success | _Failure = _Success(ending)
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
        )
    else:
        # Not with its words: what an unknown error says may hold anything.
        event = _Failure(
            error=AstroZeroError.__name__,
            problem=f"The trigger failed with {type(ending).__name__}",
            advice="Its own log says more, as part of this task's log.",
        )
    plain: dict[str, Any] = msgspec.to_builtins(event)
    return plain


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
