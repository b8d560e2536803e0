"""What became of each launch of a batch, written to a file of JSON lines or CSV through Airflow's object storage.

A file is there as a whole or not at all, so all rows are written to a temporary file first, and that is put in its place.
What fsspec offers for this does not do it everywhere: a remote file that is closed after an error counts as whole, on some
storages even without ``autocommit``, and the local one then copies what it has in another folder.
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

from airflow_provider_astrobpm.bpm import checks
from airflow_provider_astrobpm.bpm.batch_result import COLUMNS
from airflow_provider_astrobpm.tasks.storage import place_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow_provider_astrobpm.tasks.storage import Place


def check(path: str, *, conn_id: str | None = None) -> str:
    """Check before there is anything to write that a file can be written at a path.

    An empty file is written beside it and removed. An http server is not asked: it would take that for a result.

    :param path: as for ``write``.
    :param conn_id: as for ``write``.
    :returns: the path for people, without what may be secret in it.
    :raises ValueError: if it cannot be right.
    :raises OSError: if the storage does not take it.
    """
    place = _place(path)
    storage = place.attached(conn_id)
    if place.scheme not in ("http", "https"):
        with _told(place, "cannot be written"):
            _probe(storage, place)
    return place.shown


def _probe(storage: Any, place: Place) -> None:
    target = storage._strip_protocol(place.address)  # noqa: SLF001 - as in _put
    if place.is_local:
        path = Path(target).resolve()
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "")
        while not path.parent.exists():  # those that are missing are made with the file
            path = path.parent
        trial = _beside(path)
        trial.touch()
        trial.unlink()
        return
    folder, slash, _ = target.partition("?")[0].rpartition("/")
    beside = f"{folder}{slash}.{uuid.uuid4().hex}.tmp"
    with tempfile.NamedTemporaryFile() as empty:
        storage.put_file(empty.name, beside)
    with contextlib.suppress(
        Exception
    ):  # that what was written cannot be removed is no reason to start nothing
        storage.rm_file(beside)


def _beside(target: Path) -> Path:
    return target.with_name(f".{uuid.uuid4().hex}.tmp")


def write(
    path: str,
    rows: Iterable[Mapping[str, Any]],
    *,
    conn_id: str | None = None,
    columns: Sequence[str] = COLUMNS,
) -> str:
    """Write a file, in place of one that is there. On the machine itself its folder is made if it is missing.

    A row is a line of JSON, or one of CSV below a line with the names of the columns, where ``None`` is an empty cell and a
    mapping is a JSON object.
    What the rows raise is passed on, and leaves everything as it was.

    :param path: where the file is to be: ``.jsonl``, ``.ndjson`` or ``.csv``; it is in UTF-8.
    :param rows: what became of each launch, with the fields of ``columns``; one that a row has not is empty.
    :param columns: what is written of each.
    :param conn_id: the Airflow connection to write it with; without one, the one that the path names, as in
        ``s3://aws_default@bucket/result.jsonl``.
    :returns: the path for people, without what may be secret in it.
    :raises ValueError: for a path that cannot be right.
    :raises OSError: if the storage does not take it.
    """
    place = _place(path)
    storage = place.attached(conn_id)
    with tempfile.TemporaryDirectory() as folder:
        # By its suffix object storages tell of what type the content is.
        whole = Path(folder, f"result{place.suffix}")
        # Half a surrogate pair, which no UTF-8 can hold, is told as JSON does.
        with whole.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.writelines(_FORMATS[place.suffix](rows, columns))
        with _told(place, "could not be written"):
            _put(whole, storage, place)
    return place.shown


def _place(path: str) -> Place:
    return place_of(checks.text(path, "result_path"), "file for a result", _FORMATS)


def _put(whole: Path, storage: Any, place: Place) -> None:
    target = storage._strip_protocol(place.address)  # noqa: SLF001 - not every storage does so itself in put_file
    if place.is_local:
        _replace(Path(target).resolve(), whole)  # where a link leads, as it does for whoever opens it
    else:
        storage.put_file(str(whole), target)


def _replace(target: Path, whole: Path) -> None:
    """Put a file of another folder, maybe on another disk, in the place of one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = _beside(target)
    try:
        shutil.copyfile(whole, beside)
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(target, beside)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def _told(place: Place, what: str) -> Iterator[None]:
    """Let an error of the storage say what could not be done."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - storages raise whatever their clients do
        raise OSError(f"the result {what} to {place.shown}: {_words(error)}") from None


def _words(error: Exception) -> str:
    # Not the error's own words, nor itself as a cause: storages quote signed addresses and keys. The system's are safe.
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
    """What is written to it, it hands back; so a CSV writer makes lines."""

    def write(self, line: str) -> str:
        return line


_FORMATS = {".jsonl": _json_lines, ".ndjson": _json_lines, ".csv": _csv_lines}
