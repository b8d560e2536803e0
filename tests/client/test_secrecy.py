"""A server's words are masked in every form of a secret, shortened and escaped."""

from __future__ import annotations

import base64
import html
import json
import logging
import quopri
import re
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote as percent
from urllib.parse import quote_plus, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.client import _disguises, secrecy

TOKEN = "tokABCdef0123456789ghiJKLmnoPQRstu-_xyz987"
ODD = 'p&s "w"/<9>+ö=x7Qk~A'  # a secret like those that people choose
SECRETS = (TOKEN, ODD)


def lower_percent(text: str) -> str:
    return re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), percent(text, safe=""))


def pieces(text: str, length: int) -> list[str]:
    return [text[at : at + length] for at in range(0, len(text), length)]


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": lambda secret: secret,
    "percent-encoded": lambda secret: percent(secret, safe=""),
    "percent-encoded in lower case": lower_percent,
    "percent-encoded twice": lambda secret: percent(percent(secret, safe="")),
    "as a form": quote_plus,
    "every letter percent-encoded": lambda secret: "".join(f"%{byte:02x}" for byte in secret.encode()),
    "HTML-escaped": html.escape,
    "HTML-escaped by numbers": lambda secret: "".join(f"&#{ord(letter)};" for letter in secret),
    "HTML-escaped by hexadecimal numbers": lambda secret: "".join(f"&#x{ord(each):X};" for each in secret),
    "HTML-escaped in JSON": lambda secret: json.dumps(html.escape(secret)),
    "percent-encoded in HTML": lambda secret: html.escape(percent(secret, safe="")),
    "JSON-escaped": lambda secret: json.dumps(secret)[1:-1],
    "JSON-escaped letter by letter": lambda secret: "".join(f"\\u{ord(each):04x}" for each in secret),
    "JSON in JSON": lambda secret: json.dumps(json.dumps(secret)),
    "as Python writes it": lambda secret: repr(secret.encode()),
    "over lines": lambda secret: "\r\n ".join(pieces(secret, 5)),
    "over lines of HTML": lambda secret: "<br/>".join(pieces(secret, 5)),
    "over lines, percent-encoded": lambda secret: "%0d%0a".join(pieces(secret, 5)),
    "with invisible blanks": "\u200b".join,
    "quoted-printable": lambda secret: quopri.encodestring(secret.encode()).decode(),
    "in UTF-8, read as Latin-1": lambda secret: secret.encode().decode("latin-1"),
    "hexadecimal": lambda secret: secret.encode().hex().upper(),
}
BASE64_FORMS: dict[str, Callable[[str], str]] = {
    "base64": base64_of,
    "base64 of a name and it": lambda secret: base64_of(f"client-id:{secret}"),
    "base64 of a longer name and it": lambda secret: base64_of(f"client-id-1:{secret}"),
    "base64 of another name and it": lambda secret: base64_of(f"client-id-12:{secret}"),
    "base64 over lines": lambda secret: "\n".join(pieces(base64_of(f"a:{secret}"), 7)),
    "base64, percent-encoded": lambda secret: percent(base64_of(f"a:{secret}"), safe=""),
    "base64 for URLs": lambda secret: base64.urlsafe_b64encode(secret.encode()).decode(),
}
PLAIN = re.compile(r"[A-Za-z0-9]")


@pytest.mark.parametrize("secret", SECRETS, ids=["token", "odd"])
class TestRepeatedSecret:
    @pytest.mark.parametrize("form", FORMS)
    def test_is_masked(self, form: str, secret: str) -> None:
        said = f"no client with {FORMS[form](secret)} here"
        shown = secrecy.quote(said, SECRETS)
        assert re.sub(r"[\\'\"b]", "", shown) == "no client with *** here"
        assert secrecy.masked(said, SECRETS).count(secrecy.MASK) == 1

    @pytest.mark.parametrize("form", BASE64_FORMS)
    def test_is_masked_in_base64_except_for_border_letters(self, form: str, secret: str) -> None:
        encoded = BASE64_FORMS[form](secret)
        shown = secrecy.quote(f"no client with {encoded} here", SECRETS)
        before, _, after = shown.removeprefix("no client with").removesuffix("here").partition(secrecy.MASK)
        assert len(PLAIN.findall(after.replace("%3D", ""))) <= 1
        assert before.strip().replace(" ", "") in re.sub(r"\s", "", encoded)
        assert len(base64.b64decode(before.strip()[: len(before.strip()) // 4 * 4])) <= len("client-id-12:")

    @pytest.mark.parametrize("form", [*FORMS, *BASE64_FORMS])
    def test_is_masked_in_data(self, form: str, secret: str) -> None:
        encoded = (FORMS | BASE64_FORMS)[form](secret)
        body = json.dumps({"rows": [{"id": "1", encoded: [encoded, 1.5, None]}]}).encode()
        row = json.loads(secrecy.masked_json(body, SECRETS))["rows"][0]
        name = next(key for key in row if key != "id")
        assert row["id"] == "1"
        assert row[name][1:] == [1.5, None]
        assert secrecy.MASK_IN_DATA in name
        assert secrecy.MASK_IN_DATA in row[name][0]

    def test_is_masked_if_it_is_the_whole_text(self, secret: str) -> None:
        assert secrecy.quote(secret, SECRETS) == "***"
        assert secrecy.quote(secret * 3, SECRETS) == "***" * 3


def test_part_of_a_long_secret_is_masked() -> None:
    assert secrecy.quote(f"the token {TOKEN[:20]}… is bad", SECRETS) == "the token ***… is bad"
    assert secrecy.quote(f"{TOKEN[11:31]} is bad", SECRETS) == "*** is bad"
    assert secrecy.quote(f"lines {TOKEN[:15]} / {TOKEN[15:]}", SECRETS) == "lines *** / ***"


@given(st.integers(0, len(TOKEN)), st.integers(0, len(TOKEN)))
def test_every_sufficiently_long_part_is_masked(start: int, end: int) -> None:
    part = TOKEN[start:end]
    assert (secrecy.quote(f"<{part}>", SECRETS) == "<***>") == (len(part) >= _disguises.MIN_PART_CHARS)


@given(st.text(min_size=1, max_size=40), st.text(max_size=30), st.text(max_size=30))
def test_no_secret_is_ever_shown(secret: str, before: str, after: str) -> None:
    shown = secrecy.masked(f"{before}{secret}{after}", [secret])
    stripped = secret.strip()
    if stripped and stripped not in f"{before} {after}" and "*" not in stripped:
        assert stripped not in shown


def test_nothing_is_masked_without_a_secret() -> None:
    said = "instance 'a%20b' &amp; \\u0041 of 'SupplierOnboarding' in state 'Running'"
    assert secrecy.quote(said, SECRETS) == said
    assert secrecy.quote(said, ("", "")) == said
    assert secrecy.masked(f"{said}\n", SECRETS) == f"{said}\n"


def test_secret_at_the_cut_is_not_shown_in_part() -> None:
    for length in range(430, 510):
        shown = secrecy.quote("x" * length + TOKEN + "y" * 9000, SECRETS)
        assert set(shown) <= set("x*y…")
        assert len(shown) <= secrecy.MAX_QUOTE_CHARS + 1
    for length in range(4030, 4110):
        assert TOKEN[:6] not in secrecy.quote(" " * length + TOKEN, SECRETS)
        assert ODD[:4] not in secrecy.quote(" " * length + ODD, SECRETS)


def test_ellipsis_marks_a_cut() -> None:
    assert secrecy.quote("a\n\n b\t c", ()) == "a b c"
    assert secrecy.quote("x" * 500, ()) == "x" * 500
    assert secrecy.quote("x" * 501, ()) == "x" * 500 + "…"
    assert secrecy.quote("x" * 50, (), 10) == "x" * 10 + "…"


def test_line_break_tag_with_a_wide_blank_is_a_break() -> None:
    """An HTML page of a gateway may have a no-break space in a tag."""
    for tag in ("<br>", "<\xa0br>", "<br\u2003/>"):
        assert secrecy.quote(f"{TOKEN[:9]}{tag}{TOKEN[9:]} is bad", SECRETS) == "*** is bad"
        assert secrecy.quote(f"no{tag}secret", SECRETS) == " ".join(f"no{tag}secret".split())


def test_control_characters_are_escaped() -> None:
    assert secrecy.quote("a\x1b[31mb\u202ec\x07", ()) == "a\\x1b[31mb\\u202ec\\x07"
    assert secrecy.quote("two\r\nlines\x85and\u2028three", ()) == "two lines and three"
    assert secrecy.quote("a\0b\ud800c", ()) == "a\ufffdb\ufffdc"
    assert secrecy.quote("Ätna \\ 名", ()) == "Ätna \\ 名"


@pytest.mark.parametrize(
    "said",
    ["&amp;%41\\u0041" * 500_000, TOKEN * 100_000, " " * 5_000_000, "%25" * 1_000_000, "<br" * 1_000_000],
    ids=["escapes", "tokens", "blanks", "percents", "tags"],
)
def test_quote_is_fast_for_any_text(said: str) -> None:
    began = time.process_time()
    secrecy.quote(said, SECRETS)
    assert time.process_time() - began < 2


class TestData:
    def test_without_a_secret_is_unchanged(self) -> None:
        for body in (b'{"a": 1.50, "b": "\\u0026 &#228; %41%42"}', b"<html>", b"", b"[[", b'"\xff"'):
            assert secrecy.masked_json(body, SECRETS) is body

    def test_short_secrets_are_not_masked(self) -> None:
        body = b'{"businessKey": "secret-4711"}'
        assert secrecy.masked_json(body, ("secret-4711", "")) is body

    def test_parts_of_secrets_are_not_masked(self) -> None:
        body = json.dumps({"name": "SupplierOnboarding", "title": "of\ntwo lines"}).encode()
        assert secrecy.masked_json(body, ("SupplierOnboarding-in-production",)) is body

    def test_masked_document_can_be_stored(self) -> None:
        body = f'{{"title": "{TOKEN}", "state": "Run\0ning \\ud83d"}}'.encode()
        assert json.loads(secrecy.masked_json(body, SECRETS))["state"] == "Run\ufffdning \ufffd"

    def test_masked_text_is_not_a_valid_name(self) -> None:
        assert secrecy.MASK_IN_DATA == "\ufffd\ufffd\ufffd"

    def test_mask_in_data_is_shown_as_the_usual_mask_in_errors(self) -> None:
        (said,) = json.loads(secrecy.masked_json(json.dumps([f"a {TOKEN} b"]).encode(), SECRETS))
        assert secrecy.quote(said, SECRETS) == "a *** b"

    def test_too_deeply_nested_data_is_masked_completely(self) -> None:
        body = b"[" * 100_000 + json.dumps(TOKEN).encode() + b"]" * 100_000
        assert TOKEN.encode() not in secrecy.masked_json(body, SECRETS)

    def test_body_full_of_possible_secrets_is_fast(self) -> None:
        body = json.dumps([f"&#65;&#66;{number} %41%42 {TOKEN}" for number in range(50_000)]).encode()
        began = time.process_time()
        masked = secrecy.masked_json(body, SECRETS)
        assert time.process_time() - began < 20
        assert TOKEN.encode() not in masked


PIECES = [
    "\\\\",
    "u20",
    "0b",
    "u0041",
    "x4",
    "1",
    '"',
    "&",
    "#",
    "39",
    ";",
    "%",
    "25",
    "41",
    "é",
    "\u200b",
    "n ",
    "a",
]


@given(st.lists(st.sampled_from(PIECES)).map("".join), st.integers(1, 9))
@pytest.mark.parametrize(
    "change", [_disguises._without_escapes, _disguises._without_entities, unquote_to_bytes]
)
def test_a_long_text_is_changed_by_parts_as_it_would_be_at_once(
    change: Callable[[bytes], bytes], text: str, size: int
) -> None:
    raw = text.encode()
    assert _disguises._by_parts(raw, change, size) == change(raw)


def test_no_part_is_longer_than_the_limit_and_the_text_to_the_next_quotation_mark() -> None:
    lengths: list[int] = []

    def change(part: bytes) -> bytes:
        lengths.append(len(part))
        return part

    raw = b'"abc",' * 100
    assert _disguises._by_parts(raw, change, 10) == raw
    assert max(lengths) <= 10


class TestLibraryFilter:
    @pytest.fixture
    def log(self) -> Iterator[tuple[logging.Logger, list[logging.LogRecord]]]:
        """A logger of a separate library, and its records."""
        records: list[logging.LogRecord] = []
        logger = logging.getLogger("library_of_a_test.http")

        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                records.append(record)

        handler = Handler()
        logger.addHandler(handler)
        yield logger, records
        logger.removeHandler(handler)
        for each in tuple(logger.filters):
            logger.removeFilter(each)

    def test_masks_records_while_a_request_is_sent(
        self, log: tuple[logging.Logger, list[logging.LogRecord]]
    ) -> None:
        logger, records = log
        for _ in range(2):
            secrecy.LibraryFilter(lambda: SECRETS).attach("library_of_a_test")
        error = ValueError(f"no header: {TOKEN}")
        logger.warning("Failed to parse %s: %s", TOKEN, error, exc_info=error)
        (record,) = records
        assert record.getMessage() == "Failed to parse ***: no header: ***"
        assert record.exc_info is None

    def test_leaves_other_records_unchanged(
        self, log: tuple[logging.Logger, list[logging.LogRecord]]
    ) -> None:
        logger, records = log
        secrecy.LibraryFilter(lambda: None).attach("library_of_a_test")
        logger.warning("Failed\n%s", "x" * 1000)
        assert records[0].getMessage() == "Failed\n" + "x" * 1000

    def test_unformattable_record_does_not_break_the_call(
        self, log: tuple[logging.Logger, list[logging.LogRecord]]
    ) -> None:
        logger, records = log
        secrecy.LibraryFilter(lambda: SECRETS).attach("library_of_a_test")
        logger.warning("%d", "no number")
        assert records[0].getMessage() == "a log message that cannot be formatted (TypeError)"


def test_a_broken_tag_with_many_blanks_takes_no_time() -> None:
    text = f"{TOKEN}<br{' ' * 60_000}"
    begun = time.process_time()
    assert TOKEN not in secrecy.masked(text, SECRETS)
    assert time.process_time() - begun < 1
