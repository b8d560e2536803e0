"""The protocol of one call, from its operation to its result, without I/O.

``call_flow`` is a generator. It yields what it needs next, a token or a request to send, and receives the result. Its driver
does the I/O, so the sync and the async client share every decision made here: when to renew a token, what counts as success,
and which error an answer means. Errors of the transport are thrown into the generator.
"""

from __future__ import annotations

import json
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit

import msgspec

from airflow_provider_astrobpm.client import operations, secrecy, states, texts
from airflow_provider_astrobpm.client.csrf import METHOD_NOT_OFFERED_STATUSES
from airflow_provider_astrobpm.client.errors import (
    AstroZeroError,
    AuthenticationError,
    CallError,
    InterruptedCallError,
    RefusedError,
    ServerError,
    ThrottledError,
    TokenRefusedError,
    UnexpectedAnswerError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from airflow_provider_astrobpm.client.csrf import CsrfMemory
    from airflow_provider_astrobpm.client.operations import Operation

T = TypeVar("T")

SUCCESS = "0"
# No page documents how a bad token is reported. Clients in the field see these two codes. A 401 is unambiguous.
BAD_TOKEN_CODES = frozenset({"405230602", "405230603"})
TOKEN_PROBE = operations.query(states.SHORT_LIVED)  # a safe call that every client must be allowed to make
DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
MAX_RETRY_AFTER_CHARS = 60  # characters of a header with a number or a date


class NeedToken(msgspec.Struct, frozen=True):
    """Request an access token other than the stale one, which the server has just refused.

    The reply is the token, or ``None`` if there is no other.
    """

    stale: str | None = None
    doubt: str | None = None
    """The kind of call and answer, if the answer may have a reason other than the token."""

    def __repr__(self) -> str:
        return "NeedToken()"


class Request(msgspec.Struct, frozen=True):
    """A request to send unchanged, without following redirects."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes | None
    kind: str = ""
    """The kind of its operation."""
    secrets: tuple[str, ...] = ()
    """The secrets that no error and no log may show, even if the server repeats them."""

    def __repr__(self) -> str:
        return f"Request({self.method!r}, {self.target!r})"


class Response(msgspec.Struct, frozen=True):
    """A complete answer. The names in ``headers`` are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"Response({self.status})"


if TYPE_CHECKING:
    CallFlow = Generator[NeedToken | Request, Any, T]


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


def call_flow(
    operation: Operation[T],
    *,
    connection: str,
    csrf: CsrfMemory | None = None,
    secrets: tuple[str, ...] = (),
    note_useless_renewal: Callable[[str], None] = lambda _doubt: None,
) -> CallFlow[T]:
    """Run one call as a generator.

    :param operation: the operation.
    :param connection: the connection id, for messages.
    :param csrf: the memory of the endpoint's CSRF tokens, if writes need one.
    :param secrets: further secrets that no error and no result may show, even if the server repeats them.
    :param note_useless_renewal: called with the kind of call and answer if a fresh token did not change the answer.
    :returns: the decoded result.
    :raises CallError: a subclass that says what was attempted and what the server said.
    """
    if csrf is not None:
        secrets = (*secrets, *csrf.recent_tokens)
    try:
        if not operation.needs_token:
            return (yield from _exchange(operation, {}, (*secrets, *operation.secrets))).read()
        csrf = csrf if operation.method != "GET" else None
        return (yield from _send_authorised(operation, secrets, csrf, note_useless_renewal))
    except AstroZeroError as error:
        error.add_context(operation.attempt, connection)
        raise


def _send_authorised(
    operation: Operation[T],
    secrets: tuple[str, ...],
    csrf: CsrfMemory | None,
    note_useless_renewal: Callable[[str], None],
) -> CallFlow[T]:
    """Send with a token. If the token may be at fault, renew it once and resend; the second answer counts."""
    token = yield from _token(NeedToken())
    answer: _ResponseReader[Any] = yield from _send(operation, token or "", secrets, csrf)
    has_reached, resent = answer.operation is operation, False
    try:
        fault = yield from _check_token(token or "", answer, secrets)
        if fault is not None:
            doubt = None if fault is TokenFault.CERTAIN else f"{answer.operation.kind} {answer.status}"
            fresh = yield from _token(NeedToken(stale=token, doubt=doubt))
            if fresh is not None:
                resent = has_reached
                answer = yield from _send(operation, fresh, secrets, csrf)
                fault = yield from _check_token(fresh, answer, secrets)
                answer.refuses_fresh_token = fault is TokenFault.CERTAIN
                if fault is TokenFault.POSSIBLE and doubt is not None:
                    note_useless_renewal(doubt)
        result: T = answer.read()
    except CallError as error:
        if answer.operation is not operation:
            _mark_not_processed(error, answer.operation)
        if has_reached:
            error.never_reached = False
        error.earlier_attempt_sent = resent
        raise
    return result


def _token(need: NeedToken) -> CallFlow[str | None]:
    try:
        token: str | None = yield need
    except CallError as error:
        error.failed_fetching_token, error.was_processed, error.never_reached = True, False, True
        raise
    return token


def _send(
    operation: Operation[Any], token: str, secrets: tuple[str, ...], csrf: CsrfMemory | None
) -> CallFlow[_ResponseReader[Any]]:
    """Send with a token and, if needed, its CSRF token. Return the answer, or the refusal of the CSRF request."""
    headers = {"access-token": token}
    secrets = (token, *secrets)
    if csrf is not None:
        try:
            fetched = yield from _csrf_token(headers, secrets, csrf)
            if fetched.token_fault is not None:
                return fetched
            headers["csrf-token"] = fetched.read()
            secrets = (headers["csrf-token"], *secrets)
        except CallError as error:
            _mark_not_processed(error, operations.get_csrf_token())
            raise
        csrf.remember(headers["csrf-token"], fetched.operation.method)
    return (yield from _exchange(operation, headers, secrets))


def _csrf_token(
    headers: dict[str, str], secrets: tuple[str, ...], csrf: CsrfMemory
) -> CallFlow[_ResponseReader[str]]:
    """Request a CSRF token. If the endpoint does not offer the first method, use the other one."""
    answers = []
    for method in csrf.methods:
        answer = yield from _exchange(operations.get_csrf_token(method), headers, secrets)
        if answer.status not in METHOD_NOT_OFFERED_STATUSES:
            return answer
        answers.append(answer)
    return answers[0]


def _check_token(
    token: str, answer: _ResponseReader[Any], secrets: tuple[str, ...]
) -> CallFlow[TokenFault | None]:
    """Return how certainly the token is at fault, or ``None`` if it is not or if the operation must not be resent."""
    operation, fault = answer.operation, answer.token_fault
    if fault is not TokenFault.POSSIBLE or operation.method == "GET":
        return fault
    if answer.status >= 500 and not operation.resend_if_in_doubt:
        return None  # the server may have acted before it failed, even with a code for a bad token
    # A permission may be missing, or a gateway may have refused the answer after the work was done. The token is at fault only
    # if a safe call refuses it too.
    try:
        probe = yield from _exchange(TOKEN_PROBE, {"access-token": token}, (token, *secrets))
    except CallError:
        return None
    return None if probe.token_fault is None else TokenFault.CERTAIN


def _mark_not_processed(error: CallError, request_before: Operation[Any]) -> None:
    """Record in an error that the server did not act on the operation, because a request that must come first failed."""
    error.attempt = error.attempt or request_before.attempt
    error.was_processed = False
    error.never_reached = True


def _exchange(
    operation: Operation[T], headers: Mapping[str, str], secrets: tuple[str, ...]
) -> CallFlow[_ResponseReader[T]]:
    headers = {"accept": "application/json", "content-type": operation.content_type, **headers}
    request = Request(operation.method, operation.target, headers, operation.body, operation.kind, secrets)
    return _ResponseReader(operation, (yield request), secrets)


class TokenFault(Enum):
    """How certainly an answer says that the access token is at fault. The documentation does not say how it is reported."""

    CERTAIN = "certain"
    POSSIBLE = "possible"


def token_fault(response: Response) -> TokenFault | None:
    """Return how certainly an answer says that the access token is at fault, or ``None`` if it does not say so."""
    return _ResponseReader(TOKEN_PROBE, response).token_fault


def without_secrets(response: Response, secrets: tuple[str, ...]) -> Response:
    """Return a copy of an answer whose code, message and headers are safe to show.

    :param secrets: the secrets to mask.
    """
    headers = {name: secrecy.quote(value, secrets) for name, value in response.headers.items()}
    body = response.body
    envelope = _ResponseReader(TOKEN_PROBE, response).envelope
    if envelope is not None:
        message = _message_text(envelope.resMsg)
        shown = {
            "resCode": secrecy.quote(envelope.code, secrets),
            "resMsg": message and secrecy.quote(message, secrets),
            "result": envelope.result,
        }
        body = secrecy.masked_json(msgspec.json.encode(shown), secrets)
    return msgspec.structs.replace(response, headers=headers, body=body)


def platform_message(response: Response) -> tuple[str | None, str | None]:
    """Return the ``resCode`` and ``resMsg`` of an answer, if it has them."""
    envelope = _ResponseReader(TOKEN_PROBE, response).envelope
    return (envelope.code, _message_text(envelope.resMsg)) if envelope else (None, None)


class _ResponseReader(Generic[T]):
    """Interprets an answer. Removes secrets and characters that Airflow cannot store.

    :param operation: the operation that it answers.
    :param secrets: the secrets that neither its result nor a message may show.
    """

    def __init__(self, operation: Operation[T], response: Response, secrets: tuple[str, ...] = ()) -> None:
        self.operation = operation
        self.status = response.status
        self.headers = response.headers
        self.body = texts.storable_json(response.body)
        if not operation.result_is_secret:
            self.body = secrecy.masked_json(self.body, secrets)
        self.envelope = _decoded(self.body, _Envelope)
        if self.envelope is None:
            with suppress(ValueError, RecursionError):
                self.body = texts.strict_json(self.body)
                self.envelope = _decoded(self.body, _Envelope)
        self.refuses_fresh_token = False
        self._secrets = secrets

    @property
    def token_fault(self) -> TokenFault | None:
        """How certainly this answer says that the access token is at fault."""
        has_code = self.envelope is not None and self.envelope.code in BAD_TOKEN_CODES
        if self.status == 401 or (has_code and self.status < 500):
            return TokenFault.CERTAIN
        return TokenFault.POSSIBLE if self.status == 403 or has_code else None

    def read(self) -> T:
        """Return the result, or raise the error that the answer means."""
        succeeded = self.envelope is not None and self.envelope.code == SUCCESS
        if not 200 <= self.status < 300 or not (succeeded or not self.operation.has_envelope):
            raise self._error()
        try:
            return self.operation.decode(
                self.envelope.result if self.operation.has_envelope and self.envelope else self.body
            )
        except DECODE_ERRORS as error:
            reason = self._quote(str(error))
        # Not inside "except", because the original error may contain the whole answer.
        raise UnexpectedAnswerError(
            f"the answer does not have the documented form: {reason}",
            status=self.status,
            res_code=self._quote(self.envelope.code) if self.envelope else None,
        )

    def _error(self) -> CallError:
        code, message = self._words()
        kind, problem = self._kind(code)
        error = kind(
            problem,
            status=self.status,
            res_code=self._quote(code) if code is not None else None,
            res_msg=self._quote(message) if message else None,
        )
        if (asked := self.headers.get("retry-after")) is not None:
            error.retry_after = self._quote(asked, MAX_RETRY_AFTER_CHARS)
        error.is_malformed = error.is_malformed and 200 <= self.status < 300
        return error

    def _kind(self, code: str | None) -> tuple[type[CallError], str]:
        """Return the class of the error and the problem in words. The first row that applies decides."""
        status, gets_token = self.status, not self.operation.needs_token
        # Page 0011 documents the 400. Other statuses may come from a gateway.
        is_oauth_refusal = status == 401 or (status == 400 and _decoded(self.body, _OAuthError) is not None)
        unclear = "no token was issued, but the answer does not say that the client id or the secret is wrong"
        host = self._quote(_origin(self.headers))
        redirect = f"the server redirects to {host}, but redirects are not followed"
        media = self._quote(self.headers.get("content-type", "no content type"))
        no_json = f"the answer ({len(self.body)} bytes, {media}) is not the documented JSON"
        table: tuple[tuple[bool, type[CallError], str], ...] = (
            (300 <= status < 400, UnexpectedAnswerError, redirect),
            (status == 429, ThrottledError, "the server received too many requests"),
            (status >= 500, ServerError, "the server failed"),
            (status == 408, InterruptedCallError, "the server timed out waiting for the request"),
            (gets_token and is_oauth_refusal, AuthenticationError, "the client id or the secret was refused"),
            (gets_token and status >= 400, UnexpectedAnswerError, unclear),
            (self.refuses_fresh_token, TokenRefusedError, "an access token that was just issued was refused"),
            (self.token_fault is TokenFault.CERTAIN, AuthenticationError, "the access token was refused"),
            (status >= 400 and code != SUCCESS, RefusedError, "the server refused"),
            (200 <= status < 300 and self.envelope is not None, RefusedError, "the server refused"),
            (True, UnexpectedAnswerError, no_json),
        )
        return next((kind, problem) for applies, kind, problem in table if applies)

    def _words(self) -> tuple[str | None, str | None]:
        """Return the code and the message, from the envelope or from an OAuth error."""
        if self.envelope is not None:
            return self.envelope.code, _message_text(self.envelope.resMsg)
        refusal = _decoded(self.body, _OAuthError)
        return (str(refusal.error), _message_text(refusal.error_description)) if refusal else (None, None)

    def _quote(self, text: str, longest: int = secrecy.MAX_QUOTE_CHARS) -> str:
        return secrecy.quote(text, self._secrets, longest)


def _decoded(body: bytes, shape: type[T]) -> T | None:
    try:
        return msgspec.json.decode(body, type=shape)
    except DECODE_ERRORS:
        return None


def _message_text(message: Any) -> str | None:
    """Return a message as text. It decides nothing, so any type is accepted."""
    try:
        return (
            message
            if message is None or isinstance(message, str)
            else json.dumps(message, ensure_ascii=False)
        )
    except RecursionError:
        return None


def _origin(headers: Mapping[str, str]) -> str:
    """Return the host of a redirect, without path and query, which may contain a token."""
    try:
        host = urlsplit(headers.get("location", "")).hostname
    except ValueError:
        host = None
    return repr(host) if host else "another path"
