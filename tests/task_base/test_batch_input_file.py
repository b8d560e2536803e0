"""The input file of a batch: the launches in it, and the errors of broken files and invalid paths."""

from __future__ import annotations

import csv
import io
import itertools
import json
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import pytest
from airflow.sdk.io import attach
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_astrobpm.batches.batch_input import LAUNCH_FIELDS, parse_launches
from airflow_provider_astrobpm.task_base import batch_input_file

Write = Callable[[str, bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(suffix: str, content: bytes) -> Path:
        path = tmp_path / f"launches{suffix}"
        path.write_bytes(content)
        return path

    return written


def rows_of(path: str, **options: Any) -> list[tuple[str, object]]:
    return [(str(where), launch) for where, launch in batch_input_file.read(path, **options)]


def test_launch_without_an_id_gets_its_line_number(write: Write) -> None:
    path = write(".csv", b'id,title,note\n\na,,x\n,T,"two\nlines"\n,,y\n')
    given = parse_launches(batch_input_file.read(str(path)), bpm_name="Approval")
    assert [launch.author_fields().id for launch in given] == ["a", 4, 6]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"id\na\nb\na\n", "line 4 of .*: its id 'a' is also that of launch 1"),
        (b"id,title\n3,\n,T\n", "line 3 of .*: its id 3 is also that of launch 1"),
    ],
)
def test_duplicate_id_is_refused(content: bytes, said: str, write: Write) -> None:
    with pytest.raises(ValueError, match=said):
        list(parse_launches(batch_input_file.read(str(write(".csv", content))), bpm_name="Approval"))


@pytest.mark.parametrize(
    ("suffix", "content", "launches"),
    [
        (".jsonl", b"", []),
        (".jsonl", b"\xef\xbb\xbf", []),
        (".jsonl", b"{}", [(1, {})]),
        (".JSONL", b'{"title": "a"}\n{"title": "b"}\n', [(1, {"title": "a"}), (2, {"title": "b"})]),
        (".ndjson", b'\xef\xbb\xbf{"title": "a"}\r\n \t\r\n\n{}\r\n', [(1, {"title": "a"}), (4, {})]),
        (".jsonl", '{"title": "\u2028 \x85 é"}\n{}'.encode(), [(1, {"title": "\u2028 \x85 é"}), (2, {})]),
        (".jsonl", b'["not a mapping"]\nnull\n', [(1, ["not a mapping"]), (2, None)]),
        (".csv", b"title", []),
        (".csv", b"title\n\n", []),
        (".csv", b"title\na\n", [(2, {"title": "a"})]),
        (".CSV", b"title\ra\rb", [(2, {"title": "a"}), (3, {"title": "b"})]),
        (".csv", b"\r\n\xc3\xa9\r\n\r\n1\r\n", [(4, {"variables": {"é": "1"}})]),
        (".csv", b"\xef\xbb\xbftitle,amount\na, 1 \n", [(2, {"title": "a", "variables": {"amount": " 1 "}})]),
        (".csv", b"title,amount\na,\n,1\n", [(2, {"title": "a"}), (3, {"variables": {"amount": "1"}})]),
        (
            ".csv",
            b"bpm_name,version,business_key,title,id\nn,1,k,t,i\n",
            [(2, {"bpm_name": "n", "version": "1", "business_key": "k", "title": "t", "id": "i"})],
        ),
        (".csv", b'id,variables\ni,"{""id"": 5}"\n', [(2, {"id": "i", "variables": {"id": 5}})]),
        (
            ".csv",
            b'a,variables\n1,"{""b"": [2], ""c"": null}"\n,"{""a"": 3}"\n4,\n5,{}\n',
            [
                (2, {"variables": {"a": "1", "b": [2], "c": None}}),
                (3, {"variables": {"a": 3}}),
                (4, {"variables": {"a": "4"}}),
                (5, {"variables": {"a": "5"}}),
            ],
        ),
        (
            ".csv",
            b'title,a\n"one\ntwo\r\n\r\nthree",1\n"say ""x""","2,"\n',
            [
                (2, {"title": "one\ntwo\r\n\r\nthree", "variables": {"a": "1"}}),
                (6, {"title": 'say "x"', "variables": {"a": "2,"}}),
            ],
        ),
    ],
)
def test_reads_launches(
    suffix: str, content: bytes, launches: list[tuple[int, object]], write: Write
) -> None:
    path = write(suffix, content)
    expected = [(f"line {number} of {path}", launch) for number, launch in launches]
    assert rows_of(str(path)) == expected


@pytest.mark.parametrize(
    ("suffix", "content", "said"),
    [
        (".jsonl", b"{}\n\n{", "line 3 of {}: it must be a JSON object: Input data was truncated"),
        (".jsonl", b"{}\n{} {}\n", "line 2 of {}: it must be a JSON object: JSON is malformed"),
        (".jsonl", b'{"a": NaN}', "line 1 of {}: it must be a JSON object: JSON is malformed"),
        (".jsonl", b"[" * 100_000, "line 1 of {}: it must be a JSON object: maximum recursion depth"),
        (".jsonl", b'{}\n{"a": "\xc3\xa9 \xe9"}', "line 2 of {}: after 9 characters it is not UTF-8"),
        (".jsonl", b'{}\n{"a": "\xed\xa0\x80"}', "line 2 of {}: after 7 characters it is not UTF-8"),
        (".jsonl", '{"a": 1}'.encode("utf-16"), "line 1 of {}: after 0 characters it is not UTF-8"),
        (".jsonl", b'{}\n{"a": "\0"}', "line 2 of {}: it contains a NUL byte"),
        (".jsonl", b"{}\n" + b" " * 101, "line 2 of {}: it is longer than 100 characters"),
        (".csv", b"", "{}: it is empty, and its first line must name the columns"),
        (".csv", b"\r\n\n", "{}: it is empty, and its first line must name the columns"),
        (".csv", b"\na,,b\n", "line 2 of {}: column 2 has no name"),
        (".csv", b"a, ", "line 1 of {}: column 2 has no name"),
        (".csv", b"a,title,a", "line 1 of {}: column 3 has the same name as another one, 'a'"),
        (".csv", b",".join([b"x" * 500] * 2), "line 1 of {}: column 2 has the same name as another one, 'xxx"),
        (".csv", b"a, title", "line 1 of {}: column 2 is called ' title'; names are separated only by a comma"),
        (".csv", b"a;title", "line 1 of {}: column 1 is called 'a;title'; names are separated only by a comma"),
        (".csv", b"a\ttitle", r"line 1 of {}: column 1 is called 'a\ttitle'; names are separated only by a comma"),
        (".csv", b"a,b\n1,2\n\n1\n", "line 4 of {}: the header names 2 columns, and this row has 1"),
        (".csv", b'a,b\n"\n\n",2\n1,2,3\n', "line 5 of {}: the header names 2 columns, and this row has 3"),
        (".csv", b"a,b\n1,2\n,\n", "line 3 of {}: all its cells are empty"),
        (".csv", b"variables\nx", "line 2 of {}: its variables must be a JSON object: JSON is malformed"),
        (".csv", b"variables\n[]", "line 2 of {}: its variables must be a JSON object: Expected `object`"),
        (
            ".csv",
            b'a,variables\n1,"{""a"": 2}"',
            "line 2 of {}: its variables contain 'a', which is also a column",
        ),
        (".csv", b'a\n1\n"2\n3\n4', "line 3 of {}: the row that begins here is not CSV: unexpected end of data"),
        (".csv", b'a\n"1"2\n', "line 2 of {}: the row that begins here is not CSV: ',' expected after '\"'"),
        (".csv", b'a\n"' + b"x" * 99 + b"\n" + b"x\n" * 70_000, "line 2 of {}: the row that begins here is not CSV"),
        (".csv", b'a\n"1\n\xff"\n', "line 3 of {}: after 0 characters it is not UTF-8"),
        (".csv", b'a\n"1\n\0"\n', "line 3 of {}: it contains a NUL byte"),
    ],
)  # fmt: skip
def test_error_of_a_broken_file(
    suffix: str, content: bytes, said: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "longer than" in said:
        monkeypatch.setattr(batch_input_file, "LONGEST_LINE", 100)
    path = write(suffix, content)
    with pytest.raises(ValueError, match=".") as caught:
        list(batch_input_file.read(str(path)))
    assert str(caught.value).startswith(said.format(path))
    assert len(str(caught.value)) < len(str(path)) + 150
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_good_launches_come_before_the_error(write: Write) -> None:
    launches = batch_input_file.read(str(write(".csv", b"title\na\n\xff")))
    assert next(launches)[1] == {"title": "a"}
    with pytest.raises(ValueError, match="line 3"):
        next(launches)


@pytest.mark.parametrize("prefix", ["", "file://", "local://"])
def test_local_paths(prefix: str, write: Write) -> None:
    path = prefix + str(write("é 100%20@.csv", b"title,a@b\nx,1"))
    assert rows_of(path) == [(f"line 2 of {path}", {"title": "x", "variables": {"a@b": "1"}})]


def test_relative_path(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(".jsonl", b"{}")
    monkeypatch.chdir(path.parent)
    assert rows_of(path.name) == [("line 1 of launches.jsonl", {})]


def test_missing_file(tmp_path: Path) -> None:
    launches = batch_input_file.read(f"file://{tmp_path}/launches.csv")
    with pytest.raises(ValueError, match=f"^there is no file file://{tmp_path}/launches.csv$") as caught:
        next(launches)
    assert caught.value.__suppress_context__


class FakeObjectStorage(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """A remote storage. Its files have generated content, or are missing if there is no content."""

    cachable = False

    def __init__(self, content: Iterable[bytes] | None = None) -> None:
        super().__init__()
        self.content = content
        self.opened: list[io.BufferedReader] = []
        self.addresses: list[str] = []

    def _open(self, path: str, mode: str = "rb", **options: Any) -> io.BufferedReader:
        assert (mode, options["block_size"]) == ("rb", batch_input_file.BLOCK)
        self.addresses.append(path)
        if self.content is None:
            raise FileNotFoundError(path)
        self.opened.append(io.BufferedReader(Content(self.content)))
        return self.opened[-1]


class Content(io.RawIOBase):
    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = iter(pieces)
        self.rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.rest = self.rest or next(self.pieces, b"")
        piece, self.rest = self.rest[: len(buffer)], self.rest[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeObjectStorage]:
    """Put a store behind ``s3`` and a connection."""

    def made(content: Iterable[bytes] | None = None, conn_id: str | None = None) -> FakeObjectStorage:
        monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", {})
        store = FakeObjectStorage(content)
        attach("s3", conn_id, fs=store)
        return store

    return made


@pytest.mark.parametrize(
    ("path", "conn_id", "used"),
    [
        ("s3://bucket/launches.jsonl", None, None),
        ("s3://bucket/launches.jsonl", "mine", "mine"),
        ("s3://named@bucket/launches.jsonl", None, "named"),
        ("s3://named@bucket/launches.jsonl", "mine", "mine"),
        ("s3://named@bucket/launches.jsonl?versionId=1", None, "named"),
        ("s3://bucket/by@person/launches.jsonl", None, None),
    ],
)
def test_uses_the_right_connection(path: str, conn_id: str | None, used: str | None, stored: Any) -> None:
    store = stored([b"{}"], used)
    shown = path.replace("named@", "").partition("?")[0]
    assert rows_of(path, conn_id=conn_id) == [(f"line 1 of {shown}", {})]
    assert store.addresses == [path.replace("named@", "")]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("s3://secret@bucket/a@b/launches.csv?sig=secret&x=/", "s3://bucket/a@b/launches.csv"),
        ("s3://bucket/launches.csv?sig=secret.jsonl", "s3://bucket/launches.csv"),
        ("s3://user:secret@bucket/launches.csv?sig=secret", "s3://bucket/launches.csv"),
        ("s3://user:?secret@bucket/launches.csv?sig=secret", "s3://bucket/launches.csv"),
        ("s3://secret@bucket/launches.json?sig=secret.csv", "s3://bucket/launches.json"),
        ("s3://secret@bucket?sig=secret", "s3://bucket"),
    ],
)
@pytest.mark.parametrize("content", [None, b"", b"a,a"])
def test_no_message_shows_secrets_of_a_path(
    path: str, shown: str, content: bytes | None, stored: Any
) -> None:
    stored(None if content is None else [content], "secret" if "secret@" in path else None)
    with pytest.raises(ValueError, match=".") as caught:
        list(batch_input_file.read(path))
    assert shown in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        *[
            (path, rf"^{path} is not a file of launches: its name must end in .jsonl, .ndjson, .csv$")
            for path in ("", "launches", "launches.json", ".csv", "s3://bucket", "s3://bucket/.jsonl/launches.csv.gz")
        ],
        ("s3://user:password@bucket/launches.csv", "^s3://bucket/launches.csv must be given without a password"),
    ],
)  # fmt: skip
def test_invalid_path_is_refused_at_once(path: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        batch_input_file.read(path)


class TestFile:
    def test_is_opened_with_the_first_launch(self, stored: Any) -> None:
        store = stored([b"{}\n{}\n"])
        launches = batch_input_file.read("s3://bucket/launches.jsonl")
        assert store.addresses == []
        next(launches)
        assert not store.opened[0].closed

    def test_is_closed_at_the_end(self, stored: Any) -> None:
        store = stored([b"{}\n{}\n"])
        launches = batch_input_file.read("s3://bucket/launches.jsonl")
        assert len(list(launches)) == 2
        assert store.opened[0].closed

    def test_is_closed_after_a_broken_line(self, stored: Any) -> None:
        store = stored([b"{}\nbroken\n"])
        with pytest.raises(ValueError, match="line 2") as caught:
            list(batch_input_file.read("s3://bucket/launches.jsonl"))
        assert store.opened[0].closed, caught.tb

    @pytest.mark.parametrize("suffix", ["jsonl", "csv"])
    def test_is_closed_when_the_iteration_stops(self, suffix: str, stored: Any) -> None:
        store = stored([b"{}\n{}\n{}\n"])
        launches: Any = batch_input_file.read(f"s3://bucket/launches.{suffix}")
        next(launches)
        launches.close()
        assert store.opened[0].closed

    def test_is_closed_when_the_reader_fails(self, stored: Any) -> None:
        store = stored([b'{"title": 1}\n{}\n'])
        with pytest.raises(ValueError, match="^line 1 of s3://bucket/launches.jsonl: it needs a bpm_name"):
            list(parse_launches(batch_input_file.read("s3://bucket/launches.jsonl")))
        assert store.opened[0].closed

    @pytest.mark.parametrize(
        ("suffix", "header", "line"),
        [
            ("jsonl", b"", json.dumps({"variables": {"a": "x" * 16_000}}).encode() + b"\n"),
            ("csv", b"a\n", b'"' + b"x" * 8_000 + b"\n" + b"x" * 8_000 + b'"\n'),
        ],
    )
    def test_is_never_completely_in_memory(
        self, suffix: str, header: bytes, line: bytes, stored: Any
    ) -> None:
        stored(itertools.chain([header + line], itertools.repeat(line, 4_000)))
        launches = batch_input_file.read(f"s3://bucket/launches.{suffix}")
        tracemalloc.start()
        try:
            count = sum(1 for _ in launches)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert count * len(line) > 60_000_000
        assert most < 1_000_000

    def test_without_line_ends_is_not_read_to_its_end(self, stored: Any) -> None:
        pieces = itertools.repeat(b"x" * 1_000_000, 60)
        stored(pieces)
        with pytest.raises(
            ValueError, match="^line 1 of s3://bucket/launches.jsonl: it is longer than 4194304"
        ):
            next(batch_input_file.read("s3://bucket/launches.jsonl"))
        assert len(list(pieces)) > 50


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def read_back(suffix: str, content: str, encoding: str) -> list[object]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"launches{suffix}")
        path.write_text(content, encoding=encoding, newline="")
        return [launch for _, launch in batch_input_file.read(str(path))]


@settings(deadline=None)
@given(
    launches=st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=5),
    escaped=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig"]),
)
def test_json_lines_round_trip(
    launches: list[dict[str, Any]], escaped: bool, end: str, encoding: str
) -> None:
    content = "".join(json.dumps(launch, ensure_ascii=escaped) + end for launch in launches)
    assert read_back(".jsonl", content, encoding) == launches


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0;\t"), min_size=1).filter(
    lambda name: name == name.strip() and name not in LAUNCH_FIELDS
)


@settings(deadline=None)
@given(
    launches=st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(["bpm_name", "version", "business_key", "title"]), CELLS),
            st.dictionaries(NAMES, CELLS | JSON, max_size=3),
        ).filter(any),
        max_size=5,
    ),
    style=st.sampled_from(
        [
            {"quoting": csv.QUOTE_MINIMAL, "lineterminator": "\r\n"},
            *[{"quoting": csv.QUOTE_ALL, "lineterminator": end} for end in ("\n", "\r\n", "\r")],
        ]
    ),
)
def test_csv_round_trip(launches: list[tuple[dict[str, str], dict[str, Any]]], style: dict[str, Any]) -> None:
    def is_text(value: object) -> bool:
        return isinstance(value, str) and value != "" and "\0" not in value

    rows = [
        {
            **fields,
            **{name: value for name, value in variables.items() if is_text(value)},
            "variables": json.dumps({name: value for name, value in variables.items() if not is_text(value)}),
        }
        for fields, variables in launches
    ]
    content = io.StringIO(newline="")
    columns = list(dict.fromkeys(["variables", *(name for row in rows for name in row)]))
    writer = csv.DictWriter(content, columns, **style)
    writer.writeheader()
    writer.writerows(rows)
    assert read_back(".csv", content.getvalue(), "utf-8-sig") == [
        {**fields, "variables": variables} if variables else fields for fields, variables in launches
    ]


def test_a_header_of_many_columns_takes_no_time(write: Write) -> None:
    names = ",".join(f"{number:x}" for number in range(60_000))
    begun = time.process_time()
    assert rows_of(str(write(".csv", f"{names}\n".encode()))) == []
    assert time.process_time() - begun < 2
