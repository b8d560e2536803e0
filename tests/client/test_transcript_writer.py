"""Writing transcripts: bounded, shared by processes, and never a reason for a request to fail."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_astrobpm.client import process_state, transcript, transcript_writer
from airflow_provider_astrobpm.client.protocol import Request, Response
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings
from airflow_provider_astrobpm.client.transcript import Exchange
from airflow_provider_astrobpm.client.transcript_writer import SALT_NAME, TranscriptWriter, folder_writer

SETTINGS = Settings("my_conn", "https://host.example", ClientCredentials("client", "secret"))


def exchange(number: int = 0, size: int = 10, sent: bytes | None = None) -> Exchange:
    request = Request("GET", f"/x/{number}", {}, sent)
    body = json.dumps({"resMsg": "x" * size}).encode()
    return Exchange(request, Response(200, {}, body), 1_800_000_000.0 + number, 0.1)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def transcripts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def writer(tmp_path: Path, warnings: list[str]) -> TranscriptWriter:
    return TranscriptWriter(SETTINGS, folder=tmp_path / "deep" / "folder", warn=warnings.append)


def test_folder_and_files_are_private(writer: TranscriptWriter, tmp_path: Path) -> None:
    writer.write(exchange())
    folder = tmp_path / "deep" / "folder"
    modes = {stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()}
    assert (stat.S_IMODE(folder.stat().st_mode), modes) == (0o700, {0o600})
    (file,) = transcripts(folder)
    assert [("transcript" in line, "request" in line) for line in lines(file)] == [
        (True, False),
        (False, True),
    ]


def test_nothing_is_created_before_the_first_request(writer: TranscriptWriter, tmp_path: Path) -> None:
    writer.drain()
    writer.close()
    assert not list(tmp_path.iterdir())


def test_writers_of_one_folder_use_the_same_stand_ins(tmp_path: Path) -> None:
    for _ in range(2):
        TranscriptWriter(SETTINGS, folder=tmp_path).write(exchange())
    one, another = (lines(each)[1:] for each in transcripts(tmp_path))
    assert one == another
    TranscriptWriter(SETTINGS, folder=tmp_path / "other").write(exchange())
    (other,) = transcripts(tmp_path / "other")
    assert lines(other)[1:] != one


def test_many_processes_begin_at_once(tmp_path: Path) -> None:
    code = f"""
from tests.client.test_transcript_writer import SETTINGS, TranscriptWriter, exchange
from pathlib import Path
TranscriptWriter(SETTINGS, folder=Path({str(tmp_path)!r})).write(exchange(1))
"""
    running = [
        subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2]) for _ in range(4)
    ]
    assert [each.wait(60) for each in running] == [0] * 4
    found = [lines(each)[1:] for each in transcripts(tmp_path)]
    assert found == [found[0]] * 4
    assert sorted(each.name for each in tmp_path.iterdir() if each.suffix != ".jsonl") == [SALT_NAME]


def test_a_forked_process_writes_a_file_of_its_own(tmp_path: Path) -> None:
    settings = Settings("c", "https://host.example", ClientCredentials("a", "b"), record=str(tmp_path))
    before = folder_writer(settings, str(tmp_path))
    assert folder_writer(settings, str(tmp_path)) is before
    before.write(exchange(1))
    child = os.fork()
    if child == 0:
        try:
            own = folder_writer(settings, str(tmp_path))
            own.write(exchange(2))
            before.write(exchange(3))  # by a client that the parent made
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    before.write(exchange(4))
    by_process = sorted([len(lines(each)) - 1 for each in transcripts(tmp_path)])
    assert by_process == [1, 1, 2]
    process_state.reset()
    assert folder_writer(settings, str(tmp_path)) is not before


def test_event_loop_hands_over_and_does_not_wait(
    writer: TranscriptWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcript_writer, "MAX_WAITING_EXCHANGES", 5)
    disk_answers = threading.Event()
    real = os.write

    def stuck(descriptor: int, raw: bytes) -> int:
        disk_answers.wait(30)
        return real(descriptor, raw)

    monkeypatch.setattr(f"{transcript_writer.__name__}.os.write", stuck)
    for number in range(20):
        writer.write_later(exchange(number))
    disk_answers.set()
    writer.drain(30)
    writer.write_later(exchange(20))
    writer.close()
    (file,) = transcripts(tmp_path / "deep" / "folder")
    found = lines(file)
    assert [line["dropped"] for line in found if "dropped" in line] == [15]
    assert sum("request" in line for line in found) == 6


@pytest.mark.parametrize("long", [exchange(1, size=2000), exchange(1, sent=b"1" * 2000)])
def test_waiting_bytes_are_bounded(
    long: Exchange, writer: TranscriptWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcript_writer, "MAX_WAITING_BYTES", 1000)
    writer.write_later(long)
    writer.write_later(exchange(2))
    writer.drain(30)
    (file,) = transcripts(tmp_path / "deep" / "folder")
    assert [line.get("dropped") for line in lines(file)] == [None, 1, None]


def test_nothing_is_recorded_if_no_thread_can_be_started(
    writer: TranscriptWriter, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for number in range(3):
        writer.write_later(exchange(number))
    writer.close()
    (message,) = warnings
    assert message.startswith(
        "No further requests are recorded on connection 'my_conn': can't start new thread."
    )


def test_closing_leaves_the_file_to_a_thread_that_still_writes(
    writer: TranscriptWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcript_writer, "MAX_DRAIN_SECONDS", 0.01)
    monkeypatch.setattr(transcript_writer, "MAX_LOCK_SECONDS", 0.01)
    writing, closed = threading.Event(), threading.Event()
    real = os.write

    def slow(descriptor: int, raw: bytes) -> int:
        writing.set()
        closed.wait(30)
        return real(descriptor, raw)

    writer.write(exchange(1))
    monkeypatch.setattr(f"{transcript_writer.__name__}.os.write", slow)
    writer.write_later(exchange(2))
    assert writing.wait(30)
    writer.close()
    with (tmp_path / "another.txt").open("w"):  # takes the number of a closed descriptor
        closed.set()
        writer.drain(30)
    assert (tmp_path / "another.txt").read_text() == ""
    (file,) = transcripts(tmp_path / "deep" / "folder")
    assert sum("request" in line for line in lines(file)) == 2


def test_file_is_bounded_and_says_so(
    writer: TranscriptWriter, warnings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcript_writer, "MAX_FILE_BYTES", 5000)
    for number in range(50):
        writer.write(exchange(number))
    (file,) = transcripts(tmp_path / "deep" / "folder")
    assert 3000 < file.stat().st_size <= 5000
    assert lines(file)[-1] == {"cut": "the transcript of this process has reached 5000 bytes"}
    (message,) = warnings
    assert message.startswith(
        "No further requests are recorded on connection 'my_conn': the transcript of this process"
    )
    assert message.endswith(" has reached 5000 bytes. Nothing else is affected.")


def test_folder_is_bounded_and_says_so(
    warnings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcript_writer, "MAX_FOLDER_BYTES", 5000)
    monkeypatch.setattr(transcript_writer, "CHECK_EVERY_BYTES", 500)
    for _ in range(5):
        one = TranscriptWriter(SETTINGS, folder=tmp_path, warn=warnings.append)
        for number in range(7):
            one.write(exchange(number))
        one.close()
    files = transcripts(tmp_path)
    assert 5000 <= sum(each.stat().st_size for each in files) < 7000
    ends = [lines(each)[-1] for each in files]
    assert {"cut": "the transcripts in the folder have reached 5000 bytes"} in ends
    assert warnings
    assert "have reached 5000 bytes" in warnings[-1]


def test_number_of_files_is_bounded(
    warnings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcript_writer, "MAX_FILES", 2)
    writers = [TranscriptWriter(SETTINGS, folder=tmp_path, warn=warnings.append) for _ in range(3)]
    for number in range(2):
        for writer in writers:
            writer.write(exchange(number))
    assert [len(lines(each)) for each in transcripts(tmp_path)] == [3, 3]
    (message,) = warnings
    assert f"there are 2 transcripts in {tmp_path}" in message


@pytest.mark.parametrize("place", ["a file", "no rights"])
def test_unusable_folder_is_logged_once(place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "folder"
    if place == "a file":
        folder.write_text("")
    else:
        folder = Path("/proc/nowhere")
    one = TranscriptWriter(SETTINGS, folder=folder)
    for number in range(3):
        one.write(exchange(number))
        one.write_later(exchange(number))
    one.drain()
    (message,) = caplog.messages
    assert message.startswith("No further requests are recorded on connection 'my_conn': ")
    assert str(folder) in message


@pytest.mark.parametrize("salt", [b"", b"short", b"x" * 100])
def test_a_damaged_salt_is_not_used(salt: bytes, warnings: list[str], tmp_path: Path) -> None:
    (tmp_path / SALT_NAME).write_bytes(salt)
    (tmp_path / SALT_NAME).chmod(0o600)
    TranscriptWriter(SETTINGS, folder=tmp_path, warn=warnings.append).write(exchange())
    (message,) = warnings
    assert f"it must have 32 bytes ({tmp_path / SALT_NAME})" in message
    assert transcripts(tmp_path) == []


@pytest.mark.parametrize("others", [0o020, 0o002])
@pytest.mark.parametrize("name", ["", SALT_NAME])
def test_what_others_can_write_is_not_used(
    name: str, others: int, warnings: list[str], tmp_path: Path
) -> None:
    """Whoever knows the salt can check guesses."""
    TranscriptWriter(SETTINGS, folder=tmp_path).write(exchange())
    path = tmp_path / name
    path.chmod(0o755 | others)
    TranscriptWriter(SETTINGS, folder=tmp_path, warn=warnings.append).write(exchange())
    path.chmod(0o755)
    (message,) = warnings
    assert "another user owns it or can write to it" in message
    assert f"({path})" in message
    TranscriptWriter(SETTINGS, folder=tmp_path, warn=warnings.append).write(exchange())
    assert len(transcripts(tmp_path)) == 2
    assert len(warnings) == 1


@pytest.mark.parametrize(
    ("owner", "is_used"), [(0, True), (os.geteuid() + 1, False)], ids=["root", "another"]
)
@pytest.mark.parametrize("name", ["", SALT_NAME])
def test_what_another_user_owns_is_not_used(
    name: str,
    owner: int,
    is_used: bool,
    warnings: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    TranscriptWriter(SETTINGS, folder=tmp_path).write(exchange())
    real = Path.stat

    def stat_of(path: Path, **options: Any) -> os.stat_result:
        found = list(real(path, **options))
        if path == tmp_path / name:
            found[stat.ST_UID] = owner
        return os.stat_result(found)

    monkeypatch.setattr(Path, "stat", stat_of)
    TranscriptWriter(SETTINGS, folder=tmp_path, warn=warnings.append).write(exchange())
    assert [f"({tmp_path / name})" in message for message in warnings] == [True] * (not is_used)
    assert len(transcripts(tmp_path)) == 1 + is_used


@pytest.mark.parametrize("write", ["write", "write_later"])
def test_full_disk_is_logged_once(
    write: str, writer: TranscriptWriter, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.close

    def full(descriptor: int, raw: bytes | None = None) -> int:
        if raw is None:  # a file on a network may fail when it is closed, too
            real(descriptor)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer.write(exchange())
    monkeypatch.setattr(f"{transcript_writer.__name__}.os.write", full)
    monkeypatch.setattr(f"{transcript_writer.__name__}.os.close", full)
    note: Callable[[Exchange], None] = getattr(writer, write)
    for number in range(3):
        note(exchange(number))
    writer.drain()
    (message,) = warnings
    assert "No space left on device" in message


def test_a_bug_in_the_recorder_is_logged_once(
    writer: TranscriptWriter, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{transcript_writer.__name__}.entry", lambda *_: 1 / 0)
    for number in range(3):
        writer.write(exchange(number))
    (message,) = warnings
    assert "ZeroDivisionError, a bug of this provider" in message


def test_a_warning_that_fails_is_no_failure(tmp_path: Path) -> None:
    def warn(_message: str) -> None:
        raise BrokenPipeError

    TranscriptWriter(SETTINGS, folder=Path("/proc/nowhere"), warn=warn).write(exchange())


def test_signal_handler_that_interrupts_the_writer_writes_too(
    writer: TranscriptWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = transcript.entry, []

    def interrupted(*arguments: Any) -> dict[str, Any]:
        calls.append(1)
        if len(calls) == 1:
            writer.write(exchange(2))
        return real(*arguments)

    monkeypatch.setattr(f"{transcript_writer.__name__}.entry", interrupted)
    writer.write(exchange(1))
    (file,) = transcripts(tmp_path / "deep" / "folder")
    assert sum("request" in line for line in lines(file)) == 2


def test_an_exchange_that_waited_while_the_file_was_closed_is_not_written(
    writer: TranscriptWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lock:
        """Lets another thread close the file first."""

        def acquire(self, timeout: float) -> bool:
            monkeypatch.undo()
            writer.close()
            return writer._lock.acquire(timeout=timeout)

        def release(self) -> None:
            writer._lock.release()

    writer.write(exchange(1))
    monkeypatch.setattr(writer, "_lock", Lock())
    writer.write(exchange(2))
    (file,) = transcripts(tmp_path / "deep" / "folder")
    assert sum("request" in line for line in lines(file)) == 1


def test_a_given_file_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "transcript.jsonl"
    writer = TranscriptWriter(SETTINGS, file=file)
    writer.open()
    writer.write(exchange())
    writer.close()
    writer.write(exchange())
    assert len(lines(file)) == 2
    with pytest.raises(FileExistsError):
        TranscriptWriter(SETTINGS, file=file).open()
