"""The documented API over HTTP, with every switch in its default position."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow_provider_astrobpm.emulator import EmulatorControl
    from tests.emulator.conftest import Api

TOKEN = "/baas/auth/v1.0/oauth2/token"
CSRF = "/u-route/baas/sys/v1.0/csrf/get"
INSTANCES = "/u-route/baas/bp/v2.0/runtime/instances"
DEFINITIONS = "/u-route/baas/bp/v2.0/metadata/definitions"
VALID_CREDENTIALS = {
    "grant_type": "client_credentials",
    "client_id": "emulator-client",
    "client_secret": "emulator-only-secret",
}
WAITING = "Waiting for user interaction"

# The keys of the example responses on pages 0069 and 0070.
ACTION_KEYS = [
    *(
        "name",
        "version",
        "id",
        "processDefID",
        "interviewLabel",
        "nextElem",
        "isTest",
        "state",
        "bpStatus",
        "urgency",
    ),
    *(
        "taskOutcome",
        "businessKey",
        "startTime",
        "endTime",
        "Ext1",
        "Ext2",
        "Ext3",
        "Ext4",
        "Ext5",
        "Ext6",
        "Ext7",
    ),
    *("Ext8", "suspended", "isClosed"),
]
ROW_KEYS = {
    *(
        "id",
        "name",
        "version",
        "label",
        "title",
        "type",
        "state",
        "suspended",
        "bpStage",
        "bpStatus",
        "bpStep",
    ),
    *("curElement", "description", "businessKey", "urgency", "startTime", "endTime", "createdDate"),
    *(
        "lastModifiedDate",
        "lastHandler",
        "createdBy",
        "createdBy.name",
        "createdBy.__objectType",
        "lastModifiedBy",
    ),
    *("lastModifiedBy.name", "lastModifiedBy.__objectType", "owner", "owner.name", "owner.__objectType"),
}


@pytest.mark.parametrize("encoding", ["data", "json"])
def test_client_credentials_return_a_token_as_form_or_json(api: Api, encoding: str) -> None:
    answer = api.call("POST", TOKEN, headers={}, **{encoding: VALID_CREDENTIALS})
    assert answer.status_code == 200
    assert set(answer.json()) == {"access_token", "expires_in", "token_type"}
    assert (answer.json()["expires_in"], answer.json()["token_type"]) == (600, "Bearer")
    assert answer.json()["access_token"] != api.headers["access-token"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"data": {**VALID_CREDENTIALS, "client_secret": "wrong"}}, "unauthorized_client"),
        ({"data": {**VALID_CREDENTIALS, "client_id": "wrong"}}, "unauthorized_client"),
        ({"data": {"grant_type": "client_credentials"}}, "unauthorized_client"),
        ({"data": {**VALID_CREDENTIALS, "grant_type": "password"}}, "unsupported_grant_type"),
        (
            {
                "data": "",
                "params": VALID_CREDENTIALS,
                "headers": {"Content-Type": "application/x-www-form-urlencoded"},
            },
            "unsupported_grant_type",
        ),
        ({"params": VALID_CREDENTIALS}, "invalid_request"),
        ({"data": "{", "headers": {"Content-Type": "application/json"}}, "invalid_request"),
        (
            {"data": b"\xff", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
            "invalid_request",
        ),
    ],
)
def test_a_wrong_token_request_is_refused(api: Api, arguments: dict[str, Any], error: str) -> None:
    answer = api.call("POST", TOKEN, **{"headers": {}, **arguments})
    assert answer.status_code == 400
    assert set(answer.json()) == {"error", "error_description"}
    assert answer.json()["error"] == error


def test_the_query_of_a_token_request_is_not_logged(api: Api, control: EmulatorControl) -> None:
    api.call("POST", TOKEN, headers={}, params=VALID_CREDENTIALS)
    (entry,) = control.requests()
    assert (entry["kind"], entry["query"], entry["status"]) == ("token", "(withheld)", 400)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", CSRF),
        ("POST", INSTANCES),
        ("GET", INSTANCES),
        ("GET", f"{INSTANCES}/x"),
        ("PUT", f"{INSTANCES}/x"),
        ("DELETE", f"{INSTANCES}/x"),
        ("PUT", f"{INSTANCES}/x/variables"),
        ("GET", DEFINITIONS),
        ("GET", f"{DEFINITIONS}/x"),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"access-token": "wrong"}, {"Authorization": "right"}])
def test_every_call_requires_a_valid_token(api: Api, method: str, path: str, headers: dict[str, str]) -> None:
    if "Authorization" in headers:
        headers = {"Authorization": f"Bearer {api.headers['access-token']}"}
    assert api.refused(method, path, headers=headers) == (401, "405230602")


def test_a_token_expires_by_the_emulators_clock(api: Api, control: EmulatorControl) -> None:
    control.advance(599)
    api.query("Running")
    control.advance(2)
    assert api.refused("GET", INSTANCES, params={"states": "Running"}) == (401, "405230602")
    api.login()
    api.query("Running")


def test_start_returns_the_documented_object(api: Api) -> None:
    answer = api.call(
        "POST", INSTANCES, json={"name": "PublishApproval", "variables": {"dataset": "sales", "x": 1}}
    )
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    envelope = answer.json()
    assert (list(envelope), envelope["resCode"], envelope["resMsg"]) == (
        ["resCode", "resMsg", "result"],
        "0",
        "Success",
    )
    result = envelope["result"]
    assert list(result) == ACTION_KEYS
    assert result["id"].startswith("002N")
    assert result["businessKey"] == result["id"]
    assert result["interviewLabel"] == f"Approve a data publication {result['startTime']}"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", result["startTime"])
    assert (result["state"], result["bpStatus"], result["endTime"]) == ("Dispatched", "New", "")
    assert (result["suspended"], result["isClosed"]) == (False, False)
    assert (result["Ext1"], result["Ext8"]) == ("", 0)


def test_start_of_a_process_without_waits_returns_a_closed_instance(api: Api) -> None:
    result = api.start("Instant")
    assert (result["state"], result["isClosed"], result["bpStatus"]) == ("Completed OK", True, "Done")
    assert result["endTime"] == result["startTime"]


def test_start_accepts_business_key_title_and_version(api: Api, control: EmulatorControl) -> None:
    variables = {"$Flow.BusinessKey": "key-1", "$Flow.Title": "Mine", "invoice": {"number": 7}}
    result = api.start("InvoiceCheck", version="1.0.0", variables=variables)
    assert (result["businessKey"], result["version"]) == ("key-1", "1.0.0")
    (row,) = api.query("Running")
    assert (row["businessKey"], row["title"]) == ("key-1", "Mine")
    assert control.instance(result["id"])["variables"] == {"invoice": {"number": 7}}
    assert api.start("InvoiceCheck")["version"] == "2.0.0"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "Nothing"}, "405230020"),
        ({"name": "RetiredProcess"}, "405230021"),
        ({"name": "InvoiceCheck", "version": "9.0.0"}, "405230022"),
        ({}, "405230010"),
        ({"name": 7}, "405230010"),
        ({"name": "Instant", "variables": []}, "405230010"),
        ({"name": "Instant", "version": 1}, "405230010"),
        (["Instant"], "405230010"),
        (None, "405230010"),
    ],
)
def test_an_invalid_start_is_refused(api: Api, control: EmulatorControl, body: object, code: str) -> None:
    assert api.refused("POST", INSTANCES, data=json.dumps(body)) == (400, code)
    assert control.instances() == []


@pytest.mark.parametrize("body", [b'{"\x95": 1}', b"{" * 10, b'{"name": ' + b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(api: Api, body: bytes) -> None:
    assert api.refused("POST", INSTANCES, data=body) == (400, "405230010")


def test_query_returns_rows_with_the_documented_keys(api: Api) -> None:
    started = api.start()
    (row,) = api.query(WAITING)
    assert set(row) == ROW_KEYS
    assert (row["id"], row["type"], row["state"], row["lastHandler"]) == (started["id"], "BP", WAITING, None)
    assert (row["label"], row["startTime"], row["endTime"]) == (
        started["interviewLabel"],
        started["startTime"],
        "",
    )
    assert (row["bpStatus"], row["bpStep"], row["curElement"]) == ("Submitted", "Approval", "Approve")
    assert (row["createdBy.name"], row["createdBy.__objectType"]) == ("machine", "User")
    assert api.query("Completed OK") == []


def test_query_limits_columns_and_sorts_rows(api: Api) -> None:
    for title in ("b", "c", "a"):
        api.start(variables={"$Flow.Title": title})
    ordered = api.query(WAITING, fields="title", orderField="title", orderType="asc")
    assert ordered == [{"title": "a"}, {"title": "b"}, {"title": "c"}]
    descending = api.query(WAITING, fields="title,state", orderField="title", orderType="desc")
    assert [row["title"] for row in descending] == ["c", "b", "a"]
    newest = api.query(WAITING, fields="title", orderField="startTime", orderType="desc")
    assert [row["title"] for row in newest] == ["a", "c", "b"]
    assert [row["title"] for row in api.query(WAITING)] == ["a", "c", "b"]


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({}, "405230011"),
        ({"states": ""}, "405230011"),
        ({"states": "completed ok"}, "405230012"),
        ({"states": "Running,New"}, "405230013"),
        ({"states": ["Running", "New"]}, "405230013"),
        ({"states": "Running", "orderField": "title", "orderType": "0"}, "405230010"),
    ],
)
def test_an_invalid_query_is_refused(api: Api, params: dict[str, str], code: str) -> None:
    assert api.refused("GET", INSTANCES, params=params) == (400, code)


def test_suspend_resume_and_terminate_return_the_changed_instance(api: Api) -> None:
    instance_id = api.start()["id"]
    suspended = api.act(instance_id, "suspend")
    assert list(suspended) == ACTION_KEYS
    assert (suspended["suspended"], suspended["state"]) == (True, WAITING)
    (row,) = api.query(WAITING)
    assert row["suspended"] is True
    assert api.act(instance_id, "resume")["suspended"] is False
    terminated = api.act(instance_id, "terminate")
    assert (terminated["state"], terminated["isClosed"]) == ("Terminated", True)
    assert terminated["endTime"]
    assert [row["id"] for row in api.query("Terminated")] == [instance_id]


@pytest.mark.parametrize(
    ("body", "code"),
    [({"action": "kill"}, "405230031"), ({}, "405230031"), ({"action": 1}, "405230031"), ([], "405230010")],
)
def test_an_invalid_action_is_refused(api: Api, body: object, code: str) -> None:
    path = f"{INSTANCES}/{api.start()['id']}"
    assert api.refused("PUT", path, data=json.dumps(body)) == (400, code)


def test_delete_returns_no_result(api: Api) -> None:
    path = f"{INSTANCES}/{api.start()['id']}"
    assert api.call("DELETE", path).json() == {"resCode": "0", "resMsg": "Success"}
    assert api.refused("DELETE", path) == (400, "405230030")


def test_setting_ignores_unknown_and_read_only_variables(api: Api, control: EmulatorControl) -> None:
    instance_id = api.start()["id"]
    variables = {"row_count": 5, "approved_by": "me", "nothing": 1}
    answer = api.call("PUT", f"{INSTANCES}/{instance_id}/variables", json=variables)
    assert (answer.status_code, answer.json()) == (200, {"resCode": "0", "resMsg": "Success"})
    stored = control.instance(instance_id)["variables"]
    assert (stored["row_count"], stored["approved_by"], "nothing" in stored) == (5, "", False)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("PUT", "", {"action": "suspend"}), ("DELETE", "", None), ("PUT", "/variables", {"a": 1})],
)
def test_calls_for_an_unknown_instance_are_refused(api: Api, method: str, path: str, body: object) -> None:
    assert api.refused(method, f"{INSTANCES}/002N0000000000000000{path}", json=body) == (400, "405230030")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_csrf_token_stays_the_same(api: Api, method: str) -> None:
    first = api.ok(method, CSRF)
    assert isinstance(first, str)
    assert first == api.ok(method, CSRF)


def test_definitions_are_listed_with_the_documented_keys(api: Api) -> None:
    rows = api.ok("GET", DEFINITIONS)
    assert len(rows) == 9
    assert set(rows[0]) == {"id", "name", "label", "version", "active", "status", "description", "config"}
    assert isinstance(json.loads(rows[0]["config"]), dict)
    assert all(row["id"].startswith("001L") for row in rows)
    assert api.start(rows[0]["name"])["processDefID"] == rows[0]["id"]


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({"name": "InvoiceCheck"}, ["InvoiceCheck 1.0.0", "InvoiceCheck 2.0.0"]),
        ({"name": "InvoiceCheck", "active": "true"}, ["InvoiceCheck 2.0.0"]),
        ({"name": "Process"}, []),
        ({"name": "Process", "like": "true"}, ["RetiredProcess 1.0.0"]),
        ({"active": "false"}, ["RetiredProcess 1.0.0", "InvoiceCheck 1.0.0"]),
        ({"active": "false", "skip": "1"}, ["InvoiceCheck 1.0.0"]),
        ({"active": "false", "limit": "1"}, ["RetiredProcess 1.0.0"]),
        ({"skip": "4", "limit": "2"}, ["Instant 1.0.0", "RetiredProcess 1.0.0"]),
    ],
)
def test_definitions_are_filtered_and_paged(api: Api, params: dict[str, str], names: list[str]) -> None:
    rows = api.ok("GET", DEFINITIONS, params=params)
    assert [f"{row['name']} {row['version']}" for row in rows] == names


@pytest.mark.parametrize("params", [{"limit": "0"}, {"skip": "-1"}, {"limit": "many"}])
def test_an_invalid_definition_query_is_refused(api: Api, params: dict[str, str]) -> None:
    assert api.refused("GET", DEFINITIONS, params=params) == (400, "405230010")


def test_a_definition_is_read_by_id(api: Api) -> None:
    (row,) = api.ok("GET", DEFINITIONS, params={"name": "PublishApproval"})
    definition = api.ok("GET", f"{DEFINITIONS}/{row['id']}")
    assert {key: definition[key] for key in row} == {**row, "config": json.loads(row["config"])}
    assert {
        "name": "approved_by",
        "dataType": "Text",
        "isCollection": False,
        "isInput": False,
        "isOutput": True,
        "defaultValue": "",
    } in definition["variables"]
    assert {"name": "Approve", "type": "userTask"} in definition["elements"]
    assert api.refused("GET", f"{DEFINITIONS}/001L0") == (400, "405230040")


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/"), ("PATCH", INSTANCES), ("GET", TOKEN), ("GET", "/u-route")]
)
def test_unknown_paths_return_404(api: Api, method: str, path: str) -> None:
    assert api.refused(method, path) == (404, "405230060")


def test_requests_are_counted_and_logged_by_kind(api: Api, control: EmulatorControl) -> None:
    instance_id = api.start()["id"]
    api.query("Running")
    api.query("New")
    api.act(instance_id, "suspend")
    counts = {kind: count for kind, count in control.counts().items() if count}
    assert counts == {"start": 1, "query": 2, "action": 1}
    log = [
        (entry["kind"], entry["method"], entry["detail"], entry["query"], entry["status"])
        for entry in control.requests()
    ]
    assert log == [
        ("start", "POST", "PublishApproval", "", 200),
        ("query", "GET", "", "states=Running", 200),
        ("query", "GET", "", "states=New", 200),
        ("action", "PUT", "suspend", "", 200),
    ]
    control.reset_counts()
    assert (sum(control.counts().values()), control.requests()) == (0, [])
