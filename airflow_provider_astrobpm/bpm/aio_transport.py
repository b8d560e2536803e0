"""An ``aiohttp`` session that says how far a failed request got, as ``transport`` does for ``requests``.

``aiohttp`` sends a GET, PUT or DELETE again by itself when its connection breaks, and tells nobody. Here a request is
sent once: it notes when it begins to be sent and refuses to begin again. Whether to send again is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import select
import ssl
import sys
import threading
import zlib
from collections.abc import Mapping
from contextvars import ContextVar
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

import aiohttp
import requests
from requests.utils import check_header_validity, get_auth_from_url
from urllib3.util import make_headers, parse_url
from yarl import URL

from airflow_provider_astrobpm.bpm import failure, secrecy, tls
from airflow_provider_astrobpm.bpm.errors import AstroZeroError
from airflow_provider_astrobpm.bpm.exchange import Response
from airflow_provider_astrobpm.bpm.proxies import proxy_for
from airflow_provider_astrobpm.bpm.settings import secrets_of_proxy
from airflow_provider_astrobpm.bpm.transport import CHUNK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp.connector import Connection
    from typing_extensions import Self

    from airflow_provider_astrobpm.bpm.errors import CallError
    from airflow_provider_astrobpm.bpm.exchange import Request
    from airflow_provider_astrobpm.bpm.settings import Settings

# Seconds that an idle connection is kept: less than servers, and the firewalls before them, commonly keep theirs.
KEEP_ALIVE = 15.0
LONGEST_HEADER = 64 * 1024  # bytes, as many as ``requests`` takes
LONGEST_WHOLE_BODY = 1024 * 1024  # bytes of a request; aiohttp wants a longer one in parts
LONGEST_UNPACKED_AT_ONCE = 4 * 1024  # bytes of an answer; a longer one is unpacked in a thread
MOST_URLS = 1024  # that are remembered, for ``requests`` takes long to prepare one
PACKED = frozenset({"gzip", "x-gzip", "deflate"})  # content encodings
GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
# What may go wrong on the way to the server; anything else is wrong with the request, or with this machine.
NETWORK_ERRORS = (aiohttp.ClientConnectionError, aiohttp.ClientResponseError, OSError, asyncio.TimeoutError)


class AsyncTransport:
    """Sends requests to one environment. Coroutines of one event loop may share it; close it in that loop.

    Making one does no I/O: certificates are read when the first request is sent.

    :param settings: where and how.
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
        self._reading_files = threading.Lock()  # only ever taken in a thread, never in the event loop
        self._files_are_good = False
        self._context: ssl.SSLContext | None = None
        self._good_headers: Mapping[str, str] = {}
        self._proxies: dict[URL, _Proxy | None] = {}

    async def send(self, request: Request) -> Response:
        """Send a request once and return the whole answer.

        :raises NotSentError: if the server certainly did not get it.
        :raises InterruptedCallError: if it may have got it, and no whole answer came.
        :raises UnexpectedAnswerError: if the answer is too long, or cannot be unpacked.
        :raises SettingsError: if a certificate file of the settings cannot be used; nothing was sent.
        """
        problem: AstroZeroError
        sending = _Sending(self._deadlines, self._used, (*request.secrets, *self._secrets))
        try:
            response = await self._answer_to(request, sending)
        except AstroZeroError as error:
            problem = error
        except Exception as error:  # noqa: BLE001 - whatever it is, the request may have got through
            problem = _classified(error, sending)
        else:
            if not sending.was_cut:  # a connection that was cut may look like the end of the answer
                return response
            problem = sending.cut_off()
        finally:
            sending.end()
            _current.set(None)
        # Not inside "except", nor with what came before: the original holds the request, and so the token.
        problem.__context__ = problem.__cause__ = None
        raise problem

    async def close(self) -> None:
        """Close the connections to the server; what is under way on them is interrupted."""
        session, self._session = self._session, None
        self._deadlines.stop()
        if session is None:
            return
        transports = [used.transport for used in self._used if used.transport is not None]
        await session.close()
        for transport in transports:
            transport.abort()  # a polite end over TLS waits for the server, for longer than the loop may live
        await asyncio.sleep(0)

    async def _answer_to(self, request: Request, sending: _Sending) -> Response:
        url = self._url_of(request)
        proxy = self._proxy_to(url.origin())
        over_tls = url.scheme == "https" or (proxy is not None and proxy.url.scheme == "https")
        context = await self._trust(over_tls=over_tls)
        headers = dict(request.headers)
        if request.body is not None:
            headers["content-length"] = str(len(request.body))
        options: dict[str, Any] = {"ssl": context} if context else {}
        if proxy is not None:
            sending.secrets += proxy.secrets
            options |= {"proxy": proxy.url, "proxy_headers": dict(proxy.headers)}
            if url.scheme == "http":  # no tunnel, so the proxy reads the request's own headers
                headers |= proxy.headers
        _current.set(sending)
        sending.connecting = True
        answer = await self._begun(request.method, url, request.body, headers=headers, **options)
        try:
            body = await _read(answer, self._settings.max_response_bytes)
        finally:
            if not answer.closed:  # as it is when it was read to its end
                answer.close()
        body = await _unpacked(body, answer, self._settings.max_response_bytes)
        return Response(answer.status, _Headers(answer.raw_headers), body)

    def _url_of(self, request: Request) -> URL:
        """Return the very URL that ``requests`` would send, and refuse what it would refuse."""
        try:
            if request.headers != self._good_headers:  # hardly ever: only a new token makes them others
                for header in request.headers.items():
                    check_header_validity(header)
                self._good_headers = dict(request.headers)
            return _prepared(f"{self._settings.base_url}{request.target}")
        except ValueError as error:
            problem = failure.unbuildable(error)
        # Not inside "except", nor with the original's words: they may quote a header.
        raise problem

    def _proxy_to(self, origin: URL) -> _Proxy | None:
        """Return the proxy for an origin, looked up once: ``requests`` reads the whole environment each time."""
        if origin not in self._proxies:
            self._proxies[origin] = _proxy_for(origin, self._settings)
        return self._proxies[origin]

    async def _begun(
        self, method: str, url: URL, body: bytes | None, **options: Any
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            self._session = _session()
        while True:
            try:
                return await self._session.request(
                    method,
                    url,
                    data=_InParts(body) if body is not None and len(body) > LONGEST_WHOLE_BODY else body,
                    allow_redirects=False,
                    timeout=self._timeout,
                    **options,
                )
            except _ClosedMeanwhileError:
                continue  # that connection is gone, and nothing was sent on it

    async def _trust(self, *, over_tls: bool) -> ssl.SSLContext | None:
        """Return what decides whom to trust, made once; files that the settings name are checked in any case."""
        if self._context is None if over_tls else not self._files_are_good:
            await asyncio.to_thread(self._read_files, over_tls=over_tls)
        return self._context if over_tls else None

    def _read_files(self, *, over_tls: bool) -> None:
        with self._reading_files:
            if not self._files_are_good:
                tls.check_files(self._settings)
                self._files_are_good = True
            if over_tls and self._context is None:
                self._context = tls.context(self._settings)


def _session() -> aiohttp.ClientSession:
    _library_filter.attach("aiohttp")
    connector = aiohttp.TCPConnector(
        limit=0,  # no waiting for one another, which would count as connecting
        keepalive_timeout=KEEP_ALIVE,
        # Names are looked up as the sync client does it, once a connection, and nothing goes on when a call is stopped.
        resolver=aiohttp.ThreadedResolver(),
        use_dns_cache=False,
    )
    return aiohttp.ClientSession(
        connector=connector,
        request_class=_Request,
        response_class=_Answer,
        # A login cookie of the server's would compete with the access-token header.
        cookie_jar=aiohttp.DummyCookieJar(),
        # Unpacked here: older versions of aiohttp unpack without a limit, and all of them in the event loop.
        headers={"accept-encoding": "gzip"},
        auto_decompress=False,
        max_line_size=LONGEST_HEADER,
        max_field_size=LONGEST_HEADER,
    )


class _InParts:
    """A long body, part by part. Were it a file, aiohttp would go on with it in a thread when the call has ended."""

    def __init__(self, body: bytes) -> None:
        self._parts = (body[start : start + CHUNK] for start in range(0, len(body), CHUNK))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        for part in self._parts:
            return part
        raise StopAsyncIteration


class _SentOnceError(Exception):
    """Ends a request whose connection broke; unlike the original, it is not one that aiohttp sends again."""


class _ClosedMeanwhileError(Exception):
    """The server closed an idle connection; nothing was sent on it."""


class _Request(aiohttp.ClientRequest):
    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        _current.get().begin(conn)
        return await super().send(conn)


class _Answer(aiohttp.ClientResponse):
    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        try:
            return await super().start(connection)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            raise _SentOnceError(error) from error


class _Deadlines:
    """An end to answers: a server that trickles never runs into a read time-out.

    All have the same time, so the oldest is due first, and one timer does for all: it costs less than one for each.

    :param seconds: the time for a whole answer.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._due: dict[_Sending, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, sending: _Sending) -> None:
        """Begin to count for a request."""
        loop = asyncio.get_running_loop()
        due = self._due[sending] = loop.time() + self.seconds
        if self._timer is None:
            self._timer = loop.call_at(due, self._cut_what_is_due)

    def discard(self, sending: _Sending) -> None:
        """Stop counting."""
        self._due.pop(sending, None)

    def stop(self) -> None:
        """Forget the timer; the next request begins anew, maybe in another loop."""
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


class _Sending:
    """How far one request got.

    :param deadlines: end its answer.
    :param used: the connections on which something was sent before.
    :param secrets: what neither an error nor a log may show.
    """

    def __init__(self, deadlines: _Deadlines, used: WeakSet[Any], secrets: tuple[str, ...]) -> None:
        self.secrets = secrets
        self.connecting = False
        """Whether anything was tried over the network."""
        self.begun = False
        """Whether the connection stood and the request began to be sent."""
        self.was_cut = False
        self._deadlines = deadlines
        self._used = used
        self._connection: Connection | None = None
        self._protocol: Any = None
        self._transport: asyncio.Transport | None = None

    def begin(self, connection: Connection) -> None:
        """Note that the request is now sent on this connection, and begin to count."""
        if self.begun:
            raise _SentOnceError
        protocol, transport = connection.protocol, connection.transport
        if protocol in self._used:
            if _is_closing(transport):
                raise _ClosedMeanwhileError
        elif transport is None or transport.is_closing():
            raise ConnectionResetError("closed as soon as it was open")
        else:
            self._used.add(protocol)
        self.begun = True
        self._connection, self._protocol, self._transport = connection, protocol, transport
        self._deadlines.add(self)

    def cut_off(self) -> CallError:
        """Return the error that a call ends with whose time was up."""
        return failure.out_of_time(self._deadlines.seconds)

    def end(self) -> None:
        """Stop counting."""
        self._deadlines.discard(self)
        if self._transport is not None and self._protocol.transport is None:
            self._transport.abort()  # it is lost, which Python 3.10 does not note in a TLS transport
        self._connection = self._protocol = self._transport = None

    def cut(self) -> None:
        """End the answer, because its time is up."""
        # A connection that came to the end of its answer was handed back, and may serve another call by now.
        if self._connection is not None and (transport := self._connection.transport) is not None:
            self.was_cut = True
            transport.abort()


_current: ContextVar[Any] = ContextVar(
    "sending", default=None
)  # the _Sending of this task, while there is one


def _secrets_in_use() -> tuple[str, ...] | None:
    sending = _current.get()
    return sending.secrets if sending is not None else None


_library_filter = secrecy.LibraryFilter(_secrets_in_use)


def _is_closing(transport: asyncio.Transport | None) -> bool:
    """Tell whether an idle connection has ended. The event loop may not have come round to noticing it."""
    if transport is None or transport.is_closing():
        return True
    # Nothing may come before a request is sent, but for the end.
    poll = select.poll()
    poll.register(transport.get_extra_info("socket"), select.POLLIN)
    return bool(poll.poll(0))


async def _read(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    chunks, size = [], 0
    while not answer.content.at_eof():
        chunk = await answer.content.readany()
        size += len(chunk)
        if size > limit:
            raise failure.too_long(limit, answer.status)
        chunks.append(chunk)
    return b"".join(chunks)


async def _unpacked(body: bytes, answer: aiohttp.ClientResponse, limit: int) -> bytes:
    if not body or answer.headers.get("content-encoding", "").strip().lower() not in PACKED:
        return body
    if len(body) > LONGEST_UNPACKED_AT_ONCE:
        unpacked = await asyncio.to_thread(_unpack, body, limit)
    else:
        unpacked = _unpack(body, limit)
    if unpacked is None:
        raise failure.not_unpacked(answer.status)
    if len(unpacked) > limit:
        raise failure.too_long(limit, answer.status)
    return unpacked


def _unpack(body: bytes, limit: int) -> bytes | None:
    """Unpack one part after another, hardly more than the limit; ``None`` where that cannot be done."""
    parts, room = [], limit + 1
    while body and room > 0:
        unpacker = zlib.decompressobj(GZIP_OR_ZLIB)
        try:
            parts.append(unpacker.decompress(body, room))
        except zlib.error:
            return None
        room -= len(parts[-1])
        if room > 0 and not unpacker.eof:
            return None
        body = unpacker.unused_data
    return b"".join(parts)


class _Headers(Mapping[str, str]):
    """Headers as ``requests`` reads them, when somebody asks: hardly any answer but a refusal is asked for its own."""

    def __init__(self, raw: tuple[tuple[bytes, bytes], ...]) -> None:
        self._raw = raw

    @cached_property
    def _read(self) -> dict[str, str]:
        """Any byte is a letter, and what comes twice is a list."""
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


@lru_cache(maxsize=MOST_URLS)
def _prepared(url: str) -> URL:
    return URL(requests.Request("GET", url).prepare().url or "", encoded=True)


class _Proxy(NamedTuple):
    url: URL
    """Without a password, so that no error can quote it."""
    headers: Mapping[str, str]
    secrets: tuple[str, ...]


def _proxy_for(origin: URL, settings: Settings) -> _Proxy | None:
    given = proxy_for(settings, str(origin))
    if not given:
        return None
    try:
        whole = given if "://" in given else f"http://{given}"
        parts = parse_url(whole)
        if not parts.host:
            raise ValueError("no host")  # noqa: TRY301 - as malformed as what cannot be taken apart
        user, password = get_auth_from_url(whole)
        proxy = _Proxy(
            URL.build(scheme=parts.scheme or "", host=parts.host.strip("[]"), port=parts.port),
            make_headers(proxy_basic_auth=f"{user}:{password}") if user else {},
            secrets_of_proxy(whole),
        )
    except ValueError as error:
        problem = failure.unsendable(f"the proxy's address is malformed, {type(error).__name__}")
    else:
        if (impossible := _impossible(proxy.url, origin)) is None:
            return proxy
        problem = failure.unsendable(impossible)
    # Not inside "except": the original's words may quote a password.
    raise problem


def _impossible(proxy: URL, origin: URL) -> str | None:
    if proxy.scheme not in ("http", "https"):
        return f"a proxy of scheme {proxy.scheme!r} is not supported here"
    if (proxy.scheme, origin.scheme) == ("https", "https") and sys.version_info < (3, 11):
        return "https through a proxy that speaks https itself needs Python 3.11"
    return None


def _classified(error: Exception, sending: _Sending) -> CallError:
    causes = failure.causes(error)
    reason = _reason(causes, sending.secrets)
    # In Python 3.10 the one is not the other.
    timed_out = any(isinstance(cause, (TimeoutError, asyncio.TimeoutError)) for cause in causes)
    if sending.begun:
        return sending.cut_off() if sending.was_cut else failure.interrupted(reason, timed_out=timed_out)
    if not sending.connecting or not isinstance(error, NETWORK_ERRORS):
        return failure.unsendable(reason)
    in_tls = any(isinstance(cause, ssl.SSLError) for cause in causes)
    return failure.unreached(reason, timed_out=timed_out, in_tls=in_tls)


def _reason(causes: list[BaseException], secrets: tuple[str, ...]) -> str:
    """Return what went wrong, in the words of the operating system alone: others may quote what was sent."""
    innermost = causes[-1]
    kind = type(innermost).__name__
    for cause in causes:
        if isinstance(cause, aiohttp.ClientHttpProxyError):
            return f"the proxy answered with HTTP {cause.status}"
    if isinstance(innermost, OSError) and not isinstance(innermost, aiohttp.ClientError) and str(innermost):
        return f"{kind}: {secrecy.quote(str(innermost), secrets, failure.LONGEST_REASON)}"
    return kind
