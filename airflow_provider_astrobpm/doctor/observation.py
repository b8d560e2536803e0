"""Probes and observations: a request to the endpoint, its answer, and how to interpret the answer. Pure.

A probe flow is a generator. It yields probes, pauses and findings, and receives the observation for each probe. It does not
know how probes are sent.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.client.errors import AuthenticationError, CallError, RefusedError, ServerError
from airflow_provider_astrobpm.client.protocol import SUCCESS, platform_message
from airflow_provider_astrobpm.client.wire import EMPTY_RESULTS
from airflow_provider_astrobpm.doctor.findings import Finding

if TYPE_CHECKING:
    from airflow_provider_astrobpm.client.operations import Operation
    from airflow_provider_astrobpm.client.protocol import Request, Response

T = TypeVar("T")

MAX_TARGET_CHARACTERS = 160  # of a path with its query, in a line of evidence
_COLUMN_LIST = re.compile(r"(?<=[?&]fields=)[^&]{60,}")  # the columns of this provider, which never vary

InstanceRow = dict[str, Any]


@dataclass(frozen=True)
class Probe:
    """A request to send, with its deviations from the client's requests.

    :param operation: the call.
    :param token: a token to send instead of the valid one.
    :param content_type: whether to send the header ``Content-Type``.
    :param target: path and query to send instead of the operation's, if their exact spelling matters.
    :param csrf: whether a write has a CSRF token.
    :param remark: what is unusual about the request, for the evidence.
    :param even_if_down: whether to send it even if the endpoint seems to be down.
    """

    operation: Operation[Any]
    token: str | None = field(default=None, repr=False)
    content_type: bool = True
    target: str | None = None
    csrf: bool = False
    remark: str = ""
    even_if_down: bool = False


@dataclass(frozen=True)
class Observation:
    """The result of a probe.

    :param line: request and answer in one line, without secrets.
    :param result: the decoded result, if the call succeeded.
    :param error: the error that this provider raises for the answer, if the call failed.
    :param response: the last response, if there was one.
    :param at: when it arrived, in seconds since the epoch.
    :param sent: whether the probe was sent: probes are dropped after the endpoint has gone down.
    """

    line: str
    result: Any = field(default=None, repr=False)
    error: CallError | None = None
    response: Response | None = None
    at: float = 0.0
    sent: bool = True

    @property
    def status(self) -> int | None:
        """The HTTP status, if there was a response."""
        return self.response.status if self.response else None

    @property
    def server_time(self) -> float | None:
        """The server's time from the header ``Date``, in seconds since the epoch."""
        try:
            return parsedate_to_datetime(self.response.headers["date"]).timestamp() if self.response else None
        except (KeyError, ValueError, TypeError, OverflowError):
            return None

    def envelope(self) -> tuple[str | None, str | None]:
        """Return ``resCode`` and ``resMsg`` of the response, if it has them."""
        return platform_message(self.response) if self.response else (None, None)


ProbeFlow = Generator[Probe | operations.Sleep | Finding, Any, T]


class AnswerKind(Enum):
    """Whether an answer can be used for a conclusion."""

    ANSWERED = "answered"
    REFUSED = "refused"
    UNCLEAR = "unclear"


def answer_kind(seen: Observation, *, refuses_with_5xx: bool = False) -> AnswerKind:
    """Return how to interpret an answer.

    :param refuses_with_5xx: whether this endpoint is known to refuse with HTTP 5xx, which is a failure otherwise.
    """
    if seen.error is None:
        return AnswerKind.ANSWERED
    if isinstance(seen.error, RefusedError):
        return AnswerKind.REFUSED
    if refuses_with_5xx and may_be_refusal(seen):
        return AnswerKind.REFUSED
    return AnswerKind.UNCLEAR


def may_be_refusal(seen: Observation) -> bool:
    """Return whether an HTTP 5xx may be a refusal, because it has a code of the platform."""
    code, _ = seen.envelope()
    return isinstance(seen.error, ServerError) and code not in (None, SUCCESS)


def is_refused(seen: Observation) -> bool:
    """Return whether a call was refused, for any reason."""
    return isinstance(seen.error, (AuthenticationError, RefusedError))


def is_forbidden(seen: Observation) -> bool:
    """Return whether a call was refused with HTTP 401 or 403, the usual signs of a missing permission. Other refusals may mean it too."""
    return is_refused(seen) and seen.status in (401, 403)


def is_same_failure(one: Observation, other: Observation) -> bool:
    """Return whether two calls failed with the same HTTP status and code."""
    if None in (one.error, other.error, one.status):
        return False
    return (one.status, one.envelope()[0]) == (other.status, other.envelope()[0])


def why_unclear(seen: Observation) -> str:
    """Return why an answer is unusable, in words."""
    return seen.error.problem if seen.error else "the answer is not a list of instances"


def rows_of(seen: Observation) -> list[InstanceRow] | None:
    """Return the rows of a list that have an id and a state; ``None`` if it is not a list of instances."""
    rows = [] if seen.result in EMPTY_RESULTS else seen.result
    if seen.error is not None or not isinstance(rows, list):
        return None
    known = [row for row in rows if isinstance(row, dict) and text(row, "id") and text(row, "state")]
    return None if rows and not known else known


def instance_of(seen: Observation) -> InstanceRow | None:
    """Return the instance in an answer; ``None`` if there is none."""
    row = seen.result
    return row if isinstance(row, dict) and text(row, "id") and text(row, "state") else None


def text(row: InstanceRow, name: str) -> str:
    """Return a text column of a row; the empty string if the row has none."""
    value = row.get(name)
    return value if isinstance(value, str) else ""


def raw(operation: Operation[Any], **changes: Any) -> Operation[Any]:
    """Return an operation that accepts any answer and returns the undecoded result."""
    return msgspec.structs.replace(operation, decode=msgspec.json.decode, **changes)


def evidence_line(
    request: Request, remark: str, response: Response | None, error: CallError | None, result: object
) -> str:
    """Return a request and its answer as one line.

    :param remark: what is unusual about the request.
    :param response: the response, if there was one.
    :param error: the error of the call, if it failed.
    :param result: the result of the call, if it succeeded.
    """
    target = _COLUMN_LIST.sub("…", request.target)
    shown = target if len(target) <= MAX_TARGET_CHARACTERS else f"{target[:MAX_TARGET_CHARACTERS]}…"
    asked = f"{request.method} {shown}{f' ({remark})' if remark else ''}"
    if response is None:
        return f"{asked} -> no answer: {error.problem if error else 'interrupted'}"
    code = error.res_code if error and error.res_code else platform_message(response)[0]
    answered = [f"HTTP {response.status}"]
    if code is not None:
        answered.append(f"resCode {code[:40]!r}")
    if isinstance(result, list):
        answered.append(f"{len(result)} row{'' if len(result) == 1 else 's'}")
    elif isinstance(result, dict) and text(result, "state"):
        answered.append(f"state {text(result, 'state')!r}")
    if error is not None and code is None:
        answered.append(error.problem)
    return f"{asked} -> {', '.join(answered)}"
