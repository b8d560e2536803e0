"""Which error a request is that got no usable answer, by how far it got; both transports say it in these words."""

from __future__ import annotations

from airflow_provider_astrobpm.bpm.errors import (
    InterruptedCallError,
    NotSentError,
    TlsError,
    UnexpectedAnswerError,
)

LONGEST_REASON = 200  # characters of what an error of a connection says, which may be what the server said
MOST_CAUSES = 20  # errors that wrap each other; a bound, should they form a ring


def causes(error: BaseException) -> list[BaseException]:
    """Return the error and what it wraps, in the ways in which HTTP libraries wrap, outermost first.

    Not its ``__context__``: that may be an error that somebody up the stack is handling.
    """
    found = [error]
    while len(found) < MOST_CAUSES:
        outer = found[-1]
        wrapped = [getattr(outer, "reason", None), *outer.args, outer.__cause__]
        inner = next((each for each in wrapped if isinstance(each, BaseException)), None)
        if inner is None:
            break
        found.append(inner)
    return found


def unbuildable(error: Exception) -> NotSentError:
    """Return the error for a request that cannot be written down, without the words of the original."""
    return _not_tried(f"the request could not be built ({type(error).__name__})")


def unsendable(reason: str) -> NotSentError:
    """Return the error for a request for which no connection could even be tried."""
    return _not_tried(f"the request could not be sent ({reason})")


def unreached(reason: str, *, timed_out: bool, in_tls: bool) -> NotSentError:
    """Return the error for a request that was not begun, because there was no connection to send it on.

    :param reason: what went wrong.
    :param timed_out: whether it took too long.
    :param in_tls: whether it was the TLS handshake that failed.
    """
    if in_tls:
        return TlsError(f"the TLS handshake failed ({reason})")
    if timed_out:
        return NotSentError("the server could not be reached within 'connect_timeout'")
    return NotSentError(f"the server could not be reached ({reason})")


def interrupted(reason: str, *, timed_out: bool) -> InterruptedCallError:
    """Return the error for a request that was begun.

    :param reason: what went wrong.
    :param timed_out: whether nothing came for too long.
    """
    if timed_out:
        return InterruptedCallError("no answer came within 'read_timeout'")
    return InterruptedCallError(f"the connection was cut ({reason})")


def out_of_time(answer_timeout: float) -> InterruptedCallError:
    """Return the error for an answer that did not come to its end.

    :param answer_timeout: seconds that it had.
    """
    return InterruptedCallError(f"the answer was not whole within {answer_timeout:g} s")


def too_long(limit: int, status: int) -> UnexpectedAnswerError:
    """Return the error for an answer of more bytes than the limit, unpacked."""
    error = UnexpectedAnswerError(
        f"the answer is longer than {limit} bytes ('max_response_bytes')", status=status
    )
    error.unreadable = False  # The next one would be as long.
    return error


def not_unpacked(status: int) -> UnexpectedAnswerError:
    """Return the error for an answer that is not packed as it says."""
    return UnexpectedAnswerError("the answer cannot be unpacked", status=status)


def _not_tried(problem: str) -> NotSentError:
    error = NotSentError(problem)
    error.passing = False  # Nothing was tried over the network; trying again changes nothing.
    return error
