"""Answers requests from a transcript, and says where a request differs from the recorded one.

Requests of one form (method, path and parameters) are answered in the recorded order; requests of different forms may come in
any order.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.emulator.refusals import ResultCode
from airflow_provider_astrobpm.emulator.replayed_values import DiffersError, ReplayedValues
from airflow_provider_astrobpm.emulator.transcript_reader import MARK, SEPARATOR
from airflow_provider_astrobpm.emulator.wire_format import ApiResponse, bare, enveloped

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.emulator.transcript_reader import (
        OmittedBody,
        RecordedAnswer,
        RecordedExchange,
        Transcript,
    )

TOKEN_LIFETIME_SECONDS = 600
_TOKEN_PATH_END = "/oauth2/token"  # noqa: S105 - a path
_CSRF_PATH_END = "/csrf/get"
_INSTANCE = re.compile(r".*/runtime/instances/[^/?]+")


@dataclass(frozen=True)
class Played:
    """What the replay does with a request.

    :param response: the answer; ``None`` if there is none.
    :param keeps_open: whether the connection stays open without an answer, instead of being cut.
    """

    response: ApiResponse | None = None
    keeps_open: bool = False


@dataclass
class Replay:
    """A replay of one transcript.

    :param transcript: the transcript.
    :param say: called with a message for each request that differs.
    """

    transcript: Transcript
    say: Callable[[str], None] = lambda _message: None
    differences: list[str] = field(default_factory=list)
    """A message for each request that differs."""

    def __post_init__(self) -> None:
        self.rewind()

    def rewind(self) -> None:
        """Begin again: forget which entries were used, and which value each stand-in has."""
        self.differences.clear()
        self._values = ReplayedValues()
        self._unused = [each for each in self.transcript.exchanges if each.failure != "not_sent"]
        self._has_reads_by_id = any(
            _reads_by_id(each.request.method, each.request.target) for each in self._unused
        )
        self._extra_tokens = 0
        self._ended: str | None = None

    def end(self, reason: str) -> None:
        """Refuse every token from now on, so that every wait ends."""
        self._ended = reason

    def unused(self) -> list[RecordedExchange]:
        """Return the entries that no request has used yet. Requests that could not be sent are not among them."""
        return list(self._unused)

    def summary(self) -> list[str]:
        """Return how much of the transcript was used, as lines for a person."""
        left = self.unused()
        not_sent = [each for each in self.transcript.exchanges if each.failure == "not_sent"]
        total = len(self.transcript.exchanges) - len(not_sent)
        used = f"Recorded exchanges that were used: {total - len(left)} of {total}."
        lines = [f"{used} Requests that differed: {len(self.differences)}."]
        if left:
            lines.append(f"The first that was not used: {left[0]}")
        if not_sent:
            lines.append(
                "Requests that did not reach the server, which a replay cannot repeat: "
                f"{len(not_sent)}, the first is {not_sent[0]}"
            )
        return lines

    def play(
        self, method: str, target: str, content_type: str, body: bytes, now: datetime | None = None
    ) -> Played:
        """Answer a request.

        :param target: its raw path and query, without the base path.
        :param now: the current time.
        """
        if self._ended is not None:
            return Played(enveloped(ResultCode.UNAUTHORISED, self._ended, status=401))
        now = now or datetime.now(timezone.utc)
        parts = SEPARATOR.split(target)
        candidates = [
            each for each in self._unused if each.request.method == method and _fits(each.form, parts)
        ]
        why = ""
        for candidate in candidates:
            comparison = self._values.comparison()
            try:
                comparison.target(candidate.request, parts)
                comparison.body(candidate.request, content_type, body)
            except DiffersError as error:
                why = why or f"{candidate}: {error}"
                continue
            self._values.keep(comparison)
            self._unused.remove(candidate)
            return self._answer(candidate, now)
        path = target.partition("?")[0]
        if not candidates and path.endswith((_TOKEN_PATH_END, _CSRF_PATH_END)):
            return self._extra_token(is_csrf=path.endswith(_CSRF_PATH_END))
        if _reads_by_id(method, target) and not self._has_reads_by_id:
            # A process tries it once, and the recorded one may have done so before.
            return Played(enveloped(ResultCode.NO_SUCH_API, "There is no such API", status=404))
        return self._refuse(method, target, why)

    def _extra_token(self, *, is_csrf: bool) -> Played:
        """Issue a token that was not recorded. How many tokens a process requests depends on what it remembers."""
        self._extra_tokens += 1
        token = f"replay-token-{self._extra_tokens}"
        if is_csrf:
            return Played(enveloped(ResultCode.SUCCESS, "Success", token))
        return Played(
            bare({"access_token": token, "expires_in": TOKEN_LIFETIME_SECONDS, "token_type": "Bearer"})
        )

    def _refuse(self, method: str, target: str, why: str) -> Played:
        left = self.unused()
        if why:
            message = f"{method} {target} differs from {why}"
        elif left:
            message = f"{method} {target} came where {left[0]} was expected"
        else:
            message = f"{method} {target} came after all recorded exchanges were used"
        self.differences.append(message)
        self.say(f"Differs: {message}")
        return Played(enveloped(ResultCode.BAD_REQUEST, f"Replay: {message}", status=400))

    def _answer(self, exchange: RecordedExchange, now: datetime) -> Played:
        if exchange.failure in ("no_answer", "given_up"):
            return Played(keeps_open=True)
        if exchange.failure == "not_decompressed":
            return Played(ApiResponse(200, b"not compressed", headers={"Content-Encoding": "gzip"}))
        if exchange.answer is None:
            return Played()
        answer = exchange.answer
        headers = {
            name.title(): _sendable(self._values.of(value, exchange.at, now))
            for name, value in answer.headers.items()
        }
        media = headers.pop("Content-Type", "")
        return Played(ApiResponse(answer.status, self._body(answer, exchange.at, now), media, headers))

    def _body(self, answer: RecordedAnswer, at: datetime, now: datetime) -> bytes:
        if answer.omitted is not None:
            return _filler(answer.omitted)
        body = json.dumps(self._revealed(answer.body, at, now)).encode()
        return codecs.BOM_UTF8 + body if answer.byte_order_mark else body

    def _revealed(self, value: Any, at: datetime, now: datetime) -> Any:
        """Return a recorded value with the values of its stand-ins."""
        if isinstance(value, dict):
            if value.keys() == {MARK}:
                return value[MARK]
            return {
                self._values.of(name, at, now): self._revealed(each, at, now) for name, each in value.items()
            }
        if isinstance(value, list):
            return [self._revealed(each, at, now) for each in value]
        return self._values.of(value, at, now) if isinstance(value, str) else value


def _reads_by_id(method: str, target: str) -> bool:
    return method == "GET" and _INSTANCE.fullmatch(target) is not None


def _fits(form: tuple[str, ...], parts: list[str]) -> bool:
    return len(form) == len(parts) and all(
        not kept or kept == part for kept, part in zip(form, parts, strict=True)
    )


def _sendable(header: str) -> str:
    """Return the value of a header without characters that HTTP cannot send."""
    return "".join(each if each.isprintable() else "?" for each in header)


def _filler(omitted: OmittedBody) -> bytes:
    """Return a body of the recorded form and length."""
    begins = {"html": b"<html>", "broken JSON": b"{", "text": b"a"}.get(omitted.form, b"")
    return begins.ljust(omitted.bytes, b" " if omitted.form == "blank" else b".")[: omitted.bytes]
