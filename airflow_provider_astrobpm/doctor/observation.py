"""Probes and observations: a request to the endpoint, its answer, and how to interpret the answer. Pure.

A probe flow is a generator. It yields probes, pauses and findings, and receives the observation for each probe. It does not
know how probes are sent.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.client.errors import AuthenticationError, CallError, RefusedError, ServerError
from airflow_provider_astrobpm.client.protocol import SUCCESS, platform_message, token_fault
from airflow_provider_astrobpm.client.wire import EMPTY_RESULTS, decode_instance
from airflow_provider_astrobpm.doctor.findings import Finding

if TYPE_CHECKING:
    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.operations import Operation
    from airflow_provider_astrobpm.client.protocol import Request, Response, TokenFault

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
    """The result of a probe, and how to interpret it.

    :param line: request and answer in one line, without secrets.
    :param result: the result as JSON, if the call succeeded; of a token request it is decoded.
    :param error: the error that this provider raises for the answer, if the call failed.
    :param response: the last response, if there was one.
    :param at: when it arrived, in seconds since the epoch.
    :param sent: whether the probe was sent: probes are dropped after the endpoint has gone down.
    :param refuses_with_5xx: whether this endpoint is known to refuse with HTTP 5xx, which is a failure otherwise.
    """

    line: str
    result: Any = field(default=None, repr=False)
    error: CallError | None = None
    response: Response | None = None
    at: float = 0.0
    sent: bool = True
    refuses_with_5xx: bool = False

    @property
    def status(self) -> int | None:
        """The HTTP status, if there was a response."""
        return self.response.status if self.response else None

    @property
    def is_server_error(self) -> bool:
        """Whether the HTTP status is 5xx."""
        return (self.status or 0) >= 500

    @property
    def server_time(self) -> float | None:
        """The server's time from the header ``Date``, in seconds since the epoch."""
        try:
            return parsedate_to_datetime(self.response.headers["date"]).timestamp() if self.response else None
        except (KeyError, ValueError, TypeError, OverflowError):
            return None

    @property
    def envelope(self) -> tuple[str | None, str | None]:
        """``resCode`` and ``resMsg`` of the response, if it has them."""
        return platform_message(self.response) if self.response else (None, None)

    @property
    def token_fault(self) -> TokenFault | None:
        """Whether the answer says that the token is at fault, and how certainly."""
        return token_fault(self.response) if self.response else None

    @property
    def is_refusal(self) -> bool:
        """Whether the request was refused, and not its token. A call that failed otherwise is no evidence."""
        return isinstance(self.error, RefusedError) or (self.refuses_with_5xx and self.may_be_refusal)

    @property
    def may_be_refusal(self) -> bool:
        """Whether an HTTP 5xx may be a refusal, because it has a code of the platform."""
        return isinstance(self.error, ServerError) and self.envelope[0] not in (None, SUCCESS)

    @property
    def is_unclear(self) -> bool:
        """Whether the answer cannot be used for a conclusion."""
        return self.error is not None and not self.is_refusal

    @property
    def why_unclear(self) -> str:
        """Why the answer is unusable, in words."""
        return self.error.problem if self.error else "the answer is not a list of instances"

    @property
    def never_reached(self) -> bool:
        """Whether the request certainly did not reach the server."""
        return self.error is not None and self.error.never_reached

    @property
    def is_denied(self) -> bool:
        """Whether the call was refused, for any reason."""
        return isinstance(self.error, (AuthenticationError, RefusedError))

    @property
    def is_forbidden(self) -> bool:
        """Whether the call was refused with HTTP 401 or 403, the usual signs of a missing permission. Other refusals may mean it too."""
        return self.is_denied and self.status in (401, 403)

    @property
    def permission_hint(self) -> str:
        """Words to append to "refused", if a permission is probably missing."""
        return f" with HTTP {self.status}, which suggests a missing permission" if self.is_forbidden else ""

    @property
    def rows(self) -> list[InstanceRow] | None:
        """The rows of a list that have an id and a state; ``None`` if it is not a list of instances."""
        rows = [] if self.result in EMPTY_RESULTS else self.result
        if self.error is not None or not isinstance(rows, list):
            return None
        known = [row for row in rows if _is_instance(row)]
        return None if rows and not known else known

    @property
    def instance(self) -> InstanceRow | None:
        """The instance in the answer; ``None`` if there is none."""
        return self.result if _is_instance(self.result) else None

    def fails_like(self, other: Observation) -> bool:
        """Return whether both calls failed, with the same HTTP status and code."""
        if None in (self.error, other.error, self.status):
            return False
        return (self.status, self.envelope[0]) == (other.status, other.envelope[0])


ProbeFlow = Generator[Probe | operations.Sleep | Finding, Any, T]


def report_findings(*flows: ProbeFlow[Finding]) -> ProbeFlow[None]:
    """Run flows that return one finding each, and yield their findings."""
    for flow in flows:
        yield (yield from flow)


def _is_instance(row: Any) -> bool:
    return isinstance(row, dict) and bool(text(row, "id") and text(row, "state"))


def text(row: InstanceRow, name: str) -> str:
    """Return a text column of a row; the empty string if the row has none."""
    value = row.get(name)
    return value if isinstance(value, str) else ""


def as_instance(row: InstanceRow) -> BpmInstance | None:
    """Return a row as this provider reads it; ``None`` if it cannot."""
    try:
        return decode_instance(msgspec.json.encode(row))
    except msgspec.ValidationError:
        return None


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
