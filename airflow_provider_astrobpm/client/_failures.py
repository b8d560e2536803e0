"""Tracks how far a request got, and maps its failure to an error accordingly. Both transports share it."""

from __future__ import annotations

import asyncio
import ssl
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import requests

from airflow_provider_astrobpm.client import secrecy
from airflow_provider_astrobpm.client.errors import (
    AstroZeroError,
    InterruptedCallError,
    NotSentError,
    TlsError,
    UnexpectedAnswerError,
)

if TYPE_CHECKING:
    from typing_extensions import Self

MAX_REASON_CHARS = 200  # characters of a connection error's message, which may quote the server
MAX_CAUSES = 20  # nested errors; the limit protects against a cycle
TIMEOUTS = (
    TimeoutError,
    asyncio.TimeoutError,
    requests.Timeout,
)  # in Python 3.10 these are different classes


class RequestProgress:
    """How far one request got. A context in which it is sent.

    :param answer_timeout: seconds for the complete answer.
    :param secrets: the secrets that neither an error nor a log may show.
    """

    def __init__(self, answer_timeout: float, secrets: tuple[str, ...]) -> None:
        self.answer_timeout = answer_timeout
        self.secrets = secrets
        self.connect_failed = False
        """Whether the network was used, but no connection was established."""
        self.begun = False
        """Whether the connection was established and sending the request began."""
        self.was_cut = False
        """Whether the connection was cut because the answer was not complete in time. It can look like the end of the answer."""

    def __enter__(self) -> Self:
        CURRENT.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        CURRENT.set(None)

    def cut_off(self) -> InterruptedCallError:
        """Return the error for an answer that was not complete in time."""
        return _timed_out(f"the answer was not complete within {self.answer_timeout:g} s")

    def error_of(self, failure: Exception) -> AstroZeroError:
        """Return the error that a failure means. It has no cause: the failure holds the request, and so the token."""
        if isinstance(failure, AstroZeroError):
            failure.__context__ = failure.__cause__ = None
            return failure
        if self.was_cut:
            return self.cut_off()
        causes = _cause_chain(failure)
        reason = self.reason(causes)
        timed_out = any(isinstance(cause, TIMEOUTS) for cause in causes)
        if self.begun:
            lost = InterruptedCallError(f"the connection was lost ({reason})")
            return _timed_out("no answer came within 'read_timeout'") if timed_out else lost
        if not self.connect_failed:
            return not_sendable(reason)
        if any(isinstance(cause, ssl.SSLError) for cause in causes):
            return TlsError(f"the TLS handshake failed ({reason})")
        how = "within 'connect_timeout'" if timed_out else f"({reason})"
        return NotSentError(f"the server could not be reached {how}")

    def reason(self, causes: list[BaseException]) -> str:
        """Describe what went wrong, with the words of the innermost error."""
        words = secrecy.quote(str(causes[-1]), self.secrets, MAX_REASON_CHARS)
        kind = type(causes[-1]).__name__
        return f"{kind}: {words}" if words else kind


CURRENT: ContextVar[Any] = ContextVar("sending", default=None)
"""The ``RequestProgress`` of the request that this thread or task is sending."""


def _secrets_in_use() -> tuple[str, ...] | None:
    sending = CURRENT.get()
    return sending.secrets if sending is not None else None


LIBRARY_FILTER = secrecy.LibraryFilter(_secrets_in_use)


def _cause_chain(error: BaseException) -> list[BaseException]:
    """Return an error and the errors that it wraps, outermost first, in all the ways in which HTTP libraries wrap errors.

    ``__context__`` is not followed: it may be an unrelated error that a caller is handling.
    """
    found = [error]
    while len(found) < MAX_CAUSES:
        outer = found[-1]
        wrapped = [getattr(outer, "reason", None), *outer.args, outer.__cause__]
        inner = next((each for each in wrapped if isinstance(each, BaseException)), None)
        if inner is None:
            break
        found.append(inner)
    return found


def _timed_out(problem: str) -> InterruptedCallError:
    error = InterruptedCallError(problem)
    error.timed_out = True
    return error


def invalid_request(error: Exception) -> NotSentError:
    """Return the error for a request that cannot be built. It does not quote the original error, which may quote a header."""
    return _local_failure(f"the request could not be built ({type(error).__name__})")


def not_sendable(reason: str) -> NotSentError:
    """Return the error for a request for which no connection could be attempted."""
    return _local_failure(f"the request could not be sent ({reason})")


def _local_failure(problem: str) -> NotSentError:
    """Return an error for which the network was not used, so that another attempt would fail too."""
    error = NotSentError(problem)
    error.is_transient = False
    return error


def answer_too_long(limit: int, status: int) -> UnexpectedAnswerError:
    """Return the error for an answer that is longer than the limit, after decompression."""
    error = UnexpectedAnswerError(
        f"the answer is longer than {limit} bytes ('max_response_bytes')", status=status
    )
    error.is_malformed = False  # A second answer would be as long.
    return error


def answer_not_decompressed(status: int) -> UnexpectedAnswerError:
    """Return the error for an answer that cannot be decompressed as its header says."""
    return UnexpectedAnswerError("the answer cannot be decompressed", status=status)
