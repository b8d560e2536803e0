"""A ``requests`` session that tracks how far a failed request got.

Everything depends on one question: may the server have received the request? Error types do not answer it, because a TLS
error, for example, can come before or after the request. So the connections themselves record when they begin to send. Until
then the request was certainly not sent; after that it may have arrived, no matter what fails.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from airflow_provider_astrobpm.client import _failures, _route
from airflow_provider_astrobpm.client._deadlines import DEADLINES
from airflow_provider_astrobpm.client._failures import CURRENT
from airflow_provider_astrobpm.client.protocol import Response
from airflow_provider_astrobpm.client.settings import secrets_of_proxy

if TYPE_CHECKING:
    from airflow_provider_astrobpm.client._deadlines import Deadline
    from airflow_provider_astrobpm.client.protocol import Request
    from airflow_provider_astrobpm.client.settings import Settings

CHUNK_BYTES = 64 * 1024


class Transport:
    """Sends requests to one environment. Threads may share it.

    :param settings: the settings of the environment.
    :raises SettingsError: if a certificate file of the settings is unusable.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._secrets = settings.secrets()
        _route.check_files(settings)
        _failures.LIBRARY_FILTER.attach("urllib3", "requests")
        self._session = _Session()
        adapter = _Adapter(pool_maxsize=32)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)
        # Otherwise requests would read a .netrc file, and the variables about proxies again and again. _route reads them.
        self._session.trust_env = False
        # A login cookie from the server would compete with the access-token header.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        if settings.client_cert:
            self._session.cert = (settings.client_cert, settings.client_key or settings.client_cert)

    def send(self, request: Request) -> Response:
        """Send a request once and return the complete answer.

        :raises NotSentError: if the server certainly did not receive it.
        :raises InterruptedCallError: if the server may have received it, but no complete answer came.
        :raises UnexpectedAnswerError: if the answer is too long, or cannot be decompressed.
        """
        with _SyncProgress(self._settings.answer_timeout, (*request.secrets, *self._secrets)) as sending:
            try:
                return self._exchange(request, sending)
            except Exception as error:  # noqa: BLE001 - after any error the request may have arrived
                problem = sending.error_of(error)
        raise problem  # outside "except", where it would refer to the original error, which holds the token

    def _prepared(self, request: Request) -> requests.PreparedRequest:
        url = f"{self._settings.base_url}{request.target}"
        headers = dict(request.headers)
        try:
            return self._session.prepare_request(
                requests.Request(request.method, url, headers=headers, data=request.body)
            )
        except ValueError as error:
            raise _failures.invalid_request(error) from None

    def _exchange(self, request: Request, sending: _SyncProgress) -> Response:
        settings = self._settings
        prepared = self._prepared(request)
        proxy = _route.proxy_for(settings, prepared.url or "")
        if proxy:
            sending.secrets += secrets_of_proxy(proxy)
        proxies = {"http": proxy, "https": proxy} if proxy else {}
        timeout = (settings.connect_timeout, settings.read_timeout)
        with self._session.send(
            prepared,
            timeout=timeout,
            allow_redirects=False,
            stream=True,
            verify=_route.trusted(settings),
            cert=self._session.cert,
            proxies=proxies,
        ) as answer:
            body = _read(answer, settings.max_response_bytes)
            if sending.was_cut:
                raise sending.cut_off()
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return Response(answer.status_code, headers, body)

    def close(self) -> None:
        """Close the connections to the server."""
        self._session.close()
        DEADLINES.rest()


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Follow no redirect. To follow one, requests would read the whole answer and trust its header."""
        return None


class _ProgressTrackingConnection:
    """A connection that records how far the request of this thread got."""

    sock: Any

    def connect(self) -> None:
        try:
            super().connect()  # type: ignore[misc]
        except Exception:
            CURRENT.get().connect_failed = True
            self.close()  # type: ignore[attr-defined]  # older urllib3 does not close the socket after a failed handshake
            raise

    def request(self, *arguments: Any, **options: Any) -> None:
        if self.sock is None:
            self.connect()
        CURRENT.get().begun = True
        super().request(*arguments, **options)  # type: ignore[misc]

    def getresponse(self, *arguments: Any, **options: Any) -> Any:
        CURRENT.get().watch(self.sock)
        response = super().getresponse(*arguments, **options)  # type: ignore[misc]
        if response.status < 200:
            self.close()  # type: ignore[attr-defined]  # otherwise the next call would read the answer that follows
        return response


class _HttpConnection(_ProgressTrackingConnection, HTTPConnection):
    pass


class _HttpsConnection(_ProgressTrackingConnection, HTTPSConnection):
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


_POOL_CLASSES = {"http": _HttpPool, "https": _HttpsPool}


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = _POOL_CLASSES

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*arguments, **options)
        manager.pool_classes_by_scheme = _POOL_CLASSES
        return manager


class _SyncProgress(_failures.RequestProgress):
    """Also has the timeout of the answer. A slow trickle of bytes never triggers the read timeout."""

    def __init__(self, answer_timeout: float, secrets: tuple[str, ...]) -> None:
        super().__init__(answer_timeout, secrets)
        self._lock = threading.Lock()
        self._connection: Any = None
        """The connection on which an answer is awaited. Afterwards it may serve another call."""
        self._deadline: Deadline | None = None

    def watch(self, connection: Any) -> None:
        """Start the timeout. The request has just been sent on this connection."""
        # Through a proxy that speaks TLS itself, urllib3 wraps the socket.
        self._connection = getattr(connection, "socket", connection)
        self._deadline = DEADLINES.call_after(self.answer_timeout, self._cut)

    def _cut(self) -> None:
        with self._lock:
            if self._connection is not None:
                self.was_cut = True
                with suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RDWR)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._connection = None
        if self._deadline is not None:
            self._deadline.cancel()
        super().__exit__()


def _read(answer: requests.Response, limit: int) -> bytes:
    chunks, size = [], 0
    try:
        for chunk in answer.iter_content(CHUNK_BYTES):
            size += len(chunk)
            if size > limit:
                raise _failures.answer_too_long(limit, answer.status_code)
            chunks.append(chunk)
    except requests.exceptions.ContentDecodingError:
        raise _failures.answer_not_decompressed(answer.status_code) from None
    return b"".join(chunks)
