"""Every switch in every position, as a client sees it."""

from __future__ import annotations

from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_astrobpm.emulator.switches import Switches

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.emulator import EmulatorControl
    from tests.emulator.conftest import Api

TOKEN = "/baas/auth/v1.0/oauth2/token"
CSRF = "/u-route/baas/sys/v1.0/csrf/get"
INSTANCES = "/u-route/baas/bp/v2.0/runtime/instances"
DEFINITIONS = "/u-route/baas/bp/v2.0/metadata/definitions"
WAITING = "Waiting for user interaction"
STAMP = "%Y-%m-%d %H:%M:%S"
TIMES = ("startTime", "endTime")
CREDENTIALS = {
    "grant_type": "client_credentials",
    "client_id": "emulator-client",
    "client_secret": "emulator-only-secret",
}

# Each function returns what a client observes; the table POSITIONS has the expected value for each position.


def result_of(api: Api, method: str, path: str, **arguments: Any) -> Any:
    """Return the result of a call, or the status and the resCode of a refusal."""
    answer = api.call(method, path, **arguments)
    envelope = answer.json()
    return envelope.get("result") if envelope["resCode"] == "0" else (answer.status_code, envelope["resCode"])


def get_by_id(api: Api, control: EmulatorControl) -> object:
    result = result_of(api, "GET", f"{INSTANCES}/{api.start()['id']}")
    return result if isinstance(result, tuple) else {"isClosed", "curElement"} & set(result)


def definition_variables(api: Api, control: EmulatorControl) -> object:
    (row,) = api.ok("GET", DEFINITIONS, params={"name": "Instant"})
    definition = api.ok("GET", f"{DEFINITIONS}/{row['id']}")
    shown = definition.get("variables", "absent")
    if isinstance(shown, dict):
        return set(shown)
    return [each["name"] for each in shown] if isinstance(shown, list) else shown


def missing_by_id(api: Api, control: EmulatorControl) -> object:
    control.switch(get_by_id="row")
    return result_of(api, "GET", f"{INSTANCES}/002N-unknown")


def get_variables(api: Api, control: EmulatorControl) -> object:
    instance_id = api.start("Instant", variables={"note": 1})["id"]
    return result_of(api, "GET", f"{INSTANCES}/{instance_id}/variables")


def several_states(api: Api, control: EmulatorControl) -> object:
    api.start("Instant")
    api.start()
    spellings: tuple[object, ...] = (f"Completed OK,{WAITING}", ["Completed OK", WAITING])
    answers = [result_of(api, "GET", INSTANCES, params={"states": states}) for states in spellings]
    return [len(answer) if isinstance(answer, list) else answer for answer in answers]


def unknown_state(api: Api, control: EmulatorControl) -> object:
    return result_of(api, "GET", INSTANCES, params={"states": "Lost"})


def rows(api: Api, control: EmulatorControl) -> object:
    for title in ("b", "a", "c"):
        api.start("Instant", variables={"$Flow.Title": title})
    return [row["title"] for row in api.query("Completed OK")]


def fields(api: Api, control: EmulatorControl) -> object:
    api.start("Instant")
    (row,) = api.query("Completed OK", fields="id,state")
    return len(row)


def order(api: Api, control: EmulatorControl) -> object:
    for title in ("b", "a", "c"):
        api.start("Instant", variables={"$Flow.Title": title})
    return [row["title"] for row in api.query("Completed OK", orderField="title", orderType="asc")]


def unknown_field(api: Api, control: EmulatorControl) -> object:
    api.start("Instant")
    asked: tuple[dict[str, str], ...] = (
        {"fields": "state,isClosed"},
        {"fields": "state", "orderField": "isClosed"},
    )
    return [result_of(api, "GET", INSTANCES, params={"states": "Completed OK", **each}) for each in asked]


def business_keys_in_rows(api: Api, control: EmulatorControl) -> object:
    started = api.start("Instant", variables={"$Flow.BusinessKey": "k"})
    (row,) = api.query("Completed OK")
    return [started["businessKey"], "the id" if row["businessKey"] == started["id"] else row["businessKey"]]


def key_form(api: Api, control: EmulatorControl) -> object:
    key = "orders.Approve-" + 5 * "0123456789"
    started = api.start(variables={"$Flow.BusinessKey": key})
    (row,) = api.query(WAITING)
    acted = api.act(started["id"], "suspend")
    (shown,) = {started["businessKey"], row["businessKey"], acted["businessKey"]}
    assert control.instance(started["id"])["business_key"] == key
    return shown


def see_others(api: Api, control: EmulatorControl) -> object:
    instance_id = control.start("PublishApproval", by="Wang")["id"]
    return [
        len(api.query(WAITING)),
        type(result_of(api, "PUT", f"{INSTANCES}/{instance_id}", json={"action": "suspend"})),
    ]


def keep_closed(api: Api, control: EmulatorControl) -> object:
    instance_id = api.start("Instant")["id"]
    return [
        len(api.query("Completed OK")),
        result_of(api, "DELETE", f"{INSTANCES}/{instance_id}"),
        len(control.instances()),
    ]


def start_lag(api: Api, control: EmulatorControl) -> object:
    api.start("Instant")
    before = len(api.query("Completed OK"))
    control.advance(6)
    return [before, len(api.query("Completed OK"))]


def action_lag(api: Api, control: EmulatorControl) -> object:
    instance_id = api.start()["id"]
    answered = api.act(instance_id, "terminate")["state"]
    control.advance(6)
    return [answered, control.instance(instance_id)["state"]]


def terminate_state(api: Api, control: EmulatorControl) -> object:
    return api.act(api.start()["id"], "terminate")["state"]


def suspend_state(api: Api, control: EmulatorControl) -> object:
    instance_id = api.start()["id"]
    suspended = api.act(instance_id, "suspend")
    listed = [len(api.query(WAITING)), len(api.query("Suspended"))]
    return [suspended["state"], suspended["suspended"], listed, api.act(instance_id, "resume")["state"]]


def closed_flag(api: Api, control: EmulatorControl) -> object:
    return api.start("Instant")["isClosed"]


def acting_twice(api: Api, control: EmulatorControl) -> object:
    path = f"{INSTANCES}/{api.start()['id']}"
    for action in ("suspend", "suspend", "resume", "resume", "terminate"):
        last = result_of(api, "PUT", path, json={"action": action})
        if isinstance(last, tuple):
            assert last == (400, "405230033")
    again = result_of(api, "PUT", path, json={"action": "terminate"})
    return again if isinstance(again, tuple) else again["state"]


def acting_on_closed(api: Api, control: EmulatorControl) -> object:
    path = f"{INSTANCES}/{api.start('Instant')['id']}"
    acted = result_of(api, "PUT", path, json={"action": "terminate"})
    stored = result_of(api, "PUT", f"{path}/variables", json={"note": 1})
    return [acted if isinstance(acted, tuple) else acted["state"], stored]


def deleting_open(api: Api, control: EmulatorControl) -> object:
    return result_of(api, "DELETE", f"{INSTANCES}/{api.start()['id']}")


def duplicate_business_key(api: Api, control: EmulatorControl) -> object:
    variables = {"$Flow.BusinessKey": "k"}
    api.start("Instant", variables=variables)
    api.start("PublishApproval", variables=variables)
    again = result_of(api, "POST", INSTANCES, json={"name": "Instant", "variables": variables})
    return again if isinstance(again, tuple) else again["businessKey"]


def unknown_variables_at_start(api: Api, control: EmulatorControl) -> object:
    started = result_of(api, "POST", INSTANCES, json={"name": "Instant", "variables": {"nothing": 1}})
    return started if isinstance(started, tuple) else started["state"]


def refused_token_start(api: Api, control: EmulatorControl) -> object:
    api.headers["access-token"] = "made-up"
    refused = [
        result_of(api, "POST", INSTANCES, json={"name": name, "variables": {"$Flow.BusinessKey": "k"}})
        for name in ("Instant", "Nothing")
    ]
    assert refused == [(401, "405230602")] * 2
    return [each["business_key"] for each in control.instances()]


def refusal(api: Api, control: EmulatorControl) -> object:
    return result_of(api, "POST", INSTANCES, json={"name": "Nothing"})


def bad_token(api: Api, control: EmulatorControl) -> object:
    assert control.revoke_tokens() == 1
    answer = api.call("GET", INSTANCES, params={"states": "Running"})
    is_json = answer.headers["Content-Type"] == "application/json"
    return [answer.status_code, answer.json()["resCode"] if is_json else answer.text[:15]]


def token_body(api: Api, control: EmulatorControl) -> object:
    answers = [
        api.call("POST", TOKEN, headers={}, **{encoding: CREDENTIALS}) for encoding in ("data", "json")
    ]
    return [answer.json().get("error", "token") for answer in answers]


def expires_in(api: Api, control: EmulatorControl) -> object:
    return api.call("POST", TOKEN, headers={}, data=CREDENTIALS).json().get("expires_in", "absent")


def concurrent_tokens(api: Api, control: EmulatorControl) -> object:
    api.call("POST", TOKEN, headers={}, data=CREDENTIALS)
    return result_of(api, "GET", INSTANCES, params={"states": "Running"})


def csrf_required(api: Api, control: EmulatorControl) -> object:
    without = result_of(api, "POST", INSTANCES, json={"name": "Instant"})
    token = api.ok("POST", CSRF)
    api.headers["csrf-token"] = token
    api.start("Instant")
    api.headers["csrf-token"] = "wrong"
    wrong = result_of(api, "DELETE", f"{INSTANCES}/x")
    del api.headers["csrf-token"]
    api.query("Running")
    return [without if isinstance(without, tuple) else "started", wrong]


def csrf_method(api: Api, control: EmulatorControl) -> object:
    return [type(result_of(api, method, CSRF)).__name__ for method in ("POST", "GET")]


def content_type_required(api: Api, control: EmulatorControl) -> object:
    api.headers["Content-Type"] = "application/json; charset=utf-8"
    api.query("Running")
    del api.headers["Content-Type"]
    return result_of(api, "GET", INSTANCES, params={"states": "Running"})


def plus_is_blank(api: Api, control: EmulatorControl) -> object:
    api.start("Instant")
    assert len(result_of(api, "GET", f"{INSTANCES}?states=Completed%20OK")) == 1
    plus = result_of(api, "GET", f"{INSTANCES}?states=Completed+OK")
    return len(plus) if isinstance(plus, list) else plus


def success_message(api: Api, control: EmulatorControl) -> object:
    return api.call("GET", DEFINITIONS).json()["resMsg"]


def empty_list(api: Api, control: EmulatorControl) -> object:
    instances = api.call("GET", INSTANCES, params={"states": "Running"}).json()
    definitions = api.call("GET", DEFINITIONS, params={"name": "Nothing"}).json()
    assert instances == definitions
    return instances.get("result", "absent")


def numeric_codes(api: Api, control: EmulatorControl) -> object:
    refused = api.call("POST", INSTANCES, json={"name": "Nothing"}).json()["resCode"]
    token = api.call("POST", TOKEN, headers={}, data=CREDENTIALS).json()
    assert token["token_type"] == "Bearer"
    return [api.call("GET", DEFINITIONS).json()["resCode"], refused]


def byte_order_mark(api: Api, control: EmulatorControl) -> object:
    answers = [
        api.call("GET", DEFINITIONS),
        api.call("POST", TOKEN, headers={}, data=CREDENTIALS),
        api.call("POST", INSTANCES, json={"name": "Nothing"}),
    ]
    return [answer.content[:3] == b"\xef\xbb\xbf" for answer in answers]


def utc_offset(api: Api, control: EmulatorControl) -> object:
    local = api.start("Instant")["startTime"]
    control.switch(utc_offset=0)
    utc = api.query("Completed OK")[0]["startTime"]
    return (int(local[11:13]) - int(utc[11:13])) % 24


def clock_skew(api: Api, control: EmulatorControl) -> object:
    answer = api.call("POST", INSTANCES, json={"name": "Instant"})
    (row,) = api.query("Completed OK")
    assert row["createdDate"] == answer.json()["result"]["startTime"]
    shown = datetime.strptime(row["startTime"], STAMP).replace(tzinfo=timezone.utc)
    now = parsedate_to_datetime(answer.headers["Date"])
    return round((shown - now).total_seconds() / 3600)


def start_time_form(api: Api, control: EmulatorControl) -> object:
    started = api.start("Instant")
    assert api.start()["endTime"] == ""
    (row,) = api.query("Completed OK")
    moment = control.instance(started["id"])["started"]
    stamp = datetime.fromtimestamp(moment, timezone.utc).strftime(STAMP)
    assert row["startTime"] == started["startTime"]
    assert row["createdDate"] == stamp
    if row["startTime"] == str(round(moment * 1000)):
        return "milliseconds"
    return [row[name].replace(stamp, "right").replace(stamp.replace("-", "/"), "slashed") for name in TIMES]


NOT_FOUND = (404, "405230060")
OBSERVATIONS: dict[str, Callable[[Api, EmulatorControl], object]] = {
    "get_by_id": get_by_id,
    "definition_variables": definition_variables,
    "missing_by_id": missing_by_id,
    "get_variables": get_variables,
    "several_states": several_states,
    "unknown_state": unknown_state,
    "row_cap": rows,
    "row_order": rows,
    "fields_honoured": fields,
    "order_honoured": order,
    "unknown_field": unknown_field,
    "business_keys_in_rows": business_keys_in_rows,
    "key_form": key_form,
    "see_others": see_others,
    "keep_closed": keep_closed,
    "start_lag": start_lag,
    "action_lag": action_lag,
    "terminate_state": terminate_state,
    "suspend_state": suspend_state,
    "closed_flag": closed_flag,
    "acting_twice": acting_twice,
    "acting_on_closed": acting_on_closed,
    "deleting_open": deleting_open,
    "duplicate_business_key": duplicate_business_key,
    "unknown_variables_at_start": unknown_variables_at_start,
    "refused_token_start": refused_token_start,
    "refusal_status": refusal,
    "bad_token": bad_token,
    "token_body": token_body,
    "expires_in": expires_in,
    "concurrent_tokens": concurrent_tokens,
    "csrf_required": csrf_required,
    "csrf_method": csrf_method,
    "content_type_required": content_type_required,
    "plus_is_blank": plus_is_blank,
    "success_message": success_message,
    "empty_list": empty_list,
    "numeric_codes": numeric_codes,
    "byte_order_mark": byte_order_mark,
    "utc_offset": utc_offset,
    "clock_skew": clock_skew,
    "start_time_form": start_time_form,
}
POSITIONS: list[tuple[str, object, object]] = [
    ("get_by_id", "absent", NOT_FOUND),
    ("get_by_id", "not_allowed", (405, "405230061")),
    ("get_by_id", "action", {"isClosed"}),
    ("get_by_id", "row", {"curElement"}),
    ("definition_variables", "listed", ["note"]),
    ("definition_variables", "absent", "absent"),
    ("definition_variables", "null", None),
    ("definition_variables", "empty", []),
    ("definition_variables", "unnamed", [None]),
    ("definition_variables", "map", {"note"}),
    ("missing_by_id", "refused", (400, "405230030")),
    ("missing_by_id", "null", None),
    ("missing_by_id", "object", {}),
    ("get_variables", "absent", NOT_FOUND),
    ("get_variables", "map", {"note": 1}),
    ("several_states", "refuse", [(400, "405230013")] * 2),
    ("several_states", "comma", [2, 1]),
    ("several_states", "repeated", [(400, "405230012"), 2]),
    ("several_states", "first", [1, 1]),
    ("unknown_state", "refuse", (400, "405230012")),
    ("unknown_state", "empty", []),
    ("row_cap", None, ["c", "a", "b"]),
    ("row_cap", 2, ["c", "a"]),
    ("row_cap", 37, ["c", "a", "b"]),
    ("row_order", "newest", ["c", "a", "b"]),
    ("row_order", "oldest", ["b", "a", "c"]),
    ("fields_honoured", True, 2),
    ("fields_honoured", False, 29),
    ("order_honoured", True, ["a", "b", "c"]),
    ("order_honoured", False, ["c", "a", "b"]),
    ("unknown_field", "ignore", [[{"state": "Completed OK"}]] * 2),
    ("unknown_field", "refuse", [(400, "405230014")] * 2),
    ("business_keys_in_rows", True, ["k", "k"]),
    ("business_keys_in_rows", False, ["k", "the id"]),
    ("key_form", "as_sent", "orders.Approve-01234567890123456789012345678901234567890123456789"),
    ("key_form", "cut_50", "orders.Approve-01234567890123456789012345678901234"),
    ("key_form", "cut_20", "orders.Approve-01234"),
    ("key_form", "upper", "ORDERS.APPROVE-01234567890123456789012345678901234567890123456789"),
    (
        "key_form",
        "padded",
        "orders.Approve-01234567890123456789012345678901234567890123456789               ",
    ),
    ("key_form", "prefixed", "ASTRO:orders.Approve-01234567890123456789012345678901234567890123456789"),
    ("see_others", True, [1, dict]),
    ("see_others", False, [0, tuple]),
    ("keep_closed", True, [1, None, 0]),
    ("keep_closed", False, [0, (400, "405230030"), 1]),
    ("start_lag", 0, [1, 1]),
    ("start_lag", 5, [0, 1]),
    ("action_lag", 0, ["Terminated", "Terminated"]),
    ("action_lag", 5, [WAITING, "Terminated"]),
    ("terminate_state", "Terminated", "Terminated"),
    ("terminate_state", "User Terminated", "User Terminated"),
    ("suspend_state", "unchanged", [WAITING, True, [1, 0], WAITING]),
    ("suspend_state", "Suspended", ["Suspended", True, [0, 1], WAITING]),
    ("suspend_state", "state_only", ["Suspended", False, [0, 1], WAITING]),
    ("closed_flag", "on_close", True),
    ("closed_flag", "never", False),
    ("acting_twice", "refuse", (400, "405230033")),
    ("acting_twice", "accept", "Terminated"),
    ("acting_on_closed", "refuse", [(400, "405230032")] * 2),
    ("acting_on_closed", "accept", ["Completed OK", None]),
    ("deleting_open", "accept", None),
    ("deleting_open", "refuse", (400, "405230034")),
    ("duplicate_business_key", "accept", "k"),
    ("duplicate_business_key", "refuse", (400, "405230024")),
    ("unknown_variables_at_start", "ignore", "Completed OK"),
    ("unknown_variables_at_start", "refuse", (400, "405230023")),
    ("refused_token_start", "nothing", []),
    ("refused_token_start", "started", ["k"]),
    ("refusal_status", 400, (400, "405230020")),
    ("refusal_status", 404, (404, "405230020")),
    ("refusal_status", 500, (500, "405230020")),
    ("refusal_status", 200, (200, "405230020")),
    ("bad_token", "401", [401, "405230602"]),
    ("bad_token", "401_html", [401, "<!DOCTYPE html>"]),
    ("bad_token", "400_602", [400, "405230602"]),
    ("bad_token", "403_603", [403, "405230603"]),
    ("bad_token", "200_602", [200, "405230602"]),
    ("bad_token", "403", [403, "405230070"]),
    ("bad_token", "403_html", [403, "<!DOCTYPE html>"]),
    ("bad_token", "500_602", [500, "405230602"]),
    ("token_body", "form", ["token", "invalid_request"]),
    ("token_body", "json", ["invalid_request", "token"]),
    ("token_body", "both", ["token", "token"]),
    ("expires_in", "absent", "absent"),
    ("expires_in", "number", 600),
    ("expires_in", "text", "600"),
    ("expires_in", "zero", 0),
    ("expires_in", "negative", -1),
    ("expires_in", "words", "ten minutes"),
    ("concurrent_tokens", True, []),
    ("concurrent_tokens", False, (401, "405230602")),
    ("csrf_required", False, ["started", (400, "405230030")]),
    ("csrf_required", True, [(403, "405230050")] * 2),
    ("csrf_method", "both", ["str", "str"]),
    ("csrf_method", "post", ["str", "tuple"]),
    ("csrf_method", "get", ["tuple", "str"]),
    ("content_type_required", False, []),
    ("content_type_required", True, (400, "405230010")),
    ("plus_is_blank", True, 1),
    ("plus_is_blank", False, (400, "405230012")),
    ("success_message", "Success", "Success"),
    ("success_message", "成功", "成功"),
    ("empty_list", "array", []),
    ("empty_list", "null", None),
    ("empty_list", "absent", "absent"),
    ("empty_list", "object", {}),
    ("empty_list", "text", ""),
    ("numeric_codes", False, ["0", "405230020"]),
    ("numeric_codes", True, [0, 405230020]),
    ("byte_order_mark", False, [False] * 3),
    ("byte_order_mark", True, [True] * 3),
    ("utc_offset", 0, 0),
    ("utc_offset", 8, 8),
    ("clock_skew", 0, 0),
    ("clock_skew", -15, -15),
    ("clock_skew", 15, 15),
    ("clock_skew", -100, -100),
    ("start_time_form", "documented", ["right", "right"]),
    ("start_time_form", "zero", ["0001-01-01 00:00:00"] * 2),
    ("start_time_form", "epoch", ["1970-01-01 08:00:00"] * 2),
    ("start_time_form", "dash", ["-", "-"]),
    ("start_time_form", "slashes", ["slashed", "slashed"]),
    ("start_time_form", "millis", "milliseconds"),
    ("start_time_form", "leading_blank", [" right", " right"]),
]


@pytest.mark.parametrize(
    ("switch", "position", "expected"), POSITIONS, ids=[f"{row[0]}={row[1]}" for row in POSITIONS]
)
def test_each_position_has_its_effect(
    api: Api, control: EmulatorControl, switch: str, position: object, expected: object
) -> None:
    control.switch(**{switch: position})
    assert OBSERVATIONS[switch](api, control) == expected


def test_a_capped_list_without_order_always_lacks_the_same_rows(api: Api, control: EmulatorControl) -> None:
    """The list ignores the requested order, and always lacks the same rows."""
    control.switch(row_order="shuffled", order_honoured=False, row_cap=37)
    ids = [api.start()["id"] for _ in range(40)]
    either = [
        [row["id"] for row in api.query(WAITING, orderField="startTime", orderType=order)]
        for order in ("asc", "desc")
    ]
    assert either[0] == either[1]
    assert len(set(either[0])) == 37
    assert [each for each in ids if each in either[0]] not in (either[0], either[0][::-1])


def test_the_table_covers_every_switch_and_default() -> None:
    listed = {(row[0], row[1]) for row in POSITIONS}
    assert {name for name, _ in listed} == set(Switches().positions())
    assert set(Switches().positions().items()) <= listed
