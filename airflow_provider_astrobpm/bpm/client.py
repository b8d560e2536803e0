"""``BpmClient``: calls and plans over ``requests``. All I/O of the sync side is here, and no decision."""

from __future__ import annotations

import ssl
import time
from http.cookiejar import DefaultCookiePolicy
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import requests
import tenacity
import urllib3
from requests.adapters import HTTPAdapter

from airflow_provider_astrobpm.bpm import api, retry
from airflow_provider_astrobpm.bpm.errors import (
    AstroZeroError,
    CallError,
    InterruptedCallError,
    NotSentError,
    SettingsError,
    TlsError,
    UnexpectedAnswerError,
)
from airflow_provider_astrobpm.bpm.exchange import NeedToken, Response, exchange
from airflow_provider_astrobpm.bpm.token import TOKENS, request_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

    from airflow_provider_astrobpm.bpm.api import Operation, Plan, TokenAnswer
    from airflow_provider_astrobpm.bpm.exchange import Request
    from airflow_provider_astrobpm.bpm.settings import ClientCredentials, Settings
    from airflow_provider_astrobpm.bpm.token import TokenCache

T = TypeVar("T")

CHUNK = 64 * 1024
# OpenSSL's names for what can only go wrong before the first byte of a request is sent.
HANDSHAKE_REASONS = frozenset(
    {
        "CERTIFICATE_VERIFY_FAILED",
        "WRONG_VERSION_NUMBER",
        "RECORD_LAYER_FAILURE",
        "UNSUPPORTED_PROTOCOL",
        "NO_PROTOCOLS_AVAILABLE",
        "TLSV1_ALERT_PROTOCOL_VERSION",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    }
)


class BpmClient:
    """Talks to one Astro Zero environment. Threads may share it; close it after use.

    :param settings: where and how.
    :param tokens: the token cache; by default that of the process.
    :param sleep: lets seconds pass, between attempts and in plans.
    :param on_token: is shown every token before its first use, so that logs can mask it.
    :raises SettingsError: if a certificate file of the settings does not exist.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        tokens: TokenCache = TOKENS,
        sleep: Callable[[float], None] = time.sleep,
        on_token: Callable[[str], None] = lambda _token: None,
    ) -> None:
        self.settings = settings
        self._tokens = tokens
        self._sleep = sleep
        self._on_token = on_token
        self._session = _session(settings)

    def call(self, operation: Operation[T]) -> T:
        """Run one operation, again where the table of ``retry`` allows it.

        :raises CallError: how the last attempt ended.
        """
        limits = retry.policy(
            operation, max_attempts=self.settings.max_attempts, max_wait=self.settings.max_wait
        )
        retrying: Callable[..., T] = tenacity.Retrying(**limits, sleep=self._sleep)
        return retrying(self._attempt, operation)

    def run(self, plan: Plan[T]) -> T:
        """Run a plan to its result.

        :raises AstroZeroError: what the plan does not handle.
        """
        reply: Any = None
        failure: AstroZeroError | None = None
        try:
            while True:
                step = plan.throw(failure) if failure else plan.send(reply)
                reply = failure = None
                if isinstance(step, api.Pause):
                    self._sleep(step.seconds)
                    continue
                try:
                    reply = self.call(step)
                except AstroZeroError as error:
                    failure = error
        except StopIteration as stop:
            return cast("T", stop.value)
        except AstroZeroError as error:
            error.connection = error.connection or self.settings.connection
            raise

    def close(self) -> None:
        """Close the connections to the server."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"BpmClient({self.settings.connection!r}, {self.settings.base_url!r})"

    def _attempt(self, operation: Operation[T]) -> T:
        talk = exchange(operation, connection=self.settings.connection, csrf=self.settings.csrf)
        try:
            step = next(talk)
            while True:
                try:
                    reply = self._token(step.stale) if isinstance(step, NeedToken) else self._send(step)
                except CallError as error:
                    step = talk.throw(error)
                else:
                    step = talk.send(reply)
        except StopIteration as stop:
            return cast("T", stop.value)

    def _token(self, stale: str | None) -> str | None:
        token = self._tokens.get(self.settings, self._request_token, stale=stale)
        if token is not None:
            self._on_token(token)
        return token

    def _request_token(self) -> TokenAnswer:
        return self.run(request_token(cast("ClientCredentials", self.settings.credentials)))

    def _send(self, request: Request) -> Response:
        settings = self.settings
        try:
            with self._session.request(
                request.method,
                f"{settings.base_url}{request.target}",
                headers=dict(request.headers),
                data=request.body,
                timeout=(settings.connect_timeout, settings.read_timeout),
                allow_redirects=False,
                verify=settings.verify,
                # Given with each request: the environment's proxies would win over the session's.
                proxies={"http": settings.proxy, "https": settings.proxy} if settings.proxy else None,
                stream=True,
            ) as answer:
                body = _read(answer, settings.max_response_bytes)
                headers = {name.lower(): value for name, value in answer.headers.items()}
                return Response(answer.status_code, headers, body)
        except requests.RequestException as error:
            # "from None": the original holds the request, and so the token.
            raise _transport_error(error) from None


def _session(settings: Settings) -> requests.Session:
    for extra in ("verify", "client_cert", "client_key"):
        path = getattr(settings, extra)
        if isinstance(path, str) and not Path(path).exists():
            raise SettingsError(f"extra {extra!r} names {path!r}, which does not exist", settings.connection)
    session = requests.Session()
    adapter = HTTPAdapter(pool_maxsize=32)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.auth = _no_auth
    # A login cookie of the server's would compete with the access-token header.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    if settings.client_cert:
        session.cert = (
            (settings.client_cert, settings.client_key) if settings.client_key else settings.client_cert
        )
    return session


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep ``requests`` from adding what a ``.netrc`` file holds for this host."""
    return request


def _read(answer: requests.Response, limit: int) -> bytes:
    chunks, size = [], 0
    for chunk in answer.iter_content(CHUNK):
        size += len(chunk)
        if size > limit:
            raise UnexpectedAnswerError(
                f"the answer is longer than {limit} bytes ('max_response_bytes')", status=answer.status_code
            )
        chunks.append(chunk)
    return b"".join(chunks)


def _transport_error(error: requests.RequestException) -> CallError:
    """Say what a failed transport means: only what provably came before the request is "not sent"."""
    if isinstance(
        error, ValueError
    ):  # requests could not build it; its words may quote a header or a proxy URL
        unsendable = NotSentError(f"the request could not be built ({type(error).__name__})")
        unsendable.passing = False
        return unsendable
    causes = list(islice(_causes(error), 20))
    innermost = causes[-1]
    reason = f"{type(innermost).__name__}: {innermost}" if str(innermost) else type(innermost).__name__
    if any(isinstance(cause, ssl.SSLError) and _failed_in_handshake(cause) for cause in causes):
        return TlsError(f"the TLS handshake failed ({reason})")
    if isinstance(error, requests.ConnectTimeout):
        return NotSentError("the server could not be reached within 'connect_timeout'")
    if any(isinstance(cause, urllib3.exceptions.NewConnectionError) for cause in causes):
        return NotSentError(f"the server could not be reached ({reason})")
    if isinstance(error, requests.ReadTimeout) or any(isinstance(cause, TimeoutError) for cause in causes):
        return InterruptedCallError("no answer came within 'read_timeout'")
    return InterruptedCallError(f"the connection was cut ({reason})")


def _failed_in_handshake(error: ssl.SSLError) -> bool:
    return isinstance(error, ssl.SSLCertVerificationError) or error.reason in HANDSHAKE_REASONS


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and what it wraps, in the ways in which requests and urllib3 wrap, outermost first."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        wrapped = [getattr(seen, "reason", None), *seen.args, seen.__cause__, seen.__context__]
        seen = next((inner for inner in wrapped if isinstance(inner, BaseException)), None)
