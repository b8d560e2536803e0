"""Decoding of both wire shapes. The bodies are the examples of the API reference."""

from __future__ import annotations

import json
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.wire import (
    UnreadableRow,
    WireInstance,
    decode_definitions,
    decode_instance,
    decode_rows,
    decode_started,
    row_count,
)

# API page 0069, "Starting a BPM Instance".
STARTED = {
    "name": "bpName1", "version": "1.0.1", "id": "002N000000Sy2NphoRbU", "processDefID": "001L000000S8Yi3xG9Gi",
    "interviewLabel": "BP Label 1", "nextElem": "subProcess", "isTest": True, "state": "Dispatched",
    "bpStatus": "New", "urgency": 0, "taskOutcome": "", "businessKey": "002N000000Sy2NphoRbU",
    "startTime": "2019-08-27 10:53:04", "endTime": "", "Ext1": "", "Ext2": "", "Ext3": "", "Ext4": "", "Ext5": "",
    "Ext6": "", "Ext7": 0, "Ext8": 0, "suspended": False, "isClosed": False,
}  # fmt: skip

# API page 0071, "Suspending, Resuming, or Terminating a BPM Instance".
SUSPENDED = {
    "name": "SimpleBP", "version": "1.0.1", "id": "002N000000Q3QW4IMAOO", "processDefID": "001L000000Peuw1Q318a",
    "interviewLabel": "SimpleBP 2019-05-10 15:14:09", "nextElem": "", "isTest": True, "state": "New",
    "bpStatus": "New", "urgency": 0, "taskOutcome": "", "businessKey": "002N000000Q3QW4IMAOO",
    "startTime": "2019-05-10 15:14:09", "endTime": "", "Ext1": "", "Ext2": "", "Ext3": "", "Ext4": "", "Ext5": "",
    "Ext6": "", "Ext7": 0, "Ext8": 0, "suspended": True, "isClosed": False,
}  # fmt: skip

# A row with every field that API page 0070, "Querying BPM Instances", names for rows.
ROW = {
    "id": "002N000000Q3QW4IMAOO", "name": "SimpleBP", "version": "1.0.1", "label": "SimpleBP 2019-05-10 15:14:09",
    "title": "", "type": "BP", "state": "New", "suspended": True, "bpStage": "", "bpStatus": "New", "bpStep": "",
    "curElement": "", "description": "", "businessKey": "002N000000Q3QW4IMAOO", "urgency": 0,
    "startTime": "2019-05-10 15:14:09", "endTime": "", "createdDate": "2019-05-10 15:14:09",
    "lastModifiedDate": "2019-05-10 15:14:09", "lastHandler": None, "createdBy": "10gd000000Pdu9tPx6oS",
    "createdBy.name": "user1", "createdBy.__objectType": "User", "lastModifiedBy": "10gd000000Pdu9tPx6oS",
    "lastModifiedBy.name": "user1", "lastModifiedBy.__objectType": "User", "owner": "10gd000000Pdu9tPx6oS",
    "owner.name": "user1", "owner.__objectType": "User",
}  # fmt: skip


def decoded(body: dict[str, Any]) -> BpmInstance:
    return decode_instance(json.dumps(body).encode())


def test_start_answer_is_decoded() -> None:
    assert decoded(STARTED) == BpmInstance(
        id="002N000000Sy2NphoRbU",
        name="bpName1",
        version="1.0.1",
        state="Dispatched",
        bp_status="New",
        task_outcome=None,
        suspended=False,
        is_closed=False,
        business_key="002N000000Sy2NphoRbU",
        label="BP Label 1",
        title=None,
        current_element="subProcess",
        start_time="2019-08-27 10:53:04",
        end_time=None,
    )


def test_action_answer_and_row_of_one_instance_are_equal() -> None:
    (row,) = decode_rows(json.dumps([ROW]).encode())
    assert row == decoded(SUSPENDED)
    assert row.suspended


@pytest.mark.parametrize(
    ("change", "suspended", "closed"),
    [
        ({}, False, False),
        ({"suspended": True}, True, False),
        ({"state": "Suspended"}, True, False),
        ({"state": "Completed OK"}, False, True),
        ({"state": "Terminated"}, False, True),
        ({"state": "Broken"}, False, True),
        ({"isClosed": True}, False, True),
        ({"state": "Something New"}, False, False),
        ({"suspended": None, "isClosed": None}, False, False),
    ],
)
def test_flag_and_state_both_count_for_suspended_and_closed(
    change: dict[str, Any], suspended: bool, closed: bool
) -> None:
    instance = decoded({**STARTED, **change})
    assert (instance.suspended, instance.is_closed) == (suspended, closed)


# Fields of an action's answer or a row, and how they are decoded; ``None`` for an unreadable field that decides something.
ODD_FIELDS: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    ({"id": 7}, {"id": "7"}),
    ({"name": 3}, {"name": "3"}),
    ({"version": 2}, {"version": "2"}),
    ({"version": 1.5}, {"version": "1.5"}),
    ({"title": 7, "label": 8}, {"title": "7", "label": "8"}),
    ({"title": ["a"], "startTime": {}}, {"title": None, "start_time": None}),
    ({"title": True}, {"title": None}),
    ({"startTime": 1566874384000}, {"start_time": "1566874384000"}),
    ({"businessKey": 4711}, {"business_key": "4711"}),
    ({"businessKey": ""}, {"business_key": None}),
    ({"businessKey": " "}, {"business_key": None}),
    ({"businessKey": " k "}, {"business_key": "k"}),
    ({"bpStatus": 3}, {"bp_status": "3"}),
    ({"bpStatus": None}, {"bp_status": None}),
    ({"bpStatus": " Approved\u3000\n"}, {"bp_status": "Approved"}),
    ({"bpStatus": "  "}, {"bp_status": None}),
    ({"suspended": "true"}, {"suspended": True}),
    ({"suspended": "False"}, {"suspended": False}),
    ({"suspended": 1}, {"suspended": True}),
    ({"suspended": "0"}, {"suspended": False}),
    ({"suspended": ""}, {"suspended": False}),
    ({"isClosed": "true"}, {"is_closed": True}),
    ({"id": None}, None),
    ({"id": ""}, None),
    ({"id": 1.5}, None),
    *[({"id": odd}, None) for odd in (" ", "..", "None", "null", "undefined", "[]", "002N\ufffd")],
    *[({"id": fine}, {"id": fine}) for fine in ("a-b", "002N.1", "订单1", "None1", " x")],
    ({"id": True}, None),
    ({"name": None}, None),
    ({"name": ""}, None),
    ({"state": None}, None),
    ({"state": 7}, None),
    ({"state": ["Completed OK"]}, None),
    ({"suspended": "yes"}, None),
    ({"suspended": 2}, None),
    ({"isClosed": {}}, None),
    ({"bpStatus": {}}, None),
    ({"bpStatus": True}, None),
    ({"businessKey": 1.5}, None),
    ({"businessKey": []}, None),
    ({"name": "Publish\ufffdApproval"}, None),
    ({"state": "Termin\ufffdated"}, None),
    ({"businessKey": "order\ufffd17"}, None),
    ({"bpStatus": "Appr\ufffdoved"}, {"bp_status": "Appr\ufffdoved"}),
    ({"title": "\ufffd"}, {"title": "\ufffd"}),
]


@pytest.mark.parametrize(("change", "shown"), ODD_FIELDS)
def test_invalid_fields_of_an_action_and_of_a_row(
    change: dict[str, Any], shown: dict[str, Any] | None
) -> None:
    other = {**ROW, "id": "2", "state": "Running"}
    rows = decode_rows(json.dumps([other, {**ROW, **change}, other]).encode())
    if shown is None:
        with pytest.raises(msgspec.ValidationError):
            decoded({**STARTED, **change})
        (odd,) = rows.unreadable
        assert (len(rows), row_count(rows)) == (2, 3)
        assert odd.unread == set(change)
        assert odd.id == (None if "id" in change else ROW["id"])
        assert odd.name == (None if "name" in change else ROW["name"])
        assert odd.business_key == (None if "businessKey" in change else ROW["businessKey"])
        (field,) = change
        assert f"its {field} is " in odd.reason
    else:
        action = decoded({**STARTED, **change})
        assert {field: getattr(action, field) for field in shown} == shown
        assert not rows.unreadable
        assert {field: getattr(rows[1], field) for field in shown} == shown
    assert [row.id for row in rows if row.state == "Running"] == ["2", "2"]


@pytest.mark.parametrize("missing", ["id", "name", "state"])
def test_required_fields(missing: str) -> None:
    without = {key: value for key, value in STARTED.items() if key != missing}
    with pytest.raises(msgspec.ValidationError, match=missing):
        decoded(without)
    rows = decode_rows(json.dumps([without, STARTED]).encode())
    assert len(rows) == 1
    assert rows.unreadable[0].reason == f"its {missing} is missing"


@pytest.mark.parametrize(("change", "_shown"), ODD_FIELDS)
def test_start_answer_with_an_id_counts_as_started(change: dict[str, Any], _shown: object) -> None:
    body = json.dumps({**STARTED, "state": "Completed OK", "bpStatus": "Approved", **change}).encode()
    if "id" in change and _shown is None:
        with pytest.raises(msgspec.ValidationError, match="id"):
            decode_started(body, "Asked for")
        return
    instance = decode_started(body, "Asked for")
    assert instance.id == str(change.get("id", STARTED["id"]))
    if set(change) & {"state", "suspended", "isClosed", "bpStatus"} and _shown is None:
        # It is started, but the rest of its answer does not count. The first poll will show its state.
        assert (instance.state, instance.bp_status, instance.is_closed) == ("unknown", None, False)
    elif "name" in change and _shown is None:
        assert (instance.name, instance.state) == ("Asked for", "Completed OK")


def test_start_answer_with_only_an_id() -> None:
    instance = decode_started(b'{"id": "1"}', "Asked for")
    assert instance == BpmInstance(id="1", name="Asked for", state="unknown")


@pytest.mark.parametrize("raw", [b"null", b"{}", b'""', b"[]"])
def test_every_form_of_an_empty_list(raw: bytes) -> None:
    rows = decode_rows(raw)
    assert (rows, rows.unreadable) == ([], ())
    assert decode_definitions(raw) == []


def test_single_object_counts_as_a_list() -> None:
    assert [row.id for row in decode_rows(json.dumps(ROW).encode())] == [ROW["id"]]


@pytest.mark.parametrize("raw", [b'{"rows": []}', b'"none"', b"7", b"true"])
def test_anything_else_is_not_a_list(raw: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_rows(raw)


@pytest.mark.parametrize("part", ["null", "7", '"a"', "[]", '{"id": 1e999}'])
def test_row_that_is_not_an_instance_is_unreadable(part: str) -> None:
    rows = decode_rows(f"[{json.dumps(ROW)}, {part}]".encode())
    assert [row.id for row in rows] == [ROW["id"]]
    (odd,) = rows.unreadable
    assert {"id", "name", "state"} <= odd.unread
    assert odd.reason


def test_unreadable_row_with_a_blank_key_shows_none() -> None:
    (odd,) = decode_rows(json.dumps([{**ROW, "state": [], "businessKey": " "}]).encode()).unreadable
    assert odd.unread == {"state"}
    assert odd.business_key is None


SOUGHT = {"bpm_name": "A", "business_key": "k"}


@pytest.mark.parametrize(
    ("change", "may_be"),
    [
        ({}, True),
        ({"name": "B"}, False),
        ({"business_key": "other"}, False),
        ({"business_key": None}, False),
        ({"name": None, "unread": {"name"}}, True),
        ({"business_key": None, "unread": {"businessKey"}}, True),
        ({"name": "B", "business_key": None, "unread": {"businessKey"}}, False),
    ],
)
def test_unreadable_row_may_be(change: dict[str, Any], may_be: bool) -> None:
    row = UnreadableRow(**{"reason": "", "unread": frozenset(), "name": "A", "business_key": "k", **change})
    assert row.may_be(**SOUGHT) is may_be
    assert row.may_be()
    assert row.may_be(bpm_name="A") is (change.get("name") != "B")


def test_invalid_fields_of_definitions() -> None:
    rows = [{"id": 1, "name": "A", "version": 2, "active": "true", "label": None, "status": {}}]
    (definition,) = decode_definitions(json.dumps(rows).encode())
    assert (definition.id, definition.version, definition.active, definition.status) == ("1", "2", True, None)
    with pytest.raises(msgspec.ValidationError, match="name"):
        decode_definitions(b'[{"id": "1"}]')


ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=3,
)


@given(fields=st.dictionaries(st.sampled_from(sorted(WireInstance.__struct_fields__)), ANY_JSON))
def test_no_row_hides_another_or_looks_like_a_success(fields: dict[str, Any]) -> None:
    rows = decode_rows(json.dumps([ROW, {**ROW, **fields}, ROW]).encode())
    assert row_count(rows) == 3
    assert [row.id for row in rows].count(str(ROW["id"])) >= 2
    for row in rows:
        if row.state == "Completed OK":
            assert fields["state"] == "Completed OK"


def test_as_dict() -> None:
    passed_on = decoded(STARTED).as_dict(url="https://example/002N")
    assert passed_on == {
        "id": "002N000000Sy2NphoRbU",
        "name": "bpName1",
        "version": "1.0.1",
        "state": "Dispatched",
        "bp_status": "New",
        "task_outcome": None,
        "suspended": False,
        "is_closed": False,
        "business_key": "002N000000Sy2NphoRbU",
        "start_time": "2019-08-27 10:53:04",
        "end_time": None,
        "start_time_utc": None,
        "end_time_utc": None,
        "url": "https://example/002N",
    }
    assert json.loads(json.dumps(passed_on)) == passed_on


@pytest.mark.parametrize(
    ("zone", "stamp", "utc"),
    [
        ("Asia/Shanghai", "2019-08-27 10:53:04", "2019-08-27T02:53:04+00:00"),
        (None, "2019-08-27 10:53:04", None),
        ("Asia/Shanghai", "27.08.2019", "unknown"),
        ("Europe/Berlin", "2019-10-27 02:30:00", "unknown"),  # an hour that occurred twice
        ("Asia/Shanghai", "0001-01-01 00:00:00", "unknown"),
    ],
)
def test_as_dict_adds_utc_times_if_the_time_zone_is_known(
    zone: str | None, stamp: str, utc: str | None
) -> None:
    passed_on = decoded({**STARTED, "startTime": stamp}).as_dict(timezone=ZoneInfo(zone) if zone else None)
    assert passed_on["start_time"] == stamp
    assert passed_on["start_time_utc"] == (None if utc == "unknown" else utc)
