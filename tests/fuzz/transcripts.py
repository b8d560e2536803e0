"""Targets about transcripts: what a client records of an answer, and what a replay reads."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from airflow_provider_astrobpm.client.errors import CallError
from airflow_provider_astrobpm.client.protocol import Request, Response
from airflow_provider_astrobpm.client.recording_transport import RecordingTransport
from airflow_provider_astrobpm.client.stand_ins import SALT_BYTES, StandIns
from airflow_provider_astrobpm.client.sync_client import BpmClient
from airflow_provider_astrobpm.client.transcript_writer import TranscriptWriter
from airflow_provider_astrobpm.emulator.replay import Replay
from airflow_provider_astrobpm.emulator.transcript_reader import TranscriptError, read_transcript
from airflow_provider_astrobpm.emulator.wire_format import ApiResponse
from tests.fuzz.answers import NOW, SETTINGS, SameAnswer, answer_of
from tests.fuzz.inputs import SECRET, Input, UselessInput, raises_only

MAX_REQUESTS = 8  # of one replay
MAX_DEPTH = 200  # of an answer
PERSON = "Wilhelmina Quatermaine"


class _Replayed:
    """Answers requests as a replay does."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay

    def send(self, request: Request) -> Response:
        played = self.replay.play(
            request.method,
            request.target,
            request.headers.get("content-type", ""),
            request.body or b"",
            _now(),
        )
        assert played.response is not None
        return _received(played.response)


def _now() -> datetime:
    return datetime.fromtimestamp(NOW, timezone.utc)


def _received(response: ApiResponse) -> Response:
    """Return an answer as a client receives it."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    for value in (*headers.values(), response.content_type):
        assert not {*"\r\n"}.intersection(value), "a header of two lines"
        value.encode()
    return Response(response.status, {**headers, "content-type": response.content_type}, response.body)


@lru_cache(maxsize=1)
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="astrobpm-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def transcript(data: bytes) -> None:
    """Record an answer, and replay the transcript.

    The transcript shows neither the secret nor a name. The replay has the same outcome: the same error, or a result.
    """
    source = Input(data, secret=True)
    operation, answer = answer_of(source)
    body = answer.body.replace(b"$PERSON", PERSON.encode())
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        raise UselessInput  # a client reads deeper JSON than a transcript contains
    server = SameAnswer()
    server.answer = msgspec.structs.replace(answer, body=body)
    file = _folder() / f"{os.getpid()}.jsonl"
    file.unlink(missing_ok=True)
    said: list[str] = []
    writer = TranscriptWriter(SETTINGS, file=file, warn=said.append)
    writer.open()
    writer._open.stand_ins = StandIns(source.body()[:SALT_BYTES])  # type: ignore[union-attr]
    recorded = _ended(RecordingTransport(server, writer), operation)  # type: ignore[arg-type]
    writer.close()
    assert said == []
    text = file.read_text()
    assert SECRET not in json.dumps([json.loads(line) for line in text.splitlines()])
    assert not any(name in text for name in PERSON.split())
    replay = Replay(read_transcript(file))
    replayed = _ended(_Replayed(replay), operation)
    assert not replay.differences
    assert not replay.unused()
    assert _outcome(replayed) == _outcome(recorded)


def _ended(transport: Any, operation: Any) -> Any:
    client = BpmClient(SETTINGS, sleep=lambda _: None, clock=lambda: NOW)
    client.close()
    client._transport = transport
    try:
        return client.call(operation)
    except CallError as error:
        return error


def _outcome(found: Any) -> Any:
    if isinstance(found, CallError):
        return type(found), found.status
    return type(found), len(found) if isinstance(found, list) else None


def replay(data: bytes) -> None:
    """Read a transcript, and send requests to its replay. It is no transcript, or each request has an end that can be sent.

    A part that begins with a brace is a line of the transcript, any other part is a request.
    """
    parts = Input(data).rest()
    file = _folder() / f"replay-{os.getpid()}.jsonl"
    file.write_bytes(b"".join(part + b"\n" for part in parts if part.startswith(b"{")))
    subject = None
    with raises_only(TranscriptError):
        subject = Replay(read_transcript(file))
    if subject is None:
        return
    for part in [part for part in parts if not part.startswith(b"{")][:MAX_REQUESTS]:
        head, _, body = part.partition(b"\n")
        method, _, target = head.decode("latin-1").partition(" ")
        played = subject.play(method, target, "application/json", body, _now())
        if played.response is not None:
            _received(played.response)
    assert subject.summary()
