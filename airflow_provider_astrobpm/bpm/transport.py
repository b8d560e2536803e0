"""A ``requests`` session that says how far a failed request got.

Everything depends on one question: may the server have got the request? Error types do not answer it (a TLS error can
come after the request as well as before), so the connections themselves note when they begin to send it. Until then it
was certainly not sent; from then on it may have arrived, whatever goes wrong.
"""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from airflow_provider_astrobpm.bpm import failure, secrecy, tls
from airflow_provider_astrobpm.bpm.errors import CallError
from airflow_provider_astrobpm.bpm.exchange import Response
from airflow_provider_astrobpm.bpm.proxies import proxy_for
from airflow_provider_astrobpm.bpm.settings import secrets_of_proxy

if TYPE_CHECKING:
    from typing_extensions import Self

    from airflow_provider_astrobpm.bpm.errors import InterruptedCallError
    from airflow_provider_astrobpm.bpm.exchange import Request
    from airflow_provider_astrobpm.bpm.settings import Settings

CHUNK = 64 * 1024


class Transport:
    """Sends requests to one environment. Threads may share it.

    :param settings: where and how.
    :raises SettingsError: if a certificate file of the settings cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._secrets = settings.secrets()
        tls.check_files(settings)
        _library_filter.attach("urllib3", "requests")
        self._session = _Session()
        adapter = _Adapter(pool_maxsize=32)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)
        self._session.auth = _no_auth
        # A login cookie of the server's would compete with the access-token header.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        if settings.client_cert:
            self._session.cert = (settings.client_cert, settings.client_key or settings.client_cert)

    def send(self, request: Request) -> Response:
        """Send a request once and return the whole answer.

        :raises NotSentError: if the server certainly did not get it.
        :raises InterruptedCallError: if it may have got it, and no whole answer came.
        :raises UnexpectedAnswerError: if the answer is too long, or cannot be unpacked.
        """
        prepared = self._prepared(request)
        secrets = (*request.secrets, *self._secrets)
        with _Sending(self._settings.answer_timeout, secrets) as sending:
            try:
                response = self._answer_to(prepared, sending)
            except CallError as error:
                problem = error
            except Exception as error:  # noqa: BLE001 - whatever it is, the request may have got through
                problem = _classified(error, sending)
            else:
                if not sending.was_cut:  # a connection that was cut may look like the end of the answer
                    return response
                problem = sending.cut_off()
        # Not inside "except", nor with what came before: the original holds the request, and so the token.
        problem.__context__ = problem.__cause__ = None
        raise problem

    def _prepared(self, request: Request) -> requests.PreparedRequest:
        url = f"{self._settings.base_url}{request.target}"
        headers = dict(request.headers)
        try:
            return self._session.prepare_request(
                requests.Request(request.method, url, headers=headers, data=request.body)
            )
        except ValueError as error:
            problem = failure.unbuildable(error)
        # Not inside "except", nor with the original's words: they may quote a header.
        raise problem

    def _answer_to(self, prepared: requests.PreparedRequest, sending: _Sending) -> Response:
        settings = self._settings
        proxy = proxy_for(settings, prepared.url or "")
        if proxy:
            sending.secrets += secrets_of_proxy(proxy)
        # Given with each request: the environment's proxies and CA bundle would win over the session's.
        options = self._session.merge_environment_settings(
            prepared.url, {}, stream=True, verify=settings.verify, cert=None
        )
        options["proxies"] = {"http": proxy, "https": proxy} if proxy else {}
        timeout = (settings.connect_timeout, settings.read_timeout)
        with self._session.send(prepared, timeout=timeout, allow_redirects=False, **options) as answer:
            body = _read(answer, settings.max_response_bytes)
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return Response(answer.status_code, headers, body)

    def close(self) -> None:
        """Close the connections to the server."""
        self._session.close()


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Follow nothing; for that, requests would read the whole answer and trust its header."""
        return None


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep ``requests`` from adding what a ``.netrc`` file holds for this host."""
    return request


class _TellsHowFar:
    """A connection that notes how far the request of this thread got."""

    sock: Any

    def connect(self) -> None:
        try:
            super().connect()  # type: ignore[misc]
        except Exception as error:
            _current.sending.connecting_failed = error
            self.close()  # type: ignore[attr-defined]  # older urllib3 leaves the socket of a failed handshake open
            raise

    def request(self, *arguments: Any, **options: Any) -> None:
        if self.sock is None:
            self.connect()
        _current.sending.begun = True
        super().request(*arguments, **options)  # type: ignore[misc]

    def getresponse(self, *arguments: Any, **options: Any) -> Any:
        _current.sending.watch(self.sock)
        response = super().getresponse(*arguments, **options)  # type: ignore[misc]
        if response.status < 200:
            self.close()  # type: ignore[attr-defined]  # the answer that follows would be read by the next call
        return response


class _HttpConnection(_TellsHowFar, HTTPConnection):
    pass


class _HttpsConnection(_TellsHowFar, HTTPSConnection):
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self._use_own_connections(self.poolmanager)

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*arguments, **options)
        self._use_own_connections(manager)
        return manager

    @staticmethod
    def _use_own_connections(manager: Any) -> None:
        manager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


class _Current(threading.local):
    """What is sent in this thread."""

    sending: Any = None


_current = _Current()
_library_filter = secrecy.LibraryFilter(lambda: _current.sending.secrets if _current.sending else None)


class _Sending:
    """How far one request got, and an end to its answer: a server that trickles never runs into a read time-out.

    :param answer_timeout: seconds for the whole answer.
    :param secrets: what neither an error nor a log may show.
    """

    def __init__(self, answer_timeout: float, secrets: tuple[str, ...]) -> None:
        self.secrets = secrets
        self.begun = False
        """Whether the connection stood and the request began to be sent."""
        self.connecting_failed: Exception | None = None
        self.was_cut = False
        self._answer_timeout = answer_timeout
        self._over = False
        self._lock = threading.Lock()
        self._connection: Any = None
        self._timer: threading.Timer | None = None

    def watch(self, connection: Any) -> None:
        """Begin to count: the request has just been sent on this connection."""
        # Through a proxy that speaks TLS itself, urllib3 wraps the socket.
        self._connection = getattr(connection, "socket", connection)
        self._timer = threading.Timer(self._answer_timeout, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def cut_off(self) -> InterruptedCallError:
        """Return the error that a call ends with whose time was up."""
        return failure.out_of_time(self._answer_timeout)

    def _cut(self) -> None:
        with self._lock:
            if self._over or self._connection is None:
                return  # the connection may serve another call by now
            self.was_cut = True
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        _current.sending = self
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._over = True
        if self._timer is not None:
            self._timer.cancel()
        _current.sending = None


def _read(answer: requests.Response, limit: int) -> bytes:
    chunks, size = [], 0
    try:
        for chunk in answer.iter_content(CHUNK):
            size += len(chunk)
            if size > limit:
                raise failure.too_long(limit, answer.status_code)
            chunks.append(chunk)
    except requests.exceptions.ContentDecodingError:
        raise failure.not_unpacked(answer.status_code) from None
    return b"".join(chunks)


def _classified(error: Exception, sending: _Sending) -> CallError:
    causes = failure.causes(error)
    innermost = causes[-1]
    words = secrecy.quote(str(innermost), sending.secrets, failure.LONGEST_REASON)
    reason = f"{type(innermost).__name__}: {words}" if words else type(innermost).__name__
    timed_out = isinstance(error, requests.Timeout) or any(
        isinstance(cause, TimeoutError) for cause in causes
    )
    if sending.begun:
        return sending.cut_off() if sending.was_cut else failure.interrupted(reason, timed_out=timed_out)
    if sending.connecting_failed is None:
        return failure.unsendable(reason)
    in_tls = any(isinstance(cause, ssl.SSLError) for cause in causes)
    return failure.unreached(reason, timed_out=timed_out, in_tls=in_tls)
