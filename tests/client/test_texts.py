"""Texts for Airflow contain nothing that its database refuses, and replaced characters are visible."""

from __future__ import annotations

import codecs
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.client import texts

TABLE: list[tuple[str, str]] = [
    ("", ""),
    ("Approved", "Approved"),
    ("Appr\0oved", "Appr\ufffdoved"),
    ("\0", "\ufffd"),
    ("half \ud83d", "half \ufffd"),
    ("\udc00 half", "\ufffd half"),
    ("\ud83d\ud83d", "\ufffd\ufffd"),
    ("\udc00\ud83d", "\ufffd\ufffd"),
    ("a whole one \U0001f600", "a whole one \U0001f600"),
    ("written out: \\u0000 \\ud83d", "written out: \\u0000 \\ud83d"),
    ("\\\0", "\\\ufffd"),
    ("审批\t\n", "审批\t\n"),
]


@pytest.mark.parametrize(("given_text", "cleaned"), TABLE)
def test_storable_follows_the_table(given_text: str, cleaned: str) -> None:
    assert texts.storable(given_text) == cleaned
    assert texts.is_storable(given_text) is (given_text == cleaned)
    body = json.dumps({given_text: [given_text, 1, None]}).encode()
    assert json.loads(texts.storable_json(body)) == {cleaned: [cleaned, 1, None]}


def test_nested_values_are_cleaned_and_clean_values_are_not_copied() -> None:
    clean = {"a": [1, None, {"b": "c"}], "d": ("e", True)}
    assert texts.storable(clean) is clean
    assert texts.storable({"a\0": [{"b": "\ud800"}], "c": ("\0", 1.5)}) == {
        "a\ufffd": [{"b": "\ufffd"}],
        "c": ["\ufffd", 1.5],
    }


def test_byte_order_mark_and_invalid_utf_8() -> None:
    assert texts.storable_json(codecs.BOM_UTF8 + b'{"a": "b"}') == b'{"a": "b"}'
    assert json.loads(texts.storable_json(b'{"a": "Appr\xffoved"}')) == {"a": "Appr\ufffdoved"}
    encoded = '{"a": "\ud83d"}'.encode(errors="surrogatepass")
    assert json.loads(texts.storable_json(encoded))["a"].strip("\ufffd") == ""


def test_control_characters_in_strings() -> None:
    assert json.loads(texts.strict_json(b'{"a": "b\tc\0d", "e": NaN}')) == {"a": "b\tc\ufffdd", "e": None}
    with pytest.raises(ValueError, match="Expecting value"):
        texts.strict_json(b"<html>")


@given(body=st.binary(max_size=60))
def test_invalid_json_raises_nothing(body: bytes) -> None:
    assert isinstance(texts.storable_json(body), bytes)


CHARACTERS = st.sampled_from(["a", "\\", '"', "u0000", "ud83d", "\0", "\ud83d", "\ude00", "\U0001f600", "é"])
TEXTS = st.lists(CHARACTERS, max_size=8).map("".join)
PLAIN = st.recursive(
    st.none() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(value=PLAIN)
def test_storable_json_equals_storable(value: Any) -> None:
    # json.dumps writes two adjacent halves like a pair, and a parser reads them as one.
    written = json.dumps(value)
    cleaned = json.loads(texts.storable_json(written.encode()))
    assert cleaned == texts.storable(json.loads(written))
    assert msgspec.json.decode(texts.storable_json(written.encode())) == cleaned
    assert msgspec.json.decode(msgspec.json.encode(cleaned)) == cleaned
    assert "\\u0000" not in json.dumps(cleaned).replace("\\\\", "")
