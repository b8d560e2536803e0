"""A question to the endpoint, what came back, and how far that answers the question. Pure.

The probes are generators: they yield what to ask, how long to pause, and each point as soon as it is told, and are
sent what was seen. They do not know who sends.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from airflow_provider_astrobpm.bpm import api
from airflow_provider_astrobpm.bpm.errors import (
    AuthenticationError,
    CallError,
    RefusedError,
    ServerError,
)
from airflow_provider_astrobpm.bpm.exchange import SUCCESS, words_of_platform
from airflow_provider_astrobpm.bpm.wire import EMPTY_RESULTS
from airflow_provider_astrobpm.doctor.findings import Finding

if TYPE_CHECKING:
    from airflow_provider_astrobpm.bpm.api import Operation
    from airflow_provider_astrobpm.bpm.exchange import Request, Response

T = TypeVar("T")

MAX_TARGET_CHARACTERS = 160  # characters of a path with its query in a line of evidence
_COLUMN_LIST = re.compile(r"(?<=[?&]fields=)[^&]{60,}")  # the columns of this provider, always the same

Row = dict[str, Any]


@dataclass(frozen=True)
class Probe:
    """A question.

    :param operation: the call.
    :param token: a token to send in place of the right one.
    :param content_type: whether to send the header ``Content-Type``.
    :param target: path and query to send in place of the operation's, where it matters how they are written.
    :param csrf: whether a write carries a CSRF token.
    :param remark: what is odd about the request, for the evidence.
    :param must: whether to ask even an endpoint that seems to have gone.
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
    """What came of a question.

    :param line: request and answer in one line, with nothing secret in it.
    :param result: the decoded result, where the call succeeded.
    :param error: how this provider reads the answer, where it did not.
    :param response: the last answer, if one came.
    :param at: when it came, in seconds since the epoch.
    :param asked: whether it was asked at all: an endpoint that has gone is not.
    """

    line: str
    result: Any = field(default=None, repr=False)
    error: CallError | None = None
    response: Response | None = None
    at: float = 0.0
    asked: bool = True

    @property
    def status(self) -> int | None:
        """The HTTP status, if an answer came."""
        return self.response.status if self.response else None

    @property
    def server_time(self) -> float | None:
        """The server's clock by the header ``Date``, in seconds since the epoch."""
        try:
            return parsedate_to_datetime(self.response.headers["date"]).timestamp() if self.response else None
        except (KeyError, ValueError, TypeError, OverflowError):
            return None

    def envelope(self) -> tuple[str | None, str | None]:
        """Return ``resCode`` and ``resMsg`` of the answer, if it has them."""
        return words_of_platform(self.response) if self.response else (None, None)


ProbeFlow = Generator[Probe | api.Pause | Finding, Any, T]


class AnswerKind(Enum):
    """How far an answer is one."""

    ANSWERED = "answered"
    REFUSED = "refused"
    UNCLEAR = "unclear"


def answer_kind(seen: Observation, *, refuses_with_5xx: bool = False) -> AnswerKind:
    """Tell what an answer means.

    :param refuses_with_5xx: whether this endpoint is known to refuse with HTTP 5xx, which else is a failure.
    """
    if seen.error is None:
        return AnswerKind.ANSWERED
    if isinstance(seen.error, RefusedError):
        return AnswerKind.REFUSED
    if refuses_with_5xx and may_be_refusal(seen):
        return AnswerKind.REFUSED
    return AnswerKind.UNCLEAR


def may_be_refusal(seen: Observation) -> bool:
    """Tell whether an HTTP 5xx may be a refusal: it carries the platform's own code."""
    code, _ = seen.envelope()
    return isinstance(seen.error, ServerError) and code not in (None, SUCCESS)


def is_refused(seen: Observation) -> bool:
    """Tell whether a call was refused, for whatever reason."""
    return isinstance(seen.error, (AuthenticationError, RefusedError))


def is_forbidden(seen: Observation) -> bool:
    """Tell whether a call was refused as it is for want of a right, by HTTP 401 or 403. A right may be wanting without that."""
    return is_refused(seen) and seen.status in (401, 403)


def is_same_failure(one: Observation, other: Observation) -> bool:
    """Tell whether two calls failed with the same HTTP status and code."""
    if None in (one.error, other.error, one.status):
        return False
    return (one.status, one.envelope()[0]) == (other.status, other.envelope()[0])


def why_unclear(seen: Observation) -> str:
    """Return why an answer is none, in words."""
    return seen.error.problem if seen.error else "the answer is not a list of instances"


def rows_of(seen: Observation) -> list[Row] | None:
    """Return the rows of a list, but for those that show no id or no state; ``None`` if it is no list of instances."""
    rows = [] if seen.result in EMPTY_RESULTS else seen.result
    if seen.error is not None or not isinstance(rows, list):
        return None
    known = [row for row in rows if isinstance(row, dict) and text(row, "id") and text(row, "state")]
    return None if rows and not known else known


def instance_of(seen: Observation) -> Row | None:
    """Return the instance that an answer holds; ``None`` if it holds none."""
    row = seen.result
    return row if isinstance(row, dict) and text(row, "id") and text(row, "state") else None


def text(row: Row, name: str) -> str:
    """Return a text of a row; the empty text where there is none."""
    value = row.get(name)
    return value if isinstance(value, str) else ""


def raw(operation: Operation[Any], **changes: Any) -> Operation[Any]:
    """Return an operation that takes any answer and leaves its result as it came."""
    return msgspec.structs.replace(operation, decode=msgspec.json.decode, **changes)


def evidence_line(
    request: Request, remark: str, response: Response | None, error: CallError | None, result: object
) -> str:
    """Return a request and what came back as one line.

    :param remark: what is odd about the request.
    :param response: the answer, if one came.
    :param error: how the call ended, if it failed.
    :param result: its result, if it succeeded.
    """
    target = _COLUMN_LIST.sub("…", request.target)
    shown = target if len(target) <= MAX_TARGET_CHARACTERS else f"{target[:MAX_TARGET_CHARACTERS]}…"
    asked = f"{request.method} {shown}{f' ({remark})' if remark else ''}"
    if response is None:
        return f"{asked} -> no answer: {error.problem if error else 'interrupted'}"
    code = error.res_code if error and error.res_code else words_of_platform(response)[0]
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
