"""An Astro Zero that echoes every secret that it receives, in many encodings, wherever a response has room for text.

The first part of the path is the place of the secret in the response, and the second is the kind of call that gets such a response.
All other calls succeed. As a proxy it refuses every tunnel, with the same text.
"""

from __future__ import annotations

import base64
import html
import itertools
import json
import quopri
import re
import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BPM = "SupplierOnboarding"
ENCODED_AT_ONCE = 4  # encodings in one response: a reader stops after them


def _lower_percent(text: str) -> str:
    return re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), quote(text, safe=""))


def _wrapped(text: str, by: str) -> str:
    return by.join(text[at : at + 9] for at in range(0, len(text), 9))


ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda text: text,
    "percent": lambda text: quote(text, safe=""),
    "percent_lower": _lower_percent,
    "percent_twice": lambda text: quote(quote(text, safe="")),
    "form": quote_plus,
    "html": html.escape,
    "html_numbers": lambda text: "".join(f"&#{ord(letter)};" for letter in text),
    "json": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "json_letters": lambda text: "".join(f"\\u{ord(letter):04x}" for letter in text),
    "lines": lambda text: _wrapped(text, "\n"),
    "html_lines": lambda text: _wrapped(html.escape(text), "<br>"),
    "quoted_printable": lambda text: quopri.encodestring(text.encode()).decode(),
    "python": lambda text: repr(text.encode())[2:-1],
    "base64": lambda text: base64.b64encode(f"client:{text}".encode()).decode(),
    "base64_url": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
}


def shown_in(text: str, secret: str) -> list[str]:
    """Return the encodings in which a secret is in a text, independent of line breaks."""
    flat = re.sub(r"\s|\\n|\\r|<br>|\u200b", "", text)
    found = []
    for name, encode in ENCODINGS.items():
        encoded = re.sub(r"\s|<br>", "", encode(secret))
        if name == "base64":
            encoded = encoded[12:-4]  # the text next to the secret is in the letters at both ends
        # A log may escape its message once more.
        if encoded in flat or json.dumps(encoded)[1:-1] in flat or repr(encoded)[1:-1] in flat:
            found.append(name)
    return found


@dataclass
class EchoingServer:
    """A server on its own port that keeps every secret that it has received or issued."""

    port: int = 0
    secrets: list[str] = field(default_factory=list)
    answered: list[tuple[str, str]] = field(default_factory=list)
    """The place and the kind of call of each answer that repeated secrets."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._connection = ""
        self._by_connection: dict[str, list[str]] = {}
        self._numbers = itertools.count(1)
        self._turns = itertools.count()
        self._threads: list[threading.Thread] = []

    @contextmanager
    def running(self) -> Iterator[EchoingServer]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            accepting = threading.Thread(target=self._accept, args=(listener,))
            accepting.start()
            try:
                yield self
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                accepting.join(10)
                for thread in self._threads:
                    thread.join(10)
                    assert not thread.is_alive()

    def url(self, place: str, call: str) -> str:
        """Return the URL for a kind of call and a place of the secret."""
        return f"http://127.0.0.1:{self.port}/{place}/{call}"

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        """Answer one request. Closing the connection ends a response without a length."""
        with connection, suppress(OSError):
            connection.settimeout(10)
            received = b""
            while b"\r\n\r\n" not in received:
                received += self._some(connection)
            head, _, body = received.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            while length and len(body) < int(length[1]):
                body += self._some(connection)
            connection.sendall(self._answer(head.decode("latin-1"), body.decode()))

    @staticmethod
    def _some(connection: socket.socket) -> bytes:
        some = connection.recv(65536)
        if not some:
            raise OSError
        return some

    def _answer(self, head: str, body: str) -> bytes:
        method, target, *_ = head.split(" ", 2)
        with self._lock:
            self._connection = "/".join(target.split("/")[:3]) if method != "CONNECT" else method
            self._remember(head, body)
            if method == "CONNECT":
                self.answered.append(("proxy", "connect"))
                return f"HTTP/1.1 407 {self._said(one_line=True)}\r\nContent-Length: 0\r\n\r\n".encode(
                    "latin-1"
                )
            if not target.startswith("/"):  # the server is used as a proxy
                self.answered.append(("refused", "proxied"))
                return self.refused()
            _, place, echoed, *rest = target.split("/")
            call = _kind(method, "/".join(rest))
            if call != echoed:
                return answer(self._good(call))
            self.answered.append((place, call))
            return PLACES[place](self)

    def _remember(self, head: str, body: str) -> None:
        found = re.findall(r"(?i)\r\n(?:access-token|csrf-token|proxy-authorization): *([^\r\n]+)", head)
        found += parse_qs(body).get("client_secret", [])
        for secret in found:
            scheme, _, credentials = secret.strip().partition(" ")
            if scheme == "Basic":
                self._add(credentials)
                self._add(base64.b64decode(credentials).decode().partition(":")[2])
            else:
                self._add(secret.strip())

    def _add(self, secret: str) -> None:
        if secret not in self.secrets:
            self.secrets.append(secret)
        of_connection = self._by_connection.setdefault(self._connection, [])
        if secret not in of_connection:
            of_connection.append(secret)

    def _good(self, call: str) -> bytes:
        if call == "token":
            token = (
                f"Tok&<{next(self._numbers)}>'%41+/" + base64.b64encode(b"a token of the server" * 2).decode()
            )
            self._add(token)
            return json.dumps({"access_token": token, "expires_in": 3600}).encode()
        result: Any = []
        if call == "csrf":
            result = f'csrf"{next(self._numbers)}"/&a-token-of-one-write='
            self._add(result)
        elif call == "start":
            result = {"id": "002N00000000001", "name": BPM, "state": "Running"}
        return json.dumps({"resCode": "0", "resMsg": "Success", "result": result}).encode()

    def _said(self, *, one_line: bool = False) -> str:
        """Return the last secrets of this connection, in the next few encodings."""
        turn = next(self._turns)
        names = list(ENCODINGS)
        chosen = [names[(turn * ENCODED_AT_ONCE + at) % len(names)] for at in range(ENCODED_AT_ONCE)]
        said = "; ".join(
            ENCODINGS[name](secret)
            for secret in self._by_connection.get(self._connection, [])[-4:]
            for name in chosen
        )
        return re.sub(r"\s+", "", said) if one_line else said

    # The form of a response, by the place where it has room for text.

    def refused(self) -> bytes:
        return answer(json.dumps({"resCode": "1", "resMsg": self._said()}).encode(), "400 Bad Request")

    def refused_in_objects(self) -> bytes:
        said = {"resCode": "1", "resMsg": {"detail": [self._said(), {self._said(): 1}]}}
        return answer(json.dumps(said).encode(), "400 Bad Request")

    def code(self) -> bytes:
        return answer(json.dumps({"resCode": self._said(), "resMsg": "no"}).encode(), "400 Bad Request")

    def oauth(self) -> bytes:
        said = {"error": self._said(), "error_description": self._said()}
        return answer(json.dumps(said).encode(), "400 Bad Request")

    def failed(self) -> bytes:
        return answer(json.dumps({"resCode": "2", "resMsg": self._said()}).encode(), "503 Down")

    def page(self) -> bytes:
        page = f"<html>{self._said()}</html>".encode()
        return answer(page, "502 Bad Gateway", f"Content-Type: text/html; x={self._said(one_line=True)}")

    def status_line(self) -> bytes:
        return f"{self._said(one_line=True)}\r\n\r\n".encode("latin-1")

    def status(self) -> bytes:
        return f"HTTP/1.1 {self._said(one_line=True)}\r\n\r\n".encode("latin-1")

    def reason(self) -> bytes:
        return answer(b"{}", f"400 {self._said(one_line=True)}")

    def chunk(self) -> bytes:
        chunk = f"{self._said(one_line=True)}\r\n".encode("latin-1")
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk

    def header(self) -> bytes:
        lines = f" {self._said(one_line=True)}\r\n{self._said(one_line=True)}\r\n"
        return f"HTTP/1.1 400 Bad Request\r\nA: b\r\n{lines}Content-Length: 2\r\n\r\n{{}}".encode("latin-1")

    def cookie(self) -> bytes:
        said = self._said(one_line=True)
        return answer(
            b"{}", "400 Bad Request", f"Set-Cookie: {said}={said}", f"Set-Cookie: a={said}; path={said}"
        )

    def redirect(self) -> bytes:
        host = re.sub("[^A-Za-z0-9]", "", self._by_connection[self._connection][-1])
        return answer(b"", "302 Found", f"Location: https://{host}.example/{self._said(one_line=True)}")

    def later(self) -> bytes:
        said = {"resCode": "1", "resMsg": self._said()}
        return answer(json.dumps(said).encode(), "429 Slower", f"Retry-After: {self._said(one_line=True)}")

    def packed(self) -> bytes:
        return answer(self._said().encode(), "200 OK", "Content-Encoding: gzip")

    def result(self) -> bytes:
        return answer(json.dumps({"resCode": "0", "result": self._said()}).encode())

    def row(self) -> bytes:
        """Answer successfully, with the text wherever a row has room for it."""
        row = {"id": "002N00000000001", "name": BPM, "state": "Completed OK"}
        texts = ("version", "bpStatus", "taskOutcome", "title", "label", "curElement", "startTime", "endTime")
        row |= {name: self._said() for name in texts}
        return answer(json.dumps({"resCode": "0", "result": row}).encode())

    def list(self) -> bytes:
        """Answer with a list of one such row."""
        row = json.loads(self.row().partition(b"\r\n\r\n")[2])["result"]
        return answer(json.dumps({"resCode": "0", "result": [row]}).encode())

    def rows(self) -> bytes:
        """Answer with a list in which only one row is readable."""
        row = json.loads(self.row().partition(b"\r\n\r\n")[2])["result"]
        odd = [{**row, name: self._said()} for name in ("id", "state", "name", "businessKey", "isClosed")]
        return answer(json.dumps({"resCode": "0", "result": [row, *odd]}).encode())


PLACES: dict[str, Callable[[EchoingServer], bytes]] = {
    name: getattr(EchoingServer, name)
    for name in (
        "refused", "refused_in_objects", "code", "oauth", "failed", "page", "status_line", "status", "reason",
        "chunk", "header", "cookie", "redirect", "later", "packed", "result", "row", "list", "rows",
    )
}  # fmt: skip


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """Return an HTTP response with a body."""
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "Connection: close", "", "")
    return "\r\n".join(lines).encode("latin-1") + body


def _kind(method: str, path: str) -> str:
    if "oauth2" in path:
        return "token"
    if "csrf" in path:
        return "csrf"
    if method == "GET":
        return "query"
    return "start" if path.endswith("/instances") else "act"
