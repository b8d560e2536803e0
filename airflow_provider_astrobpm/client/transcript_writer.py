"""Writes transcripts: one file for each process, so that processes can write to the same folder.

Writing never makes a request fail, and never blocks an event loop. Whatever goes wrong is logged once, and then nothing more is
written. A task process writes in its own thread, because Airflow ends it without notice. An event loop hands its exchanges to
a thread, which drops what it cannot write in time.
"""

from __future__ import annotations

import atexit
import errno
import json
import logging
import math
import os
import stat
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm import __version__
from airflow_provider_astrobpm.client import process_state
from airflow_provider_astrobpm.client.protocol import Response
from airflow_provider_astrobpm.client.stand_ins import SALT_BYTES, StandIns
from airflow_provider_astrobpm.client.transcript import Exchange, entry, heading

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.client.settings import Settings

MAX_FILE_BYTES = 16 * 1024 * 1024  # that one process writes
MAX_FOLDER_BYTES = 256 * 1024 * 1024  # of all transcripts in a folder, after which no process writes more
MAX_FILES = 1000  # in a folder, after which no process begins another
MAX_WAITING_EXCHANGES = 1000  # of an event loop, that are not yet written
MAX_WAITING_BYTES = 16 * 1024 * 1024  # of what they sent and received
CHECK_EVERY_BYTES = 1024 * 1024  # written by one process, between two checks of the folder's size
MAX_LOCK_SECONDS = 1.0  # that a request or a close waits for another thread that writes
MAX_DRAIN_SECONDS = 2.0  # to write what is waiting when a client is closed, or a process ends
SALT_NAME = "salt-do-not-share"
SUFFIX = ".jsonl"
_ROOM_FOR_LAST_LINE = 200  # bytes

_LOG = logging.getLogger(__name__)


@dataclass
class _OpenFile:
    """A transcript that this process writes.

    :param descriptor: the file, opened to append.
    :param stand_ins: replace its values.
    :param checked: its size when the size of the folder was last checked.
    """

    descriptor: int
    stand_ins: StandIns
    size: int = 0
    checked: int = 0

    def append(self, line: dict[str, Any]) -> None:
        """Append one line."""
        self.append_encoded(encoded(line))

    def append_encoded(self, raw: bytes) -> None:
        self.size += len(raw)
        while raw:
            raw = raw[os.write(self.descriptor, raw) :]


def encoded(line: dict[str, Any]) -> bytes:
    """Return one line of a transcript."""
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


class TranscriptWriter:
    """Writes the transcript of this process for one environment. Threads and event loops may share it.

    :param settings: the settings of the environment.
    :param folder: the folder of the transcript, which is created if it does not exist.
    :param file: the transcript itself, instead of a folder.
    :param warn: called with a message when something is not recorded, once.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        folder: Path | None = None,
        file: Path | None = None,
        warn: Callable[[str], None] = _LOG.warning,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._file = file
        self._warn = warn
        self._open: _OpenFile | None = None
        self._has_stopped = False
        self._lock = threading.RLock()
        self._waiting: SimpleQueue[Exchange | threading.Event] = SimpleQueue()
        self._counting = threading.RLock()  # never held while anything is written
        self._waiting_count = self._waiting_bytes = self._dropped = 0
        self._thread = threading.Thread(target=self._write_waiting, name="astro-zero-transcript", daemon=True)

    def open(self) -> None:
        """Create the file.

        :raises OSError: if that is impossible, also because it exists.
        """
        if self._file is not None:
            salt, path = os.urandom(SALT_BYTES), self._file
        else:
            assert self._folder is not None  # noqa: S101 - for mypy; one of the two is given
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_owner(self._folder)
            salt, path = _salt_of(self._folder), self._folder / _file_name()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._open = _OpenFile(descriptor, StandIns(salt))
        self._open.append(heading(self._settings, __version__))

    def write(self, exchange: Exchange) -> None:
        """Write an exchange now, in this thread."""
        if not self._lock.acquire(timeout=MAX_LOCK_SECONDS):
            self._drop()
            return
        try:
            if not self._has_stopped:
                self._write(exchange)
        except OSError as error:
            self._stop(f"{error.strerror or error} ({error.filename or self._file or self._folder})")
        except Exception as error:  # noqa: BLE001 - a request must not fail because it cannot be recorded
            self._stop(f"{type(error).__name__}, a bug of this provider")
        finally:
            self._lock.release()

    def write_later(self, exchange: Exchange) -> None:
        """Let the thread of this writer write an exchange. If too much is waiting, drop it."""
        if self._has_stopped or not self._has_thread():
            return
        size = _size(exchange)
        with self._counting:
            if self._waiting_count >= MAX_WAITING_EXCHANGES or self._waiting_bytes + size > MAX_WAITING_BYTES:
                self._drop()
                return
            self._waiting_count += 1
            self._waiting_bytes += size
        self._waiting.put(exchange)

    def _has_thread(self) -> bool:
        """Start the thread if it has not been started, and return whether that worked."""
        try:
            with self._counting:
                if self._thread.ident is None:
                    self._thread.start()
                    atexit.register(self.drain)
        except RuntimeError as error:  # the process has too many threads, or is ending
            self._stop(str(error))
            return False
        return True

    def drain(self, timeout: float = MAX_DRAIN_SECONDS) -> None:
        """Wait until everything is written that is waiting now.

        :param timeout: the maximum seconds to wait.
        """
        if self._thread.is_alive():
            written = threading.Event()
            self._waiting.put(written)
            written.wait(timeout)

    def close(self) -> None:
        """Close the file. A later exchange is not written."""
        self.drain()
        self._has_stopped = True
        self._forget_file(MAX_LOCK_SECONDS)
        atexit.unregister(self.drain)

    def _forget_file(self, patience: float = 0) -> None:
        """Close the file, unless another thread still writes: it would then write to the next file with that descriptor."""
        if not self._lock.acquire(timeout=patience):
            return
        transcript, self._open = self._open, None
        if transcript is not None:
            with suppress(OSError):  # a file on a network may report there that it could not be written
                os.close(transcript.descriptor)
        self._lock.release()

    def _write_waiting(self) -> None:
        while True:
            waiting = self._waiting.get()
            if isinstance(waiting, threading.Event):
                waiting.set()
                continue
            self.write(waiting)
            with self._counting:
                self._waiting_count -= 1
                self._waiting_bytes -= _size(waiting)

    def _drop(self) -> None:
        with self._counting:
            self._dropped += 1

    def _write(self, exchange: Exchange) -> None:
        if self._open is None:
            if (limit := self._folder_limit(most_files=MAX_FILES)) is not None:
                self._stop(limit)
                return
            self.open()
        transcript = self._open
        assert transcript is not None  # noqa: S101 - for mypy; it was opened above
        with self._counting:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            transcript.append({"dropped": dropped})
        line = encoded(entry(exchange, transcript.stand_ins))
        limit = None
        if transcript.size + len(line) > MAX_FILE_BYTES - _ROOM_FOR_LAST_LINE:
            limit = f"the transcript of this process has reached {MAX_FILE_BYTES} bytes"
        elif transcript.size - transcript.checked > CHECK_EVERY_BYTES:
            transcript.checked = transcript.size
            limit = self._folder_limit()
        if limit is None:
            transcript.append_encoded(line)
            return
        transcript.append({"cut": limit.replace(str(self._folder), "the folder")})
        self._stop(limit)

    def _folder_limit(self, most_files: float = math.inf) -> str | None:
        """Return which limit the transcripts in the folder have reached, if any."""
        if self._folder is None or not self._folder.is_dir():
            return None
        sizes = [_size_of(each) for each in self._folder.glob(f"*{SUFFIX}")]
        if len(sizes) >= most_files:
            return f"there are {most_files} transcripts in {self._folder}"
        if sum(sizes) >= MAX_FOLDER_BYTES:
            return f"the transcripts in {self._folder} have reached {MAX_FOLDER_BYTES} bytes"
        return None

    def _stop(self, why: str) -> None:
        self._has_stopped = True
        self._forget_file()
        with suppress(Exception):  # such as an error of stderr
            self._warn(
                f"No further requests are recorded on connection {self._settings.connection!r}: {why}. "
                "Nothing else is affected."
            )


def _size(exchange: Exchange) -> int:
    request, outcome = exchange.request, exchange.outcome
    return len(request.body or b"") + (len(outcome.body) if isinstance(outcome, Response) else 0)


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it was removed
        return 0


def _file_name() -> str:
    """Return a name that no other process uses, and that sorts by time."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}-{os.urandom(3).hex()}{SUFFIX}"


def _check_owner(path: Path) -> None:
    """Refuse a folder or a salt that another user may have made.

    :raises OSError: if a user other than this one and root owns it or can write to it.
    """
    found = path.stat()
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError(
            errno.EPERM,
            "another user owns it or can write to it, and could then check guesses about the values; "
            "record into a new folder, or run chmod go-w on it",
            str(path),
        )


def _salt_of(folder: Path) -> bytes:
    """Return the salt of a folder. The first process creates it; it appears complete, or not at all."""
    path = folder / SALT_NAME
    if not path.exists():
        own = folder / f".{SALT_NAME}-{os.getpid()}-{os.urandom(3).hex()}"
        descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, os.urandom(SALT_BYTES))
            with suppress(FileExistsError):  # another process was faster
                path.hardlink_to(own)
        finally:
            os.close(descriptor)
            own.unlink()
    _check_owner(path)
    salt = path.read_bytes()
    if len(salt) != SALT_BYTES:  # without a salt, guesses could be checked
        raise OSError(errno.EINVAL, f"it must have {SALT_BYTES} bytes", str(path))
    return salt


_WRITERS: dict[tuple[str, str], TranscriptWriter] = {}


def folder_writer(
    settings: Settings, folder: str, warn: Callable[[str], None] = _LOG.warning
) -> TranscriptWriter:
    """Return the writer of this process for a folder and an environment.

    :param warn: see ``TranscriptWriter``; of the first call.
    """
    key = folder, settings.base_url
    if key not in _WRITERS:
        _WRITERS[key] = TranscriptWriter(settings, folder=Path(folder), warn=warn)
    return _WRITERS[key]


def _forget() -> None:
    """Forget all writers. A forked process writes a file of its own."""
    for writer in _WRITERS.values():
        writer._forget_file()  # noqa: SLF001 - without waiting for a thread that a fork does not have
    _WRITERS.clear()


process_state.register(_forget, after_fork=True)
