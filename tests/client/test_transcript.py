"""What a transcript keeps and what it replaces."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.client import _disguises, _failures, operations
from airflow_provider_astrobpm.client.errors import (
    AstroZeroError,
    InterruptedCallError,
    NotSentError,
    SettingsError,
    TlsError,
    UnexpectedAnswerError,
)
from airflow_provider_astrobpm.client.protocol import Request, Response
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings
from airflow_provider_astrobpm.client.stand_ins import MARK, StandIns
from airflow_provider_astrobpm.client.states import STATES
from airflow_provider_astrobpm.client.transcript import (
    FIELDS,
    MAX_BODY_BYTES,
    Exchange,
    entry,
    failure_name,
    heading,
)
from tests.support.echoing import shown_in

SALT = b"\1" * 32
STAND_INS = StandIns(SALT)
INSTANCES = operations.INSTANCES_PATH
NOW = 1_800_000_000.0


def shown(
    request: Request | None = None,
    answer: object = None,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    raw: bytes | None = None,
) -> dict[str, Any]:
    """Return the entry of an exchange."""
    body = json.dumps(answer).encode() if raw is None else raw
    response = Response(status, {"content-type": "application/json", **(headers or {})}, body)
    return entry(Exchange(request or sent(), response, NOW, 0.25), STAND_INS)


def sent(
    method: str = "GET", target: str = INSTANCES, body: object = None, kind: str = "", **headers: str
) -> Request:
    raw = None if body is None else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method, target, {"content-type": "application/json", **names}, raw, kind)


def answered(answer: object, **arguments: Any) -> Any:
    return shown(answer=answer, **arguments)["answer"]["body"]


def is_replaced(value: object) -> bool:
    return (isinstance(value, str) and value.startswith(MARK)) or (
        isinstance(value, dict) and value.keys() == {MARK}
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("state", state) for state in STATES),
        ("resCode", "0"),
        ("resCode", 0),
        ("resCode", "405230602"),
        ("resCode", "astrozero.0002"),
        ("resMsg", "Success"),
        ("resMsg", "成功"),
        ("suspended", True),
        ("isClosed", "false"),
        ("urgency", 3),
        ("startTime", "2026-11-24 10:00:00"),
        ("startTime", " 2026/11/24 10:00:00"),
        ("endTime", "-"),
        ("startTime", "2026-11-24T10:00:00.123+08:00"),
        ("createdBy.__objectType", "User"),
        ("expires_in", 600),
        ("expires_in", "600"),
        ("suspended", 1),
        ("suspended", "0"),
        ("isClosed", " TRUE "),
        ("isClosed", 2),
        ("expires_in", -1),
        ("token_type", "Bearer"),
        ("error", "unauthorized_client"),
        ("status", "Warning"),
        ("id", None),
        ("title", ""),
        ("title", " "),
        ("result", []),
        ("result", {}),
    ],
)
def test_kept(field: str, value: object) -> None:
    assert answered({field: value}) == {field: value}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("state", "In Anna's hands"),
        ("resCode", "acme__NoBudget"),
        ("resCode", True),
        ("resMsg", "Anna Miller has no permission"),
        ("suspended", "by Anna"),
        ("urgency", True),
        ("startTime", "when Anna came"),
        ("startTime", "13800138000"),
        ("urgency", 13_800_138_000),
        ("expires_in", "13800138000"),
        ("createdBy.__objectType", "Anna"),
        ("expires_in", "ten minutes"),
        ("error", "anna_is_locked"),
        ("bpStatus", "Approved"),
        ("id", 7),
        ("id", "002N000000Sy2NphoRbU"),
        ("title", "Invoice 7"),
        ("lastHandler", "Anna"),
        ("version", "1.0.0"),
        ("Ext7", 12),
        ("client_secret", "s"),
        ("access_token", "t"),
        ("anything", "else"),
    ],
)
def test_replaced(field: str, value: object) -> None:
    ((name, stand_in),) = answered({field: value}).items()
    assert is_replaced(stand_in)
    assert name == field if field != "anything" else is_replaced(name)


def test_types_and_structure_stay() -> None:
    answer = {"result": [{"id": 7, "title": None, "suspended": "seven"}, ["x", 1.5, True], {}]}
    one, two, three = answered(answer)["result"]
    assert type(one["id"][MARK]) is int
    assert one["title"] is None
    assert one["suspended"].startswith(MARK)
    assert (type(two[0]), type(two[1][MARK]), type(two[2][MARK])) == (str, float, bool)
    assert three == {}


def test_inside_an_unknown_field_every_name_and_value_is_replaced() -> None:
    """A server may repeat variables under any name, and variables may have the names of fields."""
    fields = {"startTime": "1980-05-17", "urgency": 7, "status": "Pass", "active": True, "resCode": "0"}
    ((name, (first, second)),) = answered({"inputs": [fields, {"deep": [fields], "result": fields}]}).items()
    assert is_replaced(name)
    assert len(first) == len(fields)
    assert all(is_replaced(each) for pair in first.items() for each in pair)
    deep, result = second.values()
    assert deep == [result] == [first]


def test_a_secret_inside_an_unknown_field_stays_a_secret() -> None:
    token = answered({"access_token": "token 1"})["access_token"]
    ((inner,),) = [each.values() for each in answered({"data": {"access_token": "token 1"}}).values()]
    assert inner == token


def test_fields_of_documented_objects_are_kept() -> None:
    row = {"state": "Running", "urgency": 3}
    answers: list[object] = [row, [row], [[row]], {"result": row}, {"result": [row]}]
    answers += [{"result": {"elements": [row], "config": row}}]
    for answer in answers:
        assert answered(answer) == answer


def test_an_absent_field_stays_absent() -> None:
    assert answered({"resCode": "0"}) == {"resCode": "0"}


def test_same_values_have_the_same_stand_in_wherever_they_are() -> None:
    key = "orders.approve-1"
    request = sent("POST", body={"name": "P", "variables": {operations.BUSINESS_KEY_VARIABLE: key, "x": key}})
    found = shown(request, {"result": {"businessKey": key, "name": "P"}})
    body, result = found["request"]["body"], found["answer"]["body"]["result"]
    assert body["name"] == result["name"]
    assert body["variables"][operations.BUSINESS_KEY_VARIABLE] == result["businessKey"]
    assert sorted(map(is_replaced, body["variables"])) == [False, True]


def test_inside_variables_every_name_and_value_is_replaced() -> None:
    request = sent(
        "POST", body={"name": "P", "variables": {"state": "Running", "deep": {"active": [True, 1, "0"]}}}
    )
    variables = shown(request)["request"]["body"]["variables"]
    state, deep = variables.values()
    assert all(map(is_replaced, [*variables, state, *deep, *next(iter(deep.values()))]))


@pytest.mark.parametrize("kind", ["variables", "get_variables"])
def test_variables_of_an_instance_are_replaced(kind: str) -> None:
    request = sent("PUT", f"{INSTANCES}/002N1/variables", {"state": "Running"}, kind)
    found = shown(request, {"resCode": "0", "result": {"state": "Running"}})
    assert all(is_replaced(each) for pair in found["request"]["body"].items() for each in pair)
    assert found["answer"]["body"]["resCode"] == "0"
    assert all(is_replaced(each) for pair in found["answer"]["body"]["result"].items() for each in pair)


@pytest.mark.parametrize(
    ("target", "pattern"),
    [
        (INSTANCES, INSTANCES),
        (f"{INSTANCES}/002N000/variables", f"{INSTANCES}/~/variables"),
        (f"{operations.DEFINITIONS_PATH}/001L", f"{operations.DEFINITIONS_PATH}/~"),
        ("/service/acme__app/1.0.0/anna", "/~/~/~/~"),
        (f"{INSTANCES}?states=Completed%20OK&orderType=desc", f"{INSTANCES}?states=Completed%20OK&orderType=desc"),
        (f"{INSTANCES}?states=Completed+OK%2CBroken", f"{INSTANCES}?states=Completed+OK%2CBroken"),
        (f"{INSTANCES}?states=New,Odd", f"{INSTANCES}?states=New,~"),
        (f"{INSTANCES}?states=New&fields=id%2Cname%2Cacme", f"{INSTANCES}?states=New&fields=id%2Cname%2C~"),
        (f"{operations.DEFINITIONS_PATH}?name=Anna%20Flow&limit=1", f"{operations.DEFINITIONS_PATH}?name=~&limit=1"),
        ("/x?who=Anna", "/~?~=~"),
        ("/x?states=&states", "/~?states=&states"),
    ],
)  # fmt: skip
def test_addresses(target: str, pattern: str) -> None:
    found = shown(sent(target=target))["request"]["target"]
    parts = [f"{MARK}" if part.startswith(MARK) else part for part in _split(found)]
    assert parts == _split(pattern)


def _split(target: str) -> list[str]:
    for separator in ("?", "&", "=", ",", "%2C"):
        target = target.replace(separator, f"/{separator}/")
    return target.split("/")


def test_credentials_and_tokens_show_only_whether_they_are_equal() -> None:
    operation = operations.get_token("the client", "the secret")
    request = Request(
        "POST", operation.target, {"content-type": operation.content_type}, operation.body, "token"
    )
    issued = shown(request, {"access_token": "token 1", "expires_in": 600})
    body = issued["request"]["body"]
    assert body["grant_type"] == "client_credentials"
    assert body["client_secret"].startswith("~secret-")
    used = shown(sent(access_token="token 1", csrf_token="csrf 1"))["request"]
    assert used["token"] == issued["answer"]["body"]["access_token"]
    csrf = shown(sent(kind="csrf"), {"resCode": "0", "result": "csrf 1"})
    assert csrf["answer"]["body"]["result"] == used["csrf_token"]


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("content-type", "text/html; charset=UTF-8", True),
        ("content-type", "text/html; acme=1", False),
        ("retry-after", "7", True),
        ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT", True),
        ("retry-after", "ask Anna", False),
    ],
)
def test_headers(name: str, value: str, kept: bool) -> None:
    found = shown(headers={name: value})["answer"]["headers"][name]
    assert (found == value) is kept
    assert kept or is_replaced(found)


def test_other_headers_are_left_out_and_redirects_show_only_their_scheme() -> None:
    found = shown(headers={"set-cookie": "a=b", "server": "acme", "location": "https://acme.example/x"})
    assert set(found["answer"]["headers"]) == {"content-type", "location"}
    assert found["answer"]["headers"]["location"].startswith("https://~")


@pytest.mark.parametrize(
    ("raw", "form"),
    [
        (b"", "blank"),
        (b" \n", "blank"),
        (b"<!DOCTYPE html><p>Anna", "html"),
        (b"  <HTML>", "html"),
        (b'{"a": Anna', "broken JSON"),
        (b"[" * 100_000, "broken JSON"),
        (b"Anna is out", "text"),
        (b"\xff\xfe", "text"),
        (b'"' + b"x" * MAX_BODY_BYTES + b'"', "long"),
    ],
)
def test_what_is_not_json_shows_only_its_form_and_length(raw: bytes, form: str) -> None:
    found = shown(raw=raw, status=502)["answer"]
    assert found["omitted"] == {"form": form, "bytes": len(raw)}
    assert "body" not in found


def test_byte_order_mark_and_invalid_characters_show() -> None:
    found = shown(raw=b'\xef\xbb\xbf{"resMsg": "a\xffb\\u0000\\ud83d\n"}')["answer"]
    assert found["byte_order_mark"]
    assert [each for each in found["body"]["resMsg"] if not each.isalpha()] == [
        MARK,
        "\ufffd",
        "\0",
        "\ud83d",
        "\n",
    ]


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (NotSentError("x"), "not_sent"),
        (TlsError("x"), "not_sent"),
        (SettingsError("x", "c"), "not_sent"),
        (InterruptedCallError("x"), "connection_lost"),
        (UnexpectedAnswerError("x"), "not_decompressed"),
        (_failures.answer_too_long(9, 200), "answer_too_long"),
    ],
)
def test_failures(error: AstroZeroError, name: str) -> None:
    assert failure_name(error) == name


def test_failure_of_an_answer_that_did_not_come_in_time() -> None:
    error = InterruptedCallError("x")
    error.timed_out = True
    assert failure_name(error) == "no_answer"


def test_heading_names_no_connection_and_no_path() -> None:
    settings = Settings(
        "anna", "https://acme.example", ClientCredentials("anna", "anna"), verify="/anna", proxy="http://anna"
    )
    assert "anna" not in json.dumps(heading(settings, "1.2.3"))
    assert "acme" not in json.dumps(heading(settings, "1.2.3"))


LETTERS = st.characters(exclude_categories=("Cs", "Cc", "Cf", "Zs", "Zl", "Zp"))
DISTINCTIVE = st.text(
    st.characters(codec="ascii", categories=("L", "N")) | st.sampled_from("&<>'\"/+=%@ ") | LETTERS,
    min_size=12,
    max_size=40,
).filter(
    # Hypothesis also tries names that stand in the code, which are no values.
    lambda text: sum(each.isalnum() for each in text) > 9 and not re.fullmatch("[A-Za-z_. /-]+", text)
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)


@given(st.data(), st.lists(DISTINCTIVE, min_size=4, max_size=4), SCALARS)
def test_no_value_can_be_read_in_an_entry(data: st.DataObject, values: list[str], scalar: object) -> None:
    """Wherever a server or a task puts a value, no encoding of it is in the entry."""
    place = st.sampled_from(values) | st.just(scalar)
    names = st.sampled_from([*FIELDS, "variables", "result", "rows", *values])
    document = st.recursive(
        place, lambda inner: st.dictionaries(names, inner) | st.lists(inner, max_size=3), max_leaves=8
    )
    said = values[0].encode().hex() + quote(values[1], safe="")
    target = f"{INSTANCES}/{quote(values[2], safe='')}?" + urlencode(
        {values[3]: values[0], "states": values[1], "name": values[2]}
    )
    headers = {"access-token": values[0], "csrf-token": values[1], "content-type": values[2]}
    body = json.dumps(data.draw(document)).encode()
    request = Request("PUT", target, headers, body, data.draw(st.sampled_from(["start", "csrf", "token"])))
    answer = json.dumps(
        {"resMsg": said, "result": data.draw(document), values[0]: data.draw(document)}
    ).encode()
    response = Response(
        400, dict.fromkeys(("content-type", "retry-after", "location", "server"), values[3]), answer
    )
    text = json.dumps(entry(Exchange(request, response, NOW, 1.0), StandIns(b"\3" * 32)))
    assert not [value for value in values if shown_in(text, value)]
    assert not _disguises.spans(text, tuple(values))
