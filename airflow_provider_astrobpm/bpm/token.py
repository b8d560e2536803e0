"""The token cache: one token per credential, shared by all clients of the process.

Whoever needs a token first requests it; whoever comes meanwhile, from whatever thread or event loop, waits for
that one request. A token is renewed a little before it ends, and when the server has refused it.

Where the server ends older tokens when it issues a new one, each request costs the other processes their tokens. So
none is requested without need.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import threading
import time
from concurrent.futures import Future
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_astrobpm.bpm import api
from airflow_provider_astrobpm.bpm.csrf import CsrfMemory
from airflow_provider_astrobpm.bpm.errors import (
    AstroZeroError,
    AuthenticationError,
    CallError,
    ThrottledError,
)
from airflow_provider_astrobpm.bpm.settings import ReadyToken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Hashable

    from airflow_provider_astrobpm.bpm.api import Encoding, Plan, TokenAnswer
    from airflow_provider_astrobpm.bpm.settings import ClientCredentials, Settings

LONGEST_MARGIN = (
    60.0  # seconds before its end at which a token is renewed; a tenth of its life if that is less
)
MOST_EARLIER = 2  # tokens of a credential that are known still when they have been replaced, so that messages can mask them
DOUBT_PAUSE = 10.0  # seconds without a renewal over a doubt, after one that was in vain
ENCODING_REFUSALS = frozenset(
    {"invalid_request", "unsupported_grant_type"}
)  # of RFC 6749: not about the client

if TYPE_CHECKING:
    # Yields ``None`` for "request one", to be sent a TokenAnswer, or what to wait for, to be sent its result. What goes
    # wrong meanwhile is thrown in, whatever it is: others may be waiting. Returns what ``get`` returns.
    Acquisition = Generator[Future[str] | None, Any, str | None]


@dataclass(frozen=True)
class _Token:
    value: str = field(repr=False)
    renew_at: float | None
    """``None`` where the server did not say when the token ends: it serves until it is refused."""
    encoding: Encoding


class TokenCache:
    """Tokens by credential, each requested once at a time.

    :param clock: seconds on a clock that only goes forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.clear()

    def clear(self) -> None:
        """Forget all tokens, and requests under way that nobody here will end (after a fork)."""
        self._lock = threading.Lock()
        self._tokens: dict[Hashable, _Token] = {}
        self._earlier: dict[Hashable, tuple[_Token, ...]] = {}
        self._requests: dict[Hashable, Future[str]] = {}
        self._doubts = Doubts()
        self._csrf_memories: dict[str, CsrfMemory] = {}

    def known(self, key: Hashable, stale: str | None = None) -> str | None:
        """Return a token that is good for now, if one was requested before.

        :param key: whose token, as ``credential_key`` tells it.
        :param stale: a token that the server has just refused.
        """
        token = self._tokens.get(key)
        return token.value if token is not None and token.value != stale and not self._is_due(token) else None

    def earlier(self, key: Hashable) -> tuple[str, ...]:
        """Return the last few tokens that were issued for a credential, the newest first: calls with them may be under way.

        :param key: whose tokens, as ``credential_key`` tells it.
        """
        return tuple(token.value for token in self._earlier.get(key, ()))

    def encoding(self, settings: Settings) -> Encoding | None:
        """Return the encoding of the request that got the last token, if there was one."""
        token = self._tokens.get(credential_key(settings))
        return token.encoding if token is not None else None

    def csrf_memory(self, settings: Settings) -> CsrfMemory | None:
        """Return what was seen of the endpoint's CSRF tokens; ``None`` where none is needed.

        All clients of the process share what one has seen.
        """
        return self._csrf_memories.setdefault(settings.base_url, CsrfMemory()) if settings.csrf else None

    def in_vain(self, settings: Settings, doubt: str) -> None:
        """Remember that a fresh token did not change the answer.

        :param settings: whose token.
        :param doubt: the kind of call and answer.
        """
        self._doubts.in_vain((credential_key(settings), doubt), self._clock())

    def get(
        self,
        settings: Settings,
        request: Callable[[], TokenAnswer],
        *,
        stale: str | None = None,
        doubt: str | None = None,
    ) -> str | None:
        """Return a token that is good for now; ``None`` if there is no other than the one that was refused.

        There is no other than a ready token, and none is requested again over a doubt that was in vain just now.

        :param settings: whose token.
        :param request: requests a new one; called by one thread at a time for a credential.
        :param stale: a token that the server has just refused.
        :param doubt: the kind of call and answer, if the answer may have another reason than the token.
        :raises AuthenticationError: if the server refuses the credentials.
        """
        steps = self._acquire(settings, stale, doubt)
        try:
            step = next(steps)
            while True:
                try:
                    reply = request() if step is None else step.result()
                except BaseException as error:  # noqa: BLE001 - the generator raises it again
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as stop:
            return cast("str | None", stop.value)

    async def aget(
        self,
        settings: Settings,
        request: Callable[[], Awaitable[TokenAnswer]],
        *,
        stale: str | None = None,
        doubt: str | None = None,
    ) -> str | None:
        """Return what ``get`` returns, without keeping the event loop waiting.

        Whoever is cancelled while it requests a token leaves that to the next one who waits. The parameters are those
        of ``get``.

        :raises AuthenticationError: if the server refuses the credentials.
        """
        steps = self._acquire(settings, stale, doubt)
        try:
            step = next(steps)
            while True:
                try:
                    reply = await (request() if step is None else asyncio.wrap_future(step))
                except BaseException as error:  # noqa: BLE001 - the generator raises it again
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as stop:
            return cast("str | None", stop.value)

    def _acquire(self, settings: Settings, stale: str | None, doubt: str | None) -> Acquisition:
        """Decide whose turn it is to request a token. The lock is never held while somebody waits."""
        if isinstance(settings.credentials, ReadyToken):
            return settings.credentials.token if stale is None else None
        key = credential_key(settings)
        while True:
            with self._lock:
                if (known := self.known(key, stale)) is not None:
                    return known
                under_way = self._requests.get(key)
                if under_way is None:
                    if doubt is not None and not self._doubts.allow((key, doubt), self._clock()):
                        return None
                    mine = self._requests[key] = Future()
                    mine.set_running_or_notify_cancel()  # so that no one who waits for it can cancel it
            if under_way is None:
                return (yield from self._renewed(key, mine))
            try:
                value: str = yield under_way
            except InterruptedError:
                continue  # Whoever asked was stopped; that says nothing about the token.
            except AstroZeroError as error:
                own = copy(error)  # whose connection id is that of whoever asked
                own.connection = settings.connection
                raise own from None
            return value

    def _renewed(self, key: Hashable, mine: Future[str]) -> Generator[None, Any, str]:
        try:
            answer: TokenAnswer = yield None
            token = _Token(answer.access_token, self._renew_at(answer.expires_in), answer.encoding)
        except BaseException as error:
            self._end(key, mine)
            mine.set_exception(error if isinstance(error, Exception) else InterruptedError())
            raise
        self._end(key, mine, token)
        mine.set_result(token.value)
        return token.value

    def _end(self, key: Hashable, mine: Future[str], token: _Token | None = None) -> None:
        with self._lock:
            if token is not None:
                self._tokens[key] = token
                others = (each for each in self._earlier.get(key, ()) if each.value != token.value)
                self._earlier[key] = (token, *others)[:MOST_EARLIER]
            if self._requests.get(key) is mine:  # after a clear, it may be somebody else's
                del self._requests[key]

    def _renew_at(self, expires_in: float | None) -> float | None:
        if expires_in is None:
            return None
        return self._clock() + expires_in - min(LONGEST_MARGIN, expires_in / 10)

    def _is_due(self, token: _Token) -> bool:
        return token.renew_at is not None and self._clock() >= token.renew_at


class Doubts:
    """Limits how often tokens are renewed over answers that may have nothing to do with them."""

    def __init__(self) -> None:
        self._in_vain_at: dict[Hashable, float] = {}

    def in_vain(self, doubt: Hashable, now: float) -> None:
        """Remember that a fresh token did not change the answer.

        :param doubt: whose token, and the kind of call and answer.
        :param now: seconds on a clock that only goes forward.
        """
        self._in_vain_at[doubt] = now

    def allow(self, doubt: Hashable, now: float) -> bool:
        """Return whether a token may be renewed over this doubt; the parameters are those of ``in_vain``."""
        return now - self._in_vain_at.get(doubt, -math.inf) >= DOUBT_PAUSE


def request_token(credentials: ClientCredentials, known: Encoding | None = None) -> Plan[TokenAnswer]:
    """Request a token, in the encoding that this endpoint takes.

    The request may be a form or JSON (API page 0009), and which of them the token endpoint takes is not said. Clients
    in the field send a form, so that is tried first.

    :param known: the encoding that has got a token before; it is tried first.
    :raises AuthenticationError: if the credentials were refused, and not only an encoding.
    :raises CallError: if there is no token for another reason.
    """
    first: Encoding = known or "form"
    second: Encoding = "json" if first == "form" else "form"
    try:
        answer: TokenAnswer = yield api.get_token(
            credentials.client_id, credentials.client_secret, encoding=first
        )
    except CallError as refusal:
        if isinstance(refusal, ThrottledError) or not 400 <= (refusal.status or 0) < 500:
            raise
        try:
            answer = yield api.get_token(credentials.client_id, credentials.client_secret, encoding=second)
        except CallError as later:
            if known is None and _was_the_encoding(refusal) and not isinstance(later, AuthenticationError):
                raise later from None
            raise refusal from None
    return answer


def _was_the_encoding(refusal: CallError) -> bool:
    """Return whether a refusal of the token endpoint may have been for the encoding alone."""
    return isinstance(refusal, AuthenticationError) and refusal.res_code in ENCODING_REFUSALS


def credential_key(settings: Settings) -> Hashable:
    """Return what tells one credential from another, without holding its secret."""
    credentials = settings.credentials
    user = "" if isinstance(credentials, ReadyToken) else credentials.client_id
    digest = hashlib.sha256(settings.secrets()[0].encode()).hexdigest()
    return settings.base_url, user, digest


TOKENS = TokenCache()
"""The cache of this process."""

os.register_at_fork(after_in_child=TOKENS.clear)
