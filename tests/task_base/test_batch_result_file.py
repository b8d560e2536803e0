"""The result file of a batch: its content, its location, and the state after a failure."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import pytest
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_astrobpm.batches.batch_results import RESULT_COLUMNS, LaunchResult
from airflow_provider_astrobpm.task_base import batch_result_file

Row = dict[str, Any]

HEADER = ",".join(RESULT_COLUMNS).encode() + b"\r\n"
SUFFIXES = (".jsonl", ".ndjson", ".csv")


def row(number: int = 1, **fields: str | None) -> Row:
    return {**LaunchResult(number, "started").as_dict(url=None, timezone=None), **fields}


def failing(*rows: Row, error: BaseException) -> Iterator[Row]:
    yield from rows
    raise error


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def read_back(path: Path) -> list[Row]:
    """Return the rows of a file, read with the standard library."""
    if path.suffix.lower() == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, strict=True))
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def as_cells(row: Row) -> Row:
    """Return a row as a CSV file can represent it."""
    return {name: "" if value is None else str(value) for name, value in row.items()}


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give temporary files a separate folder, which must be empty at the end."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "rows", "content"),
    [
        ("result.jsonl", [], b""),
        ("result.csv", [], HEADER),
        ("result.csv", [row(number=7)], HEADER + b"7,7,,started,,,,,,,,,,,\r\n"),
        (
            "result.CSV",
            [row(reason='it said "no", twice\r\nand é'), row(url="x")],
            HEADER + b'1,1,,started,"it said ""no"", twice\r\nand \xc3\xa9",,,,,,,,,,\r\n1,1,,started,,,,,,,,,,,x\r\n',
        ),
        ("result.csv", [row(reason="=1+1")], HEADER + b"1,1,,started,=1+1,,,,,,,,,,\r\n"),
        ("result.csv", [row(reason="\udcff")], HEADER + b"1,1,,started,\\udcff,,,,,,,,,,\r\n"),
        ("é 100%20@.csv", [], HEADER),
    ],
)  # fmt: skip
def test_writes_csv(name: str, rows: list[Row], content: bytes, tmp_path: Path) -> None:
    batch_result_file.write(str(tmp_path / name), rows)
    assert content_of(tmp_path) == {name: content}


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".JsonL"])
def test_writes_json_lines(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"result{suffix}"
    batch_result_file.write(str(path), [row(reason='"é"\r\n\u2028\udcff'), row(number=2)])
    rest = ", ".join(f'"{name}": null' for name in RESULT_COLUMNS[5:])
    assert path.read_bytes().decode() == (
        f'{{"number": 1, "id": 1, "title": null, "outcome": "started", "reason": "\\"é\\"\\r\\n\u2028\\udcff", {rest}}}\n'
        f'{{"number": 2, "id": 2, "title": null, "outcome": "started", "reason": null, {rest}}}\n'
    )


TEXTS = st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@settings(deadline=None)
@given(
    rows=st.lists(
        st.fixed_dictionaries({name: TEXTS for name in RESULT_COLUMNS if name != "number"} | {"number": st.integers()}),
        max_size=5,
    ),
    suffix=st.sampled_from(SUFFIXES),
)  # fmt: skip
def test_round_trip(rows: list[Row], suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"result{suffix}")
        batch_result_file.write(str(path), iter(rows))
        assert read_back(path) == (list(map(as_cells, rows)) if suffix == ".csv" else rows)


@pytest.mark.parametrize("suffix", SUFFIXES)
class TestLocalFile:
    @pytest.mark.parametrize("prefix", ["", "file://", "local://"])
    def test_is_at_its_path(self, prefix: str, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / f"é 100%20@{suffix}"
        batch_result_file.write(f"{prefix}{path}", [row()])
        assert len(read_back(path)) == 1

    def test_may_have_a_relative_path(
        self, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        batch_result_file.write(f"result{suffix}", [row()])
        batch_result_file.write(f"file://there/result{suffix}", [row()])
        assert len(read_back(tmp_path / f"result{suffix}")) == 1
        assert len(read_back(tmp_path / "there" / f"result{suffix}")) == 1

    def test_is_written_into_a_missing_folder(self, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / "some" / "where" / f"result{suffix}"
        batch_result_file.write(str(path), [row()])
        assert len(read_back(path)) == 1

    def test_replaces_an_existing_file(self, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / f"result{suffix}"
        batch_result_file.write(str(path), map(row, range(100)))
        batch_result_file.write(str(path), [row()])
        assert len(read_back(path)) == 1
        assert list(content_of(tmp_path)) == [path.name]

    def test_has_the_usual_permissions_or_keeps_its_own(self, suffix: str, tmp_path: Path) -> None:
        path, other = tmp_path / f"result{suffix}", tmp_path / "other"
        other.touch()
        batch_result_file.write(str(path), [])
        assert path.stat().st_mode == other.stat().st_mode
        path.chmod(0o640)
        batch_result_file.write(str(path), [])
        assert path.stat().st_mode & 0o777 == 0o640

    def test_is_written_to_the_target_of_a_link(self, suffix: str, tmp_path: Path) -> None:
        path, link = tmp_path / "there" / f"result{suffix}", tmp_path / f"latest{suffix}"
        link.symlink_to(path)
        batch_result_file.write(str(link), [row()])
        batch_result_file.write(str(link), [row()])
        assert link.is_symlink()
        assert len(read_back(path)) == 1

    @pytest.mark.parametrize(
        "error",
        [RuntimeError("no more rows"), OSError(errno.EIO, "no more rows"), KeyboardInterrupt("no more rows")],
    )
    def test_is_unchanged_when_the_rows_fail(self, error: BaseException, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / f"result{suffix}"
        path.write_bytes(b"old")
        with pytest.raises(type(error), match="no more rows") as caught:
            batch_result_file.write(str(path), failing(row(), row(), error=error))
        assert caught.value is error
        assert content_of(tmp_path) == {path.name: b"old"}

    def test_is_not_made_when_the_rows_fail(self, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / "some" / f"result{suffix}"
        with pytest.raises(RuntimeError, match="no more rows"):
            batch_result_file.write(str(path), failing(row(), error=RuntimeError("no more rows")))
        assert list(tmp_path.iterdir()) == []

    def test_is_unchanged_when_the_disk_is_full(
        self, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def copied(source: Path, target: Path) -> None:
            target.write_bytes(source.read_bytes()[:10])
            raise OSError(errno.ENOSPC, "full", str(target))

        monkeypatch.setattr(shutil, "copyfile", copied)
        path = tmp_path / f"result{suffix}"
        path.write_bytes(b"old")
        with pytest.raises(OSError, match="^the result could not be written to .*: OSError: No space left"):
            batch_result_file.write(str(path), [row()])
        assert content_of(tmp_path) == {path.name: b"old"}

    def test_cannot_replace_a_folder(self, suffix: str, tmp_path: Path) -> None:
        folder = tmp_path / f"folder{suffix}"
        folder.mkdir()
        with pytest.raises(
            OSError, match=f"^the result could not be written to {folder}: IsADirectoryError: Is a directory$"
        ):
            batch_result_file.write(str(folder), [row()])
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match=r": NotADirectoryError: Not a directory$"):
            batch_result_file.write(f"{tmp_path}/file/some/result{suffix}", [row()])
        assert content_of(tmp_path) == {"file": b""}
        assert list(folder.iterdir()) == []

    @pytest.mark.skipif(os.geteuid() == 0, reason="to root nothing is forbidden")
    def test_needs_the_permission_to_write(self, suffix: str, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(OSError, match=r": PermissionError: Permission denied$"):
            batch_result_file.write(str(tmp_path / f"result{suffix}"), [row()])
        tmp_path.chmod(0o700)

    def test_is_never_completely_in_memory(self, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / f"result{suffix}"
        batch_result_file.write(str(path), [])  # so that the memory of imports does not count
        tracemalloc.start()
        try:
            batch_result_file.write(str(path), (row(number, reason="x" * 2_000) for number in range(10_000)))
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert path.stat().st_size > 20_000_000
        assert most < 500_000
        assert [int(one["number"]) for one in read_back(path)] == list(range(10_000))


class FakeObjectStorage(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """An object storage that accepts complete files only."""

    cachable = False
    protocol = "s3"

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.content: dict[str, bytes] = {}
        self.names: list[str] = []

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        if self.error is not None:
            raise self.error
        self.names.append(Path(lpath).name)
        self.content[rpath] = Path(lpath).read_bytes()


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Put a store behind a scheme and a connection."""

    def made(store: Any, conn_id: str | None = None, scheme: str = "s3") -> Any:
        monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", {})
        attach(scheme, conn_id, fs=store)
        return store

    return made


class TestRemoteObject:
    @pytest.mark.parametrize(
        ("path", "conn_id", "used"),
        [
            ("s3://bucket/some/result.csv", None, None),
            ("s3://bucket/some/result.csv", "mine", "mine"),
            ("s3://named@bucket/some/result.csv", None, "named"),
            ("s3://named@bucket/some/result.csv", "mine", "mine"),
            ("s3://bucket/by@person/result.csv", None, None),
        ],
    )
    def test_is_written_with_the_given_connection(
        self, path: str, conn_id: str | None, used: str | None, stored: Any
    ) -> None:
        store = stored(FakeObjectStorage(), used)
        batch_result_file.write(path, [row()], conn_id=conn_id)
        address = path.removeprefix("s3://").removeprefix("named@")
        assert store.content == {address: HEADER + b"1,1,,started,,,,,,,,,,,\r\n"}

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_has_the_content_type_of_its_suffix(self, suffix: str, stored: Any) -> None:
        store = stored(FakeObjectStorage())
        batch_result_file.write(f"s3://bucket/some{suffix}?sig=secret", [row()])
        assert store.names == [f"result{suffix}"]

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_is_put_by_a_storage_without_its_own_put(self, suffix: str, stored: Any) -> None:
        store = stored(MemoryFileSystem(skip_instance_cache=True), scheme="memory")
        store.store, store.pseudo_dirs = {}, [""]
        for number in (1, 2):
            batch_result_file.write(f"memory://some/where/result{suffix}", [row(number)])
        assert store.find("") == [f"/some/where/result{suffix}"]
        content = store.cat_file(f"/some/where/result{suffix}").decode()
        if suffix == ".csv":
            assert list(csv.DictReader(io.StringIO(content))) == [as_cells(row(2))]
        else:
            assert content == json.dumps(row(2)) + "\n"

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_is_not_touched_when_the_rows_fail(self, suffix: str, stored: Any) -> None:
        store = stored(FakeObjectStorage())
        with pytest.raises(PermissionError, match="no more rows") as caught:
            batch_result_file.write(
                f"s3://bucket/result{suffix}", failing(row(), error=PermissionError("no more rows"))
            )
        assert store.content == {}, caught.tb  # which holds the objects that a storage might still write

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (PermissionError("key secret is denied"), "PermissionError"),
            (PermissionError(errno.EACCES, "secret", "?sig=secret"), "PermissionError: Permission denied"),
            (FileNotFoundError("bucket?sig=secret"), "FileNotFoundError"),
            (OSError("secret", "secret"), "OSError"),
            (ConnectionError("https://secret"), "ConnectionError"),
            (ValueError("secret"), "ValueError"),
        ],
    )
    def test_error_shows_no_secret(self, error: Exception, said: str, stored: Any) -> None:
        stored(FakeObjectStorage(error), "secret")
        with pytest.raises(OSError, match=".") as caught:
            batch_result_file.write("s3://secret@bucket/result.csv?sig=secret", [row()])
        assert str(caught.value) == f"the result could not be written to s3://bucket/result.csv: {said}"
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__

    def test_unknown_storage_raises_airflows_error(self, stored: Any) -> None:
        stored(FakeObjectStorage())
        with pytest.raises(ValueError, match="^No filesystem registered for scheme s4$"):
            batch_result_file.write("s4://bucket/result.csv", [row()])

    def test_is_never_completely_in_memory(self, stored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        sizes: list[int] = []
        monkeypatch.setattr(
            FakeObjectStorage, "put_file", lambda _, lpath, rpath: sizes.append(Path(lpath).stat().st_size)
        )
        stored(FakeObjectStorage())
        batch_result_file.write("s3://bucket/result.jsonl", [])
        tracemalloc.start()
        try:
            batch_result_file.write(
                "s3://bucket/result.jsonl", (row(number, reason="x" * 2_000) for number in range(10_000))
            )
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert sizes[1] > 20_000_000
        assert most < 500_000


@pytest.mark.parametrize(
    ("path", "said"),
    [
        *[
            (path, rf"^{path} is not a file for a result: its name must end in .jsonl, .ndjson, .csv$")
            for path in ("result", "result.xml", ".csv", "s3://bucket", "s3://bucket/.jsonl/result.csv.gz")
        ],
        ("", "^result_path must be a text that is not blank, not ''$"),
        (" \n", "^result_path must be a text that is not blank"),
        (["result.csv"], "^result_path must be a text"),
        ("s3://user:secret@bucket/result.csv?sig=secret", "^s3://bucket/result.csv must be given without a password"),
        ("s3://secret@bucket/result?sig=secret.csv", "^s3://bucket/result is not a file for a result"),
    ],
)  # fmt: skip
def test_invalid_path_is_refused(path: Any, said: str) -> None:
    rows = iter([row()])
    for refusing in (batch_result_file.check, lambda path: batch_result_file.write(path, rows)):
        with pytest.raises(ValueError, match=said) as caught:
            refusing(path)
        assert "secret" not in str(caught.value)
    assert len(list(rows)) == 1


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("result.csv", "result.csv"),
        ("file://{folder}/some/result.JSONL", "file://{folder}/some/result.JSONL"),
        ("https://some.where/result.csv?signature=x", "https://some.where/result.csv"),
        ("memory://bucket/result.ndjson?signature=x", "memory://bucket/result.ndjson"),
    ],
)
def test_check_returns_the_path_for_people(
    path: str, shown: str, stored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = MemoryFileSystem(skip_instance_cache=True)
    store.store, store.pseudo_dirs = {}, [""]
    if path.startswith("https:"):
        stored(FakeObjectStorage(OSError("nothing is sent there")), scheme="https")
    else:
        stored(store, scheme="memory")
    assert batch_result_file.check(path.format(folder=tmp_path)) == shown.format(folder=tmp_path)
    assert list(tmp_path.iterdir()) == store.find("") == []


class TestCheck:
    """A path that cannot be written at the end must be refused before anything is started."""

    def test_keeps_an_existing_file(self, tmp_path: Path) -> None:
        path = tmp_path / "result.csv"
        path.write_bytes(b"old")
        batch_result_file.check(str(path))
        assert content_of(tmp_path) == {path.name: b"old"}

    @pytest.mark.parametrize(
        ("path", "said"),
        [
            ("folder.csv", "IsADirectoryError: Is a directory"),
            ("file/result.csv", "NotADirectoryError: Not a directory"),
            ("file/some/where/result.csv", "NotADirectoryError: Not a directory"),
            ("gone/result.csv", "FileNotFoundError: No such file or directory"),
        ],
    )
    def test_refuses_an_unwritable_path(self, path: str, said: str, tmp_path: Path) -> None:
        (tmp_path / "folder.csv").mkdir()
        (tmp_path / "file").touch()
        (tmp_path / "gone").symlink_to("/proc/self/nowhere/at/all")
        with pytest.raises(OSError, match=f"^the result cannot be written to {tmp_path}/{path}: {said}$"):
            batch_result_file.check(f"{tmp_path}/{path}")

    def test_puts_and_removes_an_empty_object(self, stored: Any) -> None:
        store = stored(MemoryFileSystem(skip_instance_cache=True), scheme="memory")
        store.store, store.pseudo_dirs = {}, [""]
        store.pipe_file("/bucket/result.csv", b"old")
        batch_result_file.check("memory://bucket/result.csv")
        assert store.find("") == ["/bucket/result.csv"]
        assert store.cat_file("/bucket/result.csv") == b"old"

    def test_accepts_a_storage_that_cannot_remove_objects(self, stored: Any) -> None:
        store = stored(FakeObjectStorage())  # it removes nothing
        assert (
            batch_result_file.check("s3://bucket/some/result.csv?sig=secret") == "s3://bucket/some/result.csv"
        )
        (name,) = store.content
        assert re.fullmatch(r"bucket/some/\.[0-9a-f]{32}\.tmp", name)
        assert store.content[name] == b""

    def test_refuses_a_storage_that_refuses_objects(self, stored: Any) -> None:
        stored(FakeObjectStorage(PermissionError("key secret is denied")))
        with pytest.raises(OSError, match=".") as caught:
            batch_result_file.check("s3://bucket/result.csv?sig=secret")
        assert str(caught.value) == "the result cannot be written to s3://bucket/result.csv: PermissionError"


def test_refuses_an_unknown_storage() -> None:
    with pytest.raises(ValueError, match="No filesystem registered for scheme s4"):
        batch_result_file.check("s4://bucket/result.ndjson")


def test_storage_libraries_are_imported_only_when_needed() -> None:
    code = """if True:
        import sys
        from airflow_provider_astrobpm.task_base import batch_input_file, batch_result_file
        batch_input_file.read("s3://bucket/launches.csv")
        assert batch_result_file
        assert not {"fsspec", "airflow.sdk"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True)
