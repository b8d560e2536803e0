"""The token cache: one token per credential, shared by all clients of the process.

The first caller that needs a token requests it. Callers that come in the meantime, from any thread or event loop, wait for
the same request. A token is renewed shortly before it expires, and after the server refuses it.

Some servers may invalidate older tokens when they issue a new one, so each request could cost other processes their token.
So a token is requested only when necessary.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import threading
import time
from concurrent.futures import Future
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.client import operations, process_state
from airflow_provider_astrobpm.client.csrf import CsrfMemory
from airflow_provider_astrobpm.client.drivers import drive, drive_async
from airflow_provider_astrobpm.client.errors import (
    AstroZeroError,
    AuthenticationError,
    CallError,
    ThrottledError,
)
from airflow_provider_astrobpm.client.settings import StaticToken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Hashable

    from airflow_provider_astrobpm.client.operations import Encoding, Flow, TokenAnswer
    from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings

MAX_RENEWAL_MARGIN_SECONDS = 60.0  # before a token expires, or a tenth of its lifetime if that is less
MAX_RECENT_TOKENS = 2  # tokens of a credential, the current one included, that messages mask
RENEWAL_PAUSE_SECONDS = 10.0  # without a renewal for the same doubt, after one that did not help
# Errors of RFC 6749 that are not about the client.
ENCODING_REFUSALS = frozenset({"invalid_request", "unsupported_grant_type"})

if TYPE_CHECKING:
    # Yields ``None`` to request a token and receives a TokenAnswer, or yields a future to wait for and receives its result. Any
    # exception is thrown in, because other callers may be waiting for the same request. Returns what ``get`` returns.
    Acquisition = Generator[Future[str] | None, Any, str | None]


@dataclass(frozen=True)
class _Token:
    value: str = field(repr=False)
    renew_at: float
    """When it is renewed. If the server did not say when it expires, it is used until it is refused."""
    encoding: Encoding


class TokenCache:
    """Tokens by credential. For each credential at most one request is under way.

    :param clock: seconds on a monotonic clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.clear()

    def clear(self) -> None:
        """Forget all tokens, and the requests under way, which no thread of this process completes after a fork."""
        self._lock = threading.Lock()
        self._tokens: dict[Hashable, tuple[_Token, ...]] = {}
        """The most recent tokens of each credential, the newest first."""
        self._requests: dict[Hashable, Future[str]] = {}
        self._useless_renewals: dict[tuple[Hashable, str], float] = {}
        """When a fresh token last did not change an answer, by credential and kind of call and answer."""
        self._csrf_memories: dict[str, CsrfMemory] = {}

    def known(self, key: Hashable, stale: str | None = None) -> str | None:
        """Return the cached token, if there is one that is still valid.

        :param key: the ``credential_key`` of its credential.
        :param stale: a token that the server has just refused.
        """
        token = self._newest(key)
        if token is None or token.value == stale or self._clock() >= token.renew_at:
            return None
        return token.value

    def _newest(self, key: Hashable) -> _Token | None:
        return next(iter(self._tokens.get(key, ())), None)

    def recent_tokens(self, key: Hashable) -> tuple[str, ...]:
        """Return the most recent tokens of a credential, the newest first. Calls with older ones may still be under way.

        :param key: the ``credential_key`` of the credential.
        """
        return tuple(token.value for token in self._tokens.get(key, ()))

    def encoding(self, settings: Settings) -> Encoding | None:
        """Return the encoding of the request that returned the current token, if there is one."""
        token = self._newest(credential_key(settings))
        return token.encoding if token is not None else None

    def csrf_memory(self, settings: Settings) -> CsrfMemory | None:
        """Return the memory of the endpoint's CSRF tokens, or ``None`` if it needs none.

        All clients of the process share it.
        """
        return self._csrf_memories.setdefault(settings.base_url, CsrfMemory()) if settings.csrf else None

    def note_useless_renewal(self, settings: Settings, doubt: str) -> None:
        """Record that a fresh token did not change an answer.

        :param settings: the settings with the credential.
        :param doubt: the kind of call and answer.
        """
        self._useless_renewals[credential_key(settings), doubt] = self._clock()

    def get(
        self,
        settings: Settings,
        request: Callable[[], TokenAnswer],
        *,
        stale: str | None = None,
        doubt: str | None = None,
    ) -> str | None:
        """Return a valid token, or ``None`` if there is none but the refused one.

        A token that the connection provides cannot be renewed. A token is also not renewed for a doubt if a recent renewal for the
        same doubt did not help.

        :param settings: the settings with the credential.
        :param request: requests a new token; called by one thread at a time for each credential.
        :param stale: a token that the server has just refused.
        :param doubt: the kind of call and answer, if the answer may have a reason other than the token.
        :raises AuthenticationError: if the server refuses the credentials.
        """
        steps = self._acquire(settings, stale, doubt)
        return drive(steps, lambda step: request() if step is None else step.result(), BaseException)

    async def aget(
        self,
        settings: Settings,
        request: Callable[[], Awaitable[TokenAnswer]],
        *,
        stale: str | None = None,
        doubt: str | None = None,
    ) -> str | None:
        """Do the same as ``get`` without blocking the event loop. The parameters and errors are those of ``get``.

        If a caller is cancelled while it requests a token, the next waiting caller requests it.
        """
        steps = self._acquire(settings, stale, doubt)
        return await drive_async(
            steps, lambda step: request() if step is None else asyncio.wrap_future(step), BaseException
        )

    def _acquire(self, settings: Settings, stale: str | None, doubt: str | None) -> Acquisition:
        """Decide which caller requests the token. The lock is never held while a caller waits."""
        if isinstance(settings.credentials, StaticToken):
            return settings.credentials.token if stale is None else None
        key = credential_key(settings)
        while True:
            with self._lock:
                if (known := self.known(key, stale)) is not None:
                    return known
                under_way = self._requests.get(key)
                if under_way is None:
                    if doubt is not None and self._was_useless(key, doubt):
                        return None
                    future = self._requests[key] = Future()
                    future.set_running_or_notify_cancel()  # so that a caller that waits for it cannot cancel it
            if under_way is None:
                return (yield from self._request_new(key, future))
            try:
                value: str = yield under_way
            except InterruptedError:
                continue  # The requesting caller was stopped, which says nothing about the token.
            except AstroZeroError as error:
                own = copy(error)  # the original names the connection of the requesting caller
                own.connection = settings.connection
                raise own from None
            return value

    def _was_useless(self, key: Hashable, doubt: str) -> bool:
        """Return whether a renewal for this doubt was useless a short time ago."""
        last = self._useless_renewals.get((key, doubt), -math.inf)
        return self._clock() - last < RENEWAL_PAUSE_SECONDS

    def _request_new(self, key: Hashable, future: Future[str]) -> Generator[None, Any, str]:
        try:
            answer: TokenAnswer = yield None
            lifetime = math.inf if answer.expires_in is None else answer.expires_in
            renew_at = self._clock() + lifetime - min(MAX_RENEWAL_MARGIN_SECONDS, lifetime / 10)
            token = _Token(answer.access_token, renew_at, answer.encoding)
        except BaseException as error:
            self._end(key, future)
            future.set_exception(error if isinstance(error, Exception) else InterruptedError())
            raise
        self._end(key, future, token)
        future.set_result(token.value)
        return token.value

    def _end(self, key: Hashable, future: Future[str], token: _Token | None = None) -> None:
        with self._lock:
            if token is not None:
                others = (each for each in self._tokens.get(key, ()) if each.value != token.value)
                self._tokens[key] = (token, *others)[:MAX_RECENT_TOKENS]
            if self._requests.get(key) is future:  # after a clear it may belong to another caller
                del self._requests[key]


def request_token(credentials: ClientCredentials, known: Encoding | None = None) -> Flow[TokenAnswer]:
    """Request a token in the encoding that this endpoint accepts.

    The request may be a form or JSON (API page 0009); the page does not say which one the token endpoint accepts. Clients in
    the field send a form, so that is tried first.

    :param known: the encoding that returned a token before; it is tried first.
    :raises AuthenticationError: if the credentials were refused, not only an encoding.
    :raises CallError: if there is no token for another reason.
    """
    first: Encoding = known or "form"
    second: Encoding = "json" if first == "form" else "form"
    get_token = partial(operations.get_token, credentials.client_id, credentials.client_secret)
    try:
        answer: TokenAnswer = yield get_token(encoding=first)
    except CallError as refusal:
        if isinstance(refusal, ThrottledError) or not 400 <= (refusal.status or 0) < 500:
            raise
        try:
            answer = yield get_token(encoding=second)
        except CallError as later:
            kinds = isinstance(refusal, AuthenticationError), isinstance(later, AuthenticationError)
            if known is None and kinds == (True, False) and refusal.res_code in ENCODING_REFUSALS:
                raise later from None  # the first refusal may have been about the encoding only
            raise refusal from None
    return answer


def credential_key(settings: Settings) -> Hashable:
    """Return a key that identifies a credential without containing its secret."""
    credentials = settings.credentials
    user = "" if isinstance(credentials, StaticToken) else credentials.client_id
    digest = hashlib.sha256(settings.secrets()[0].encode()).hexdigest()
    return settings.base_url, user, digest


TOKENS = TokenCache()
"""The token cache of this process."""

process_state.register(TOKENS.clear, after_fork=True)
