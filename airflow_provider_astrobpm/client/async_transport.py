"""An ``aiohttp`` session that tracks how far a failed request got, as ``sync_transport`` does for ``requests``.

By itself, ``aiohttp`` silently resends a GET, PUT or DELETE when its connection breaks. Here a request is sent once: it
records when it begins to be sent, and refuses to begin again. Whether to resend is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import select
import sys
import threading
import zlib
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

import aiohttp
import requests
from requests.utils import check_header_validity, get_auth_from_url
from urllib3.util import make_headers, parse_url
from yarl import URL

from airflow_provider_astrobpm.client import _failures, _route
from airflow_provider_astrobpm.client._failures import CURRENT
from airflow_provider_astrobpm.client.drivers import in_thread
from airflow_provider_astrobpm.client.protocol import Response
from airflow_provider_astrobpm.client.settings import secrets_of_proxy
from airflow_provider_astrobpm.client.sync_transport import CHUNK_BYTES

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from aiohttp.connector import Connection
    from typing_extensions import Self

    from airflow_provider_astrobpm.client.protocol import Request
    from airflow_provider_astrobpm.client.settings import Settings

# Idle connections are kept for a shorter time than servers, and firewalls in front of them, usually keep theirs.
KEEP_ALIVE_SECONDS = 15.0
MAX_HEADER_BYTES = 64 * 1024  # the same limit as in ``requests``
MAX_UNCHUNKED_BODY_BYTES = 1024 * 1024  # aiohttp expects a longer request body in parts
MAX_INLINE_DECOMPRESS_BYTES = 4 * 1024  # a longer answer is decompressed in a thread
MAX_CACHED_URLS = 1024  # prepared URLs that are cached, because ``requests`` is slow to prepare one
COMPRESSED_ENCODINGS = frozenset({"gzip", "x-gzip", "deflate"})
GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
# Errors on the way to the server. Any other error is about the request or this machine.
NETWORK_ERRORS = (aiohttp.ClientConnectionError, aiohttp.ClientResponseError, OSError, asyncio.TimeoutError)


class AsyncTransport:
    """Sends requests to one environment. Coroutines of one event loop may share it. Close it in that loop.

    Creating one does no I/O: certificates are read when the first request is sent.

    :param settings: the settings of the environment.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._secrets = settings.secrets()
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=settings.connect_timeout, sock_read=settings.read_timeout
        )
        self._session: aiohttp.ClientSession | None = None
        self._used: WeakSet[Any] = WeakSet()
        self._deadlines = _Deadlines(settings.answer_timeout)
        self._finding_route = threading.Lock()  # only acquired in threads, never in the event loop
        self._route: tuple[_Proxy | None, ssl.SSLContext | None] | None = None
        self._good_headers: Mapping[str, str] = {}

    async def send(self, request: Request) -> Response:
        """Send a request once and return the complete answer.

        :raises NotSentError: if the server certainly did not receive it.
        :raises InterruptedCallError: if the server may have received it, but no complete answer came.
        :raises UnexpectedAnswerError: if the answer is too long, or cannot be decompressed.
        :raises SettingsError: if a certificate file of the settings is unusable; nothing was sent.
        """
        with _AsyncProgress(self._deadlines, self._used, (*request.secrets, *self._secrets)) as sending:
            try:
                return await self._exchange(request, sending)
            except Exception as error:  # noqa: BLE001 - after any error the request may have arrived
                problem = sending.error_of(error)
        raise problem  # outside "except", where it would refer to the original error, which holds the token

    async def close(self) -> None:
        """Close the connections to the server. Requests under way are interrupted."""
        session, self._session = self._session, None
        self._deadlines.stop()
        if session is None:
            return
        transports = [used.transport for used in self._used if used.transport is not None]
        await session.close()
        for transport in transports:
            transport.abort()  # a clean TLS shutdown waits for the server, maybe longer than the loop runs
        await asyncio.sleep(0)

    async def _exchange(self, request: Request, sending: _AsyncProgress) -> Response:
        url = self._url_of(request)
        if self._route is None:
            self._route = await in_thread(self._find_route, url)
        proxy, context = self._route
        headers = dict(request.headers)
        if request.body is not None:
            headers["content-length"] = str(len(request.body))
        options: dict[str, Any] = {"ssl": context} if context else {}
        if proxy is not None:
            sending.secrets += proxy.secrets
            options |= {"proxy": proxy.url, "proxy_headers": dict(proxy.headers)}
            if url.scheme == "http":  # without a tunnel the proxy reads the headers of the request
                headers |= proxy.headers
        try:
            answer = await self._send_request(request.method, url, request.body, headers=headers, **options)
        except NETWORK_ERRORS:
            sending.connect_failed = True
            raise
        try:
            body = await _read(answer, self._settings.max_response_bytes)
        finally:
            if not answer.closed:  # it is closed after it was read completely
                answer.close()
        body = await _decompressed(body, answer, self._settings.max_response_bytes)
        if sending.was_cut:
            raise sending.cut_off()
        return Response(answer.status, _Headers(answer.raw_headers), body)

    def _url_of(self, request: Request) -> URL:
        """Return the same URL that ``requests`` would send, and refuse what ``requests`` would refuse."""
        try:
            if request.headers != self._good_headers:  # rare: headers change only with a new token
                for header in request.headers.items():
                    check_header_validity(header)
                self._good_headers = dict(request.headers)
            return _prepared(f"{self._settings.base_url}{request.target}")
        except ValueError as error:
            raise _failures.invalid_request(error) from None

    async def _send_request(
        self, method: str, url: URL, body: bytes | None, **options: Any
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            self._session = _session()
        while True:
            data = _ChunkedBody(body) if body and len(body) > MAX_UNCHUNKED_BODY_BYTES else body
            try:
                return await self._session.request(
                    method, url, data=data, allow_redirects=False, timeout=self._timeout, **options
                )
            except _StaleConnectionError:
                continue  # the connection is gone, and nothing was sent on it

    def _find_route(self, url: URL) -> tuple[_Proxy | None, ssl.SSLContext | None]:
        """Return the proxy, and the context if TLS is used. Reads the environment, and the files that the settings name."""
        with self._finding_route:
            if self._route is None:
                proxy = _proxy_for(url.origin(), self._settings)
                context = None
                if url.scheme == "https" or (proxy is not None and proxy.url.scheme == "https"):
                    context = _route.create_context(self._settings)
                else:
                    _route.check_files(self._settings)
                self._route = proxy, context
            return self._route


def _session() -> aiohttp.ClientSession:
    _failures.LIBRARY_FILTER.attach("aiohttp")
    connector = aiohttp.TCPConnector(
        limit=0,  # requests do not queue, because queueing would count as connecting
        keepalive_timeout=KEEP_ALIVE_SECONDS,
        # Names are resolved once per connection, as in the sync client, and nothing keeps running after a cancelled call.
        resolver=aiohttp.ThreadedResolver(),
        use_dns_cache=False,
    )
    return aiohttp.ClientSession(
        connector=connector,
        request_class=_TrackedRequest,
        response_class=_TrackedResponse,
        # A login cookie from the server would compete with the access-token header.
        cookie_jar=aiohttp.DummyCookieJar(),
        # Decompressed here: older versions of aiohttp have no size limit, and all of them decompress in the event loop.
        headers={"accept-encoding": "gzip"},
        auto_decompress=False,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
    )


class _ChunkedBody:
    """A long body, in parts. If it were a file, aiohttp would continue to send it in a thread after the call has ended."""

    def __init__(self, body: bytes) -> None:
        self._parts = (body[start : start + CHUNK_BYTES] for start in range(0, len(body), CHUNK_BYTES))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        for part in self._parts:
            return part
        raise StopAsyncIteration


class _SentOnceError(Exception):
    """Ends a request whose connection broke. Unlike the original error, it does not make aiohttp resend the request."""


class _StaleConnectionError(Exception):
    """The server closed an idle connection; nothing was sent on it."""


class _TrackedRequest(aiohttp.ClientRequest):
    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        CURRENT.get().begin(conn)
        return await super().send(conn)


class _TrackedResponse(aiohttp.ClientResponse):
    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        try:
            return await super().start(connection)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            raise _SentOnceError(error) from error


class _Deadlines:
    """The timeouts of answers. A slow trickle of bytes never triggers the read timeout.

    All requests have the same timeout, so the oldest is due first. One timer serves all, which is cheaper than one for each.

    :param seconds: the timeout of a complete answer.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._due: dict[_AsyncProgress, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, sending: _AsyncProgress) -> None:
        loop = asyncio.get_running_loop()
        due = self._due[sending] = loop.time() + self.seconds
        if self._timer is None:
            self._timer = loop.call_at(due, self._cut_what_is_due)

    def discard(self, sending: _AsyncProgress) -> None:
        self._due.pop(sending, None)

    def stop(self) -> None:
        """Cancel the timer. The next request starts a new one, maybe in another loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cut_what_is_due(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        for sending, due in tuple(self._due.items()):
            if due > loop.time():
                self._timer = loop.call_at(due, self._cut_what_is_due)
                return
            del self._due[sending]
            sending.cut()


class _AsyncProgress(_failures.RequestProgress):
    """Also tracks the connection, and ``used``, the connections on which something was sent before."""

    def __init__(self, deadlines: _Deadlines, used: WeakSet[Any], secrets: tuple[str, ...]) -> None:
        super().__init__(deadlines.seconds, secrets)
        self._deadlines = deadlines
        self._used = used
        self._connection: Connection | None = None
        self._protocol: Any = None
        self._transport: asyncio.Transport | None = None

    def begin(self, connection: Connection) -> None:
        """Record that the request is now sent on this connection, and start its timeout."""
        if self.begun:
            raise _SentOnceError
        protocol, transport = connection.protocol, connection.transport
        if protocol in self._used:
            if _is_closing(transport):
                raise _StaleConnectionError
        elif transport is None or transport.is_closing():
            raise ConnectionResetError("closed as soon as it was open")
        else:
            self._used.add(protocol)
        self.begun = True
        self._connection, self._protocol, self._transport = connection, protocol, transport
        self._deadlines.add(self)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._deadlines.discard(self)
        if self._transport is not None and self._protocol.transport is None:
            self._transport.abort()  # the connection is lost, which a TLS transport of Python 3.10 does not notice
        self._connection = self._protocol = self._transport = None

    def cut(self) -> None:
        """Abort the answer, because its timeout expired."""
        # A connection whose answer is complete was returned to the pool, and may already serve another call.
        if self._connection is not None and (transport := self._connection.transport) is not None:
            self.was_cut = True
            transport.abort()

    def reason(self, causes: list[BaseException]) -> str:
        """Describe what went wrong, quoting only the operating system. Other messages may quote what was sent."""
        for cause in causes:
            if isinstance(cause, aiohttp.ClientHttpProxyError):
                return f"the proxy answered with HTTP {cause.status}"
        innermost = causes[-1]
        is_quoted = isinstance(innermost, OSError) and not isinstance(innermost, aiohttp.ClientError)
        return super().reason(causes) if is_quoted else type(innermost).__name__


def _is_closing(transport: asyncio.Transport | None) -> bool:
    """Return whether an idle connection was closed. The event loop may not have noticed it yet."""
    if transport is None or transport.is_closing():
        return True
    # Before a request is sent, the only thing that can arrive is the end of the connection.
    poll = select.poll()
    poll.register(transport.get_extra_info("socket"), select.POLLIN)
    return bool(poll.poll(0))


async def _read(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    chunks, size = [], 0
    while not answer.content.at_eof():
        chunk = await answer.content.readany()
        size += len(chunk)
        if size > limit:
            raise _failures.answer_too_long(limit, answer.status)
        chunks.append(chunk)
    return b"".join(chunks)


async def _decompressed(body: bytes, answer: aiohttp.ClientResponse, limit: int) -> bytes:
    if not body or answer.headers.get("content-encoding", "").strip().lower() not in COMPRESSED_ENCODINGS:
        return body
    if len(body) > MAX_INLINE_DECOMPRESS_BYTES:
        decompressed = await in_thread(_decompress, body, limit)
    else:
        decompressed = _decompress(body, limit)
    if decompressed is None:
        raise _failures.answer_not_decompressed(answer.status)
    if len(decompressed) > limit:
        raise _failures.answer_too_long(limit, answer.status)
    return decompressed


def _decompress(body: bytes, limit: int) -> bytes | None:
    """Decompress part by part, to little more than the limit. Return ``None`` if the data is invalid."""
    parts, room = [], limit + 1
    while body and room > 0:
        decompressor = zlib.decompressobj(GZIP_OR_ZLIB)
        try:
            parts.append(decompressor.decompress(body, room))
        except zlib.error:
            return None
        room -= len(parts[-1])
        if room > 0 and not decompressor.eof:
            return None
        body = decompressor.unused_data
    return b"".join(parts)


class _Headers(Mapping[str, str]):
    """Headers as ``requests`` reads them, parsed on first use. Hardly any answer except a refusal needs its headers."""

    def __init__(self, raw: tuple[tuple[bytes, bytes], ...]) -> None:
        self._raw = raw

    @cached_property
    def _read(self) -> dict[str, str]:
        """Decode any byte as a character, and join repeated headers."""
        headers: dict[str, str] = {}
        for raw_name, raw_value in self._raw:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return headers

    def __getitem__(self, name: str) -> str:
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)


@lru_cache(maxsize=MAX_CACHED_URLS)
def _prepared(url: str) -> URL:
    return URL(requests.Request("GET", url).prepare().url or "", encoded=True)


class _Proxy(NamedTuple):
    url: URL
    """Without the password, so that no error can quote it."""
    headers: Mapping[str, str]
    secrets: tuple[str, ...]


def _proxy_for(origin: URL, settings: Settings) -> _Proxy | None:
    given = _route.proxy_for(settings, str(origin))
    if not given:
        return None
    try:
        whole = given if "://" in given else f"http://{given}"
        parts = parse_url(whole)
        if not parts.host:
            raise ValueError("no host")  # noqa: TRY301 - handled like a URL that cannot be parsed
        user, password = get_auth_from_url(whole)
        proxy = _Proxy(
            URL.build(scheme=parts.scheme or "", host=parts.host.strip("[]"), port=parts.port),
            make_headers(proxy_basic_auth=f"{user}:{password}") if user else {},
            secrets_of_proxy(whole),
        )
    except ValueError as error:  # its message may quote a password
        raise _failures.not_sendable(f"the proxy's address is malformed, {type(error).__name__}") from None
    if proxy.url.scheme not in ("http", "https"):
        raise _failures.not_sendable(f"a proxy with scheme {proxy.url.scheme!r} is not supported")
    if proxy.url.scheme == origin.scheme == "https" and sys.version_info < (3, 11):
        raise _failures.not_sendable("https through an https proxy needs Python 3.11")
    return proxy
