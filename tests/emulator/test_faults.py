"""Every fault, as a client sees it."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_astrobpm.emulator import EmulatorError
from airflow_provider_astrobpm.emulator.faults import Fault, FaultRules

if TYPE_CHECKING:
    from airflow_provider_astrobpm.emulator import EmulatorControl
    from tests.emulator.conftest import Api

TOKEN = "/baas/auth/v1.0/oauth2/token"
INSTANCES = "/u-route/baas/bp/v2.0/runtime/instances"
CREDENTIALS = {
    "grant_type": "client_credentials",
    "client_id": "emulator-client",
    "client_secret": "emulator-only-secret",
}
RUNNING = {"states": "Running"}


def post_start(api: Api, **arguments: Any) -> requests.Response:
    return api.call("POST", INSTANCES, json={"name": "Instant"}, **arguments)


def test_rules_are_applied_in_order_until_used_up() -> None:
    rules = FaultRules()
    rules.active += [Fault("query", "delay", times=2, skip=1), Fault("any", "html")]
    taken = [rules.take(kind) for kind in ("query", "start", "query", "query", "query")]
    assert [fault and fault.fault for fault in taken] == ["html", None, "delay", "delay", None]
    assert rules.active == []


def test_target_limits_a_rule_to_some_requests(api: Api, control: EmulatorControl) -> None:
    control.start("Instant")
    control.fault("query", "status", target="states=Completed OK", times=100)
    statuses = [
        api.call("GET", INSTANCES, params={"states": state}).status_code
        for state in ("Running", "Completed OK", "Running", "Completed OK")
    ]
    assert statuses == [200, 500, 200, 500]
    assert api.call("GET", f"{INSTANCES}?states=Completed%20OK").status_code == 500


def test_share_applies_a_rule_to_a_random_share() -> None:
    rules = FaultRules()
    rules.active.append(Fault("query", "html", times=100_000, share=0.1))
    rules.active.append(Fault("any", "delay", times=100_000, share=0.5))
    taken = [rules.take("query") for _ in range(10_000)]
    counted = Counter(fault.fault if fault else None for fault in taken)
    assert 900 <= counted["html"] <= 1100
    assert 4200 <= counted["delay"] <= 4800
    assert rules.active[0].times == 100_000 - counted["html"]


def test_twice_repeats_each_row(api: Api, control: EmulatorControl) -> None:
    instance = control.start("SupplierOnboarding")
    state = control.instance(instance["id"])["state"]
    control.fault("query", "twice", fields={"state": "Completed OK", "bpStatus": "Approved"})
    first, second = api.query(state)
    assert first["id"] == second["id"] == instance["id"]
    assert (first["state"], second["state"], second["bpStatus"]) == (state, "Completed OK", "Approved")
    assert len(api.query(state)) == 1


def test_active_rules_show_their_remaining_counts(control: EmulatorControl, api: Api) -> None:
    control.fault("query", "status", times=3, skip=1, status=502)
    for _ in range(2):
        api.call("GET", INSTANCES, params=RUNNING)
    (rule,) = control.faults()
    assert (rule["kind"], rule["fault"], rule["times"], rule["skip"], rule["status"]) == (
        "query",
        "status",
        2,
        0,
        502,
    )
    control.clear_faults()
    api.query("Running")


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "queries", "fault": "delay"},
        {"kind": "query", "fault": "explode"},
        {"kind": "query", "fault": "delay", "times": 0},
        {"kind": "query", "fault": "delay", "seconds": -1},
        {"kind": "query", "fault": "status", "status": 99},
        {"kind": "query", "fault": "delay", "second": 1},
        {"kind": "query", "fault": "delay", "share": 0},
    ],
)
def test_an_invalid_rule_is_refused(control: EmulatorControl, rule: dict[str, Any]) -> None:
    with pytest.raises(EmulatorError, match=r"refused POST /faults: .*(Invalid|Expected|unknown field)"):
        control.fault(**rule)
    assert control.faults() == []


@pytest.mark.parametrize(("fault", "started"), [("drop_before", 0), ("drop_after", 1)])
def test_a_cut_connection_starts_nothing_before_and_one_instance_after_the_work(
    api: Api, control: EmulatorControl, fault: str, started: int
) -> None:
    control.fault("start", fault)
    with pytest.raises(requests.ConnectionError):
        post_start(api)
    assert len(control.instances()) == started
    assert [entry["status"] for entry in control.requests()] == [0]
    assert post_start(api).status_code == 200


@pytest.mark.parametrize("work_done", [False, True])
def test_delay_postpones_the_response(api: Api, control: EmulatorControl, work_done: bool) -> None:
    control.fault("start", "delay", seconds=0.2, work_done=work_done)
    started = time.monotonic()
    assert post_start(api).json()["resCode"] == "0"
    assert time.monotonic() - started >= 0.2
    assert len(control.instances()) == 1


def test_a_delayed_start_happens_even_if_the_client_is_gone(api: Api, control: EmulatorControl) -> None:
    control.fault("start", "delay", seconds=0.1)
    with pytest.raises(requests.ReadTimeout):
        api.session.post(api.url + INSTANCES, json={"name": "Instant"}, headers=api.headers, timeout=0.03)
    deadline = time.monotonic() + 5
    while not control.instances():
        assert time.monotonic() < deadline


@pytest.mark.parametrize("work_done", [False, True])
def test_status_replaces_the_response(api: Api, control: EmulatorControl, work_done: bool) -> None:
    parameters = {"status": 429, "retry_after": 3, "res_code": "4711", "res_msg": "Slowly"}
    control.fault("start", "status", work_done=work_done, **parameters)
    answer = post_start(api)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3")
    assert answer.json() == {"resCode": "4711", "resMsg": "Slowly"}
    assert len(control.instances()) == int(work_done)


def test_code_in_200_refuses_with_http_200(api: Api, control: EmulatorControl) -> None:
    control.fault("start", "code_in_200")
    assert api.refused("POST", INSTANCES, json={"name": "Instant"}) == (200, "405230099")
    assert control.instances() == []


def test_not_json_returns_invalid_json(api: Api, control: EmulatorControl) -> None:
    control.fault("query", "not_json")
    answer = api.call("GET", INSTANCES, params=RUNNING)
    assert answer.status_code == 200
    with pytest.raises(requests.JSONDecodeError):
        answer.json()


def test_html_returns_a_web_page(api: Api, control: EmulatorControl) -> None:
    control.fault("query", "html", status=502)
    answer = api.call("GET", INSTANCES, params=RUNNING)
    assert (answer.status_code, answer.headers["Content-Type"]) == (502, "text/html; charset=utf-8")


def test_redirect_returns_a_location(api: Api, control: EmulatorControl) -> None:
    control.fault("query", "redirect", location="https://elsewhere.invalid/")
    answer = api.call("GET", INSTANCES, params=RUNNING)
    assert (answer.status_code, answer.headers["Location"]) == (302, "https://elsewhere.invalid/")


def test_wrong_shape_swaps_lists_and_objects(api: Api, control: EmulatorControl) -> None:
    control.fault("any", "wrong_shape", times=3)
    assert api.ok("GET", INSTANCES, params=RUNNING) == {"rows": []}
    assert post_start(api).json()["result"][0]["state"] == "Completed OK"
    assert isinstance(api.call("POST", TOKEN, headers={}, data=CREDENTIALS).json(), list)


def test_wrong_types_swaps_strings_and_numbers(api: Api, control: EmulatorControl) -> None:
    control.fault("any", "wrong_types", times=2)
    started = post_start(api).json()
    assert (started["resCode"], started["resMsg"]) == ("0", "Success")
    assert (started["result"]["id"], started["result"]["isClosed"], started["result"]["Ext7"]) == (
        7,
        "seven",
        "seven",
    )
    token = api.call("POST", TOKEN, headers={}, data=CREDENTIALS).json()
    assert token == {"access_token": 7, "expires_in": "seven", "token_type": 7}


def test_other_fields_replaces_fields(api: Api, control: EmulatorControl) -> None:
    control.fault("start", "other_fields", fields={"interviewLabel": 7, "suspended": "false"})
    started = post_start(api).json()["result"]
    assert (started["interviewLabel"], started["suspended"], started["state"]) == (7, "false", "Completed OK")
    control.fault("query", "other_fields", fields={"name": None})
    post_start(api)
    assert [row["name"] for row in api.query("Completed OK")] == [None, None]
    assert {row["name"] for row in api.query("Completed OK")} == {"Instant"}


@pytest.mark.parametrize(("fault", "character"), [("nul", "\0"), ("half_pair", "\ud83d")])
def test_nul_and_half_pair_insert_a_character_in_every_string(
    api: Api, control: EmulatorControl, fault: str, character: str
) -> None:
    post_start(api)
    control.fault("any", fault)
    answer = api.call("GET", INSTANCES, params={"states": "Completed OK"}).json()
    assert (answer["resCode"], answer["resMsg"]) == ("0", f"Suc{character}cess")
    (row,) = answer["result"]
    assert (row["state"], row["bpStatus"]) == (f"Comple{character}ted OK", f"Do{character}ne")
    assert (row["title"], row["bpStep"], row["suspended"]) == (f"Ins{character}tant", "", False)
    assert row["id"] == control.instances()[0]["id"]


def test_responses_without_json_are_not_distorted(api: Api, control: EmulatorControl) -> None:
    control.switch(bad_token="401_html")
    control.fault("query", "wrong_types")
    assert api.call("GET", INSTANCES, headers={}).status_code == 401


def test_oversize_appends_bytes(api: Api, control: EmulatorControl) -> None:
    control.fault("query", "oversize", size=100_000)
    answer = api.call("GET", INSTANCES, params=RUNNING)
    assert len(answer.content) > 100_000
    assert answer.json()["result"] == []


def test_truncate_sends_half_of_the_response(api: Api, control: EmulatorControl) -> None:
    control.fault("start", "truncate")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        post_start(api)
    assert len(control.instances()) == 1


def test_trickle_sends_the_response_slowly(api: Api, control: EmulatorControl) -> None:
    control.fault("query", "trickle", seconds=0.2)
    started = time.monotonic()
    assert api.query("Running") == []
    assert time.monotonic() - started >= 0.2


def test_an_outage_cuts_connections_or_returns_503(api: Api, control: EmulatorControl) -> None:
    control.outage()
    for call in (post_start, lambda client: client.call("POST", TOKEN, data=CREDENTIALS)):
        with pytest.raises(requests.ConnectionError):
            call(api)
    control.outage(mode="503")
    assert post_start(api).status_code == 503
    control.outage(False)
    assert control.instances() == []
    assert post_start(api).status_code == 200
    assert control.counts()["start"] == 3


def test_an_outage_uses_up_no_faults(api: Api, control: EmulatorControl) -> None:
    control.fault("start", "html")
    control.outage(mode="503")
    post_start(api)
    assert len(control.faults()) == 1


@pytest.mark.parametrize("work_done", [False, True])
@pytest.mark.parametrize("fault", ["status", "html", "text"])
@pytest.mark.parametrize("status", [400, 404, 409, 429, 499])
def test_a_gateway_response_can_precede_or_follow_the_start(
    status: int, fault: str, work_done: bool, api: Api, control: EmulatorControl
) -> None:
    control.fault("start", fault, status=status, retry_after=7, res_msg="no", work_done=work_done)
    answer = post_start(api)
    assert (answer.status_code, answer.headers["Retry-After"]) == (status, "7")
    assert answer.headers["Content-Type"].partition(";")[0] == {
        "status": "application/json",
        "html": "text/html",
        "text": "text/plain",
    }.get(fault)
    assert fault != "text" or answer.text == "no\n"
    assert len(control.instances()) == int(work_done)
