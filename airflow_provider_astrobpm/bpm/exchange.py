"""One call, from its operation to its result, without I/O.

``exchange`` is a generator that yields what it needs next (a token, or a request to be sent) and is sent what
came of it. Whoever drives it does the I/O, so the sync and the async client share every decision made here: when
a token is renewed, what counts as success, and which error an answer is. Errors of the transport are thrown in.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, quote_plus, urlsplit

import msgspec

from airflow_provider_astrobpm.bpm import api, texts
from airflow_provider_astrobpm.bpm.errors import (
    AstroZeroError,
    AuthenticationError,
    CallError,
    InterruptedCallError,
    RefusedError,
    ServerError,
    ThrottledError,
    UnexpectedAnswerError,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from airflow_provider_astrobpm.bpm.api import Operation

T = TypeVar("T")

SUCCESS = "0"
# No page documents how a bad token is reported; clients in the field see these two codes. A 401 says so itself.
BAD_TOKEN_CODES = frozenset({"405230602", "405230603"})
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
LONGEST_QUOTE = 500  # characters of the server's own words in an error


class NeedToken(msgspec.Struct, frozen=True):
    """Ask for an access token other than the stale one, which the server has just refused.

    The reply is the token, or ``None`` where there is no other.
    """

    stale: str | None = None

    def __repr__(self) -> str:
        return "NeedToken()"


class Request(msgspec.Struct, frozen=True):
    """A request to be sent as it is, without following redirects."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes | None
    kind: str = ""
    """The kind of its operation."""

    def __repr__(self) -> str:
        return f"Request({self.method!r}, {self.target!r})"


class Response(msgspec.Struct, frozen=True):
    """A whole answer; ``headers`` has lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"Response({self.status})"


if TYPE_CHECKING:
    Exchange = Generator[NeedToken | Request, Any, T]


class _Envelope(msgspec.Struct, frozen=True):
    resCode: str | int  # noqa: N815 - the wire's name
    resMsg: Any = None  # noqa: N815
    result: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def code(self) -> str:
        return str(self.resCode)


class _OAuthError(msgspec.Struct, frozen=True):
    error: str | int
    error_description: Any = None


def exchange(operation: Operation[T], *, connection: str, csrf: bool = False) -> Exchange[T]:
    """Drive one call.

    :param operation: what to do.
    :param connection: the connection id, for messages.
    :param csrf: whether a write has to carry a CSRF token.
    :returns: the decoded result.
    :raises CallError: one of its kinds, saying what was attempted and what the server said.
    """
    try:
        if not operation.needs_token:
            return _Answer((yield _request(operation, {}))).read(operation, operation.secrets)
        headers = {}
        if csrf and operation.method != "GET":
            fetch = api.get_csrf_token()
            try:
                headers["csrf-token"] = yield from _authorised(fetch, {}, connection)
            except CallError as error:
                _not_taken(error, fetch, connection)
                raise
        return (yield from _authorised(operation, headers, connection))
    except AstroZeroError as error:
        error.locate(operation.attempt, connection)
        raise


def _authorised(operation: Operation[T], headers: Mapping[str, str], connection: str) -> Exchange[T]:
    """Send with a token; on a refused token renew it once and send again."""
    token = yield from _token(NeedToken(), operation, connection)
    answer = _Answer((yield _request(operation, {**headers, "access-token": token or ""})))
    if answer.refuses_token:
        fresh = yield from _token(NeedToken(stale=token), operation, connection)
        if fresh is not None:
            token = fresh
            answer = _Answer((yield _request(operation, {**headers, "access-token": token})))
    return answer.read(operation, secrets=(token or "", *headers.values()))


def _token(need: NeedToken, operation: Operation[Any], connection: str) -> Exchange[str | None]:
    try:
        token: str | None = yield need
    except CallError as error:
        error.came_before = True
        _not_taken(error, operation, connection)
        raise
    return token


def _not_taken(error: CallError, operation: Operation[Any], connection: str) -> None:
    """Let an error say that the server did not act on the operation itself: its request was not sent, or refused."""
    error.locate(operation.attempt, connection)
    error.taken = False


def _request(operation: Operation[Any], headers: Mapping[str, str]) -> Request:
    return Request(
        operation.method,
        operation.target,
        {"accept": "application/json", "content-type": operation.content_type, **headers},
        operation.body,
        operation.kind,
    )


def words_of_platform(response: Response) -> tuple[str | None, str | None]:
    """Return ``resCode`` and ``resMsg`` of an answer, if it has them."""
    envelope = _Answer(response).envelope
    return (envelope.code, _said(envelope.resMsg)) if envelope else (None, None)


class _Answer:
    """An answer and what it means. Its texts are cleaned here of all that cannot be handed to Airflow."""

    def __init__(self, response: Response) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = texts.storable_json(response.body)
        self.envelope = _decoded(self.body, _Envelope)
        if self.envelope is None:
            with suppress(ValueError, RecursionError):
                self.body = texts.strict_json(self.body)
                self.envelope = _decoded(self.body, _Envelope)

    @property
    def refuses_token(self) -> bool:
        # Not with a 5xx: whatever code it carries, the server may have acted before it failed.
        code = self.envelope.code if self.envelope else None
        return self.status == 401 or (self.status < 500 and code in BAD_TOKEN_CODES)

    def read(self, operation: Operation[T], secrets: tuple[str, ...] = ()) -> T:
        """Return the result, or raise the error that this answer is."""
        succeeded = self.envelope is not None and self.envelope.code == SUCCESS
        if not 200 <= self.status < 300 or not (succeeded or not operation.enveloped):
            raise self._error(operation, secrets)
        try:
            return operation.decode(
                self.envelope.result if operation.enveloped and self.envelope else self.body
            )
        except UNREADABLE as error:
            raise UnexpectedAnswerError(
                f"the answer has not the documented shape: {_quote(str(error), secrets)}",
                status=self.status,
                res_code=_quote(self.envelope.code, secrets) if self.envelope else None,
            ) from None

    def _error(self, operation: Operation[Any], secrets: tuple[str, ...]) -> CallError:
        kind, problem = self._kind(operation, secrets)
        code, message = self._words()
        error = kind(
            problem,
            status=self.status,
            res_code=_quote(code, secrets) if code is not None else None,
            res_msg=_quote(message, secrets) if message else None,
        )
        error.retry_after = self.headers.get("retry-after")
        error.unreadable = error.unreadable and 200 <= self.status < 300
        return error

    def _kind(self, operation: Operation[Any], secrets: tuple[str, ...]) -> tuple[type[CallError], str]:
        """Return which error this answer is, and the problem in words. The first row that fits decides."""
        code, _ = self._words()
        media = _quote(self.headers.get("content-type", "no content type"), secrets)
        table: tuple[tuple[bool, type[CallError], str], ...] = (
            (
                300 <= self.status < 400,
                UnexpectedAnswerError,
                f"the server redirects to {_origin(self.headers)}, and redirects are not followed",
            ),
            (self.status == 429, ThrottledError, "the server is asked too much"),
            (self.status >= 500, ServerError, "the server failed"),
            (self.status == 408, InterruptedCallError, "the server gave up waiting for the request"),
            (
                not operation.needs_token
                and (self.status == 401 or (self.status >= 400 and code is not None)),
                AuthenticationError,
                "the client id or the secret was refused",
            ),
            (
                operation.needs_token and self.refuses_token,
                AuthenticationError,
                "the access token was refused",
            ),
            (
                operation.needs_token and self.status >= 400 and code != SUCCESS,
                RefusedError,
                "the server refused",
            ),
            (200 <= self.status < 300 and self.envelope is not None, RefusedError, "the server refused"),
        )
        for applies, kind, problem in table:
            if applies:
                return kind, problem
        return (
            UnexpectedAnswerError,
            f"the answer ({len(self.body)} bytes, {media}) is not the documented JSON",
        )

    def _words(self) -> tuple[str | None, str | None]:
        """Return the code and the message of either error shape."""
        if self.envelope is not None:
            return self.envelope.code, _said(self.envelope.resMsg)
        refusal = _decoded(self.body, _OAuthError)
        return (str(refusal.error), _said(refusal.error_description)) if refusal else (None, None)


def _decoded(body: bytes, shape: type[T]) -> T | None:
    try:
        return msgspec.json.decode(body, type=shape)
    except UNREADABLE:
        return None


def _said(message: Any) -> str | None:
    """Return a message as text; it decides nothing, so it may be of any type."""
    return message if message is None or isinstance(message, str) else json.dumps(message, ensure_ascii=False)


def _origin(headers: Mapping[str, str]) -> str:
    """Return where a redirect leads, without path and query: those may hold a token."""
    try:
        host = urlsplit(headers.get("location", "")).hostname
    except ValueError:
        host = None
    return repr(host) if host else "another path"


def _quote(text: str, secrets: tuple[str, ...]) -> str:
    """Return the server's words on one line, short, and without the secrets we know."""
    for secret in filter(None, secrets):
        for form in (secret, quote(secret), quote_plus(secret)):
            text = text.replace(form, "***")
    text = texts.storable(" ".join(text.split()))
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}…"
