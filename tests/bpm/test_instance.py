"""Both wire shapes become one view; the bodies are the examples that the API reference prints."""

from __future__ import annotations

import json
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from airflow_provider_astrobpm.bpm.instance import BpmInstance, decode_instance, decode_rows

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


def test_the_answer_to_a_start() -> None:
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


def test_an_action_and_a_row_of_the_same_instance_are_equal() -> None:
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
def test_flag_and_state_both_count(change: dict[str, Any], suspended: bool, closed: bool) -> None:
    instance = decoded({**STARTED, **change})
    assert (instance.suspended, instance.is_closed) == (suspended, closed)


@pytest.mark.parametrize(
    "change",
    [{"id": None}, {"id": 7}, {"state": None}, {"name": 3}, {"suspended": "yes"}, {"bpStatus": {}}],
)
def test_a_field_of_another_type_is_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        decoded({**STARTED, **change})


@pytest.mark.parametrize("missing", ["id", "name", "state"])
def test_a_field_without_which_there_is_no_instance(missing: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=missing):
        decoded({key: value for key, value in STARTED.items() if key != missing})


def test_the_dict_that_tasks_pass_on() -> None:
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
        "url": "https://example/002N",
    }
    assert json.loads(json.dumps(passed_on)) == passed_on


def test_a_zone_is_added_only_where_it_is_known() -> None:
    shanghai = ZoneInfo("Asia/Shanghai")
    assert decoded(STARTED).as_dict(timezone=shanghai)["start_time"] == "2019-08-27T10:53:04+08:00"
    odd = decoded({**STARTED, "startTime": "27.08.2019"})
    assert odd.as_dict(timezone=shanghai)["start_time"] == "27.08.2019"
