"""Maps transport failures to errors, by how far the request got. Both transports share it."""

from __future__ import annotations

from airflow_provider_astrobpm.client.errors import (
    InterruptedCallError,
    NotSentError,
    TlsError,
    UnexpectedAnswerError,
)

MAX_REASON_CHARS = 200  # characters of a connection error's message, which may quote the server
MAX_CAUSES = 20  # nested errors; the limit protects against a cycle


def cause_chain(error: BaseException) -> list[BaseException]:
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


def invalid_request(error: Exception) -> NotSentError:
    """Return the error for a request that cannot be built. It does not quote the original error."""
    return _local_failure(f"the request could not be built ({type(error).__name__})")


def connect_not_attempted(reason: str) -> NotSentError:
    """Return the error for a request for which no connection could be attempted."""
    return _local_failure(f"the request could not be sent ({reason})")


def connect_failed(reason: str, *, timed_out: bool, in_tls: bool) -> NotSentError:
    """Return the error for a request that could not be sent, because connecting failed.

    :param reason: what went wrong.
    :param timed_out: whether connecting timed out.
    :param in_tls: whether the TLS handshake failed.
    """
    if in_tls:
        return TlsError(f"the TLS handshake failed ({reason})")
    if timed_out:
        return NotSentError("the server could not be reached within 'connect_timeout'")
    return NotSentError(f"the server could not be reached ({reason})")


def interrupted(reason: str, *, timed_out: bool) -> InterruptedCallError:
    """Return the error for a request that failed after sending it had begun.

    :param reason: what went wrong.
    :param timed_out: whether the read timed out.
    """
    if timed_out:
        return InterruptedCallError("no answer came within 'read_timeout'")
    return InterruptedCallError(f"the connection was lost ({reason})")


def answer_timed_out(answer_timeout: float) -> InterruptedCallError:
    """Return the error for an answer that was not complete in time.

    :param answer_timeout: the timeout, in seconds.
    """
    return InterruptedCallError(f"the answer was not complete within {answer_timeout:g} s")


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


def _local_failure(problem: str) -> NotSentError:
    error = NotSentError(problem)
    error.is_transient = False  # The network was not used, so another attempt would fail too.
    return error
