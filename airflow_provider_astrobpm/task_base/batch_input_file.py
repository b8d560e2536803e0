"""Reads the launches of a batch one by one from a JSON lines or CSV file in Airflow's object storage.

``batches.batch_input`` checks the launches themselves.
"""

from __future__ import annotations

import contextlib
import csv
import reprlib
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from airflow_provider_astrobpm.batches.batch_input import LAUNCH_FIELDS, InputPosition
from airflow_provider_astrobpm.task_base.object_storage import file_location

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_astrobpm.task_base.object_storage import FileLocation

LONGEST_LINE = 2**22  # characters: a file without line ends must not fill the memory
BLOCK = 2**20  # bytes per read of a remote file: the default of s3fs is fifty times as much


def read(path: str, *, conn_id: str | None = None) -> Iterator[tuple[InputPosition, object]]:
    """Return the launches of a file, each with a description of its position. The file is opened with the first launch.

    Each line of a JSON lines file is a launch. The first line of a CSV file names the columns. A column with the name of a launch
    field is that field, and every other column is a variable. The column ``variables`` holds more variables as a JSON object. An
    empty cell counts as not given.

    :param path: the path of the file, which is UTF-8 and ends in ``.jsonl``, ``.ndjson`` or ``.csv``.
    :param conn_id: the Airflow connection to read the file with; by default the one that the path names, as in
        ``s3://aws_default@bucket/launches.jsonl``.
    :raises ValueError: at once for an invalid path; while reading for a missing or broken file.
    """
    location = file_location(path, "file of launches", _FORMATS)
    launches = _FORMATS[location.suffix]

    def opened() -> Iterator[tuple[InputPosition, object]]:
        with _open(location, conn_id) as file:
            yield from launches(_lines(file, location.shown), location.shown)

    return opened()


def _open(location: FileLocation, conn_id: str | None) -> TextIO:
    storage = location.file_system(conn_id)
    try:
        # Bytes that are not UTF-8 become surrogates, so that the error can name their line.
        file: TextIO = storage.open(
            location.address,
            "r",
            encoding="utf-8-sig",
            errors="surrogateescape",
            newline="",
            block_size=BLOCK,
        )
    except FileNotFoundError:
        raise ValueError(f"there is no file {location.shown}") from None
    return file


@contextlib.contextmanager
def _at(where: object) -> Iterator[None]:
    """Add the position to an error."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _lines(file: TextIO, shown: str) -> Iterator[str]:
    for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), ""), 1):
        with _at(f"line {number} of {shown}"):
            _check_text(line)
        yield line


def _check_text(line: str) -> None:
    if len(line) > LONGEST_LINE:
        raise ValueError(f"it is longer than {LONGEST_LINE} characters")
    try:
        line.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"after {error.start} characters it is not UTF-8") from None
    if "\0" in line:
        raise ValueError("it contains a NUL byte")


def _json_launches(lines: Iterator[str], shown: str) -> Iterator[tuple[InputPosition, object]]:
    for number, line in enumerate(lines, 1):
        if line.isspace():
            continue
        where = InputPosition(f"line {number} of {shown}", number)
        with _at(where):
            launch = _decoded(line, "it")
        yield where, launch


def _csv_launches(lines: Iterator[str], shown: str) -> Iterator[tuple[InputPosition, object]]:
    rows = _rows(lines, shown)
    where, header = next(rows, (InputPosition(shown, 1), []))
    with _at(where):
        _check_header(header)
    for where, row in rows:
        with _at(where):
            launch = _launch(header, row)
        yield where, launch


def _rows(lines: Iterator[str], shown: str) -> Iterator[tuple[InputPosition, list[str]]]:
    """Return the rows that are not blank, each with the line on which it begins."""
    reader = csv.reader(lines, strict=True)
    while True:
        where = InputPosition(f"line {reader.line_num + 1} of {shown}", reader.line_num + 1)
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"{where}: the row that begins here is not CSV: {error}") from None
        if row:
            yield where, row


def _check_header(header: list[str]) -> None:
    if not header:
        raise ValueError("it is empty, and its first line must name the columns")
    known: set[str] = set()
    for number, name in enumerate(header, 1):
        if not name.strip():
            raise ValueError(f"column {number} has no name")
        if name in known:
            raise ValueError(f"column {number} has the same name as another one, {reprlib.repr(name)}")
        if name != name.strip() or ";" in name or "\t" in name:
            raise ValueError(
                f"column {number} is called {reprlib.repr(name)}; names are separated only by a comma"
            )
        known.add(name)


def _launch(header: list[str], row: list[str]) -> dict[str, Any]:
    if len(row) != len(header):
        raise ValueError(f"the header names {len(header)} columns, and this row has {len(row)}")
    cells = {name: cell for name, cell in zip(header, row, strict=True) if cell}
    if not cells:
        raise ValueError("all its cells are empty")
    launch: dict[str, Any] = {name: cell for name, cell in cells.items() if name in LAUNCH_FIELDS}
    variables: dict[str, Any] = {name: cell for name, cell in cells.items() if name not in LAUNCH_FIELDS}
    if "variables" in launch:
        more = _decoded(launch.pop("variables"), "its variables", dict[str, Any])
        if twice := [name for name in more if name in variables]:
            raise ValueError(f"its variables contain {reprlib.repr(twice[0])}, which is also a column")
        variables |= more
    return {**launch, "variables": variables} if variables else launch


def _decoded(text: str, what: str, kind: Any = object) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"{what} must be a JSON object: {error}") from None


_FORMATS = {".jsonl": _json_launches, ".ndjson": _json_launches, ".csv": _csv_launches}
