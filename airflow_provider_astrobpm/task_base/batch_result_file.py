"""Writes the outcome of each launch of a batch to a JSON lines or CSV file in Airflow's object storage.

The file appears completely or not at all: all rows go to a temporary file first, which is then put in place. The means of fsspec
do not ensure that everywhere. A remote file that is closed after an error counts as complete, on some storages even without
``autocommit``, and the local file system copies an incomplete file from another folder.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.batches.batch_results import RESULT_COLUMNS
from airflow_provider_astrobpm.client import validation
from airflow_provider_astrobpm.task_base.object_storage import file_location

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow_provider_astrobpm.task_base.object_storage import FileLocation


def check(path: str, *, conn_id: str | None = None) -> str:
    """Check that a file can be written at a path, before there is anything to write.

    An empty file is written next to it and removed. An http server is not tried: it would take the empty file for a result.

    :param path: as for ``write``.
    :param conn_id: as for ``write``.
    :returns: the path for people, without secrets.
    :raises ValueError: for an invalid path.
    :raises OSError: if the storage refuses the file.
    """
    location = _location(path)
    storage = location.file_system(conn_id)
    if location.scheme not in ("http", "https"):
        with _storage_errors_as_os_error(location, "cannot be written"):
            _probe(storage, location)
    return location.shown


def _probe(storage: Any, location: FileLocation) -> None:
    target = storage._strip_protocol(location.address)  # noqa: SLF001 - see _put
    if location.is_local:
        path = Path(target).resolve()
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "")
        while not path.parent.exists():  # missing folders are made with the file
            path = path.parent
        probe = _temporary_path(path)
        probe.touch()
        probe.unlink()
        return
    folder, slash, _ = target.partition("?")[0].rpartition("/")
    temporary = f"{folder}{slash}.{uuid.uuid4().hex}.tmp"
    with tempfile.NamedTemporaryFile() as empty:
        storage.put_file(empty.name, temporary)
    with contextlib.suppress(Exception):  # a file that cannot be removed is no reason to start nothing
        storage.rm_file(temporary)


def _temporary_path(target: Path) -> Path:
    return target.with_name(f".{uuid.uuid4().hex}.tmp")


def write(
    path: str,
    rows: Iterable[Mapping[str, Any]],
    *,
    conn_id: str | None = None,
    columns: Sequence[str] = RESULT_COLUMNS,
) -> str:
    """Write a file, and replace an existing one. A missing folder on the local machine is made.

    Each row becomes a line of JSON or CSV. A CSV file begins with a line of column names; ``None`` is an empty cell, and a mapping
    is a JSON object.
    An exception from the rows is passed on, and leaves everything as it was.

    :param path: the path of the file, which is UTF-8 and ends in ``.jsonl``, ``.ndjson`` or ``.csv``.
    :param rows: the outcome of each launch, by the names in ``columns``; a missing field is empty.
    :param columns: the fields to write.
    :param conn_id: the Airflow connection to write the file with; by default the one that the path names, as in
        ``s3://aws_default@bucket/result.jsonl``.
    :returns: the path for people, without secrets.
    :raises ValueError: for an invalid path.
    :raises OSError: if the storage refuses the file.
    """
    location = _location(path)
    storage = location.file_system(conn_id)
    with tempfile.TemporaryDirectory() as folder:
        # Object storages derive the content type from the suffix.
        whole = Path(folder, f"result{location.suffix}")
        # Half a surrogate pair has no UTF-8 form, and is escaped as in JSON.
        with whole.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.writelines(_FORMATS[location.suffix](rows, columns))
        with _storage_errors_as_os_error(location, "could not be written"):
            _put(whole, storage, location)
    return location.shown


def _location(path: str) -> FileLocation:
    return file_location(validation.non_blank(path, "result_path"), "file for a result", _FORMATS)


def _put(whole: Path, storage: Any, location: FileLocation) -> None:
    target = storage._strip_protocol(location.address)  # noqa: SLF001 - put_file does not do it on every storage
    if location.is_local:
        _replace(Path(target).resolve(), whole)  # follows a link, as opening the file does
    else:
        storage.put_file(str(whole), target)


def _replace(target: Path, whole: Path) -> None:
    """Replace a file by one from another folder, which may be on another disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_path(target)
    try:
        shutil.copyfile(whole, temporary)
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(target, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _storage_errors_as_os_error(location: FileLocation, what: str) -> Iterator[None]:
    """Turn an error of the storage into an ``OSError`` that says what failed."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - storages raise the errors of their clients
        raise OSError(f"the result {what} to {location.shown}: {_safe_message(error)}") from None


def _safe_message(error: Exception) -> str:
    # Neither the message of the error nor the error as a cause: storages quote signed addresses and keys. Messages of the
    # operating system are safe.
    name = type(error).__name__
    if isinstance(error, OSError) and isinstance(error.errno, int):
        return f"{name}: {os.strerror(error.errno)}"
    return name


def _json_lines(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Iterator[str]:
    for row in rows:
        yield json.dumps({column: row.get(column) for column in columns}, ensure_ascii=False) + "\n"


def _csv_lines(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Iterator[str]:
    writer = csv.writer(_Echo())
    yield writer.writerow(columns)
    for row in rows:
        yield writer.writerow([_cell(row.get(column)) for column in columns])


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value


class _Echo:
    """A file that returns what is written to it, so that a CSV writer returns lines."""

    def write(self, line: str) -> str:
        return line


_FORMATS = {".jsonl": _json_lines, ".ndjson": _json_lines, ".csv": _csv_lines}
