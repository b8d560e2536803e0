"""The control API, through the methods that tests and scripts use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_astrobpm.emulator import EmulatorControl, EmulatorError
from airflow_provider_astrobpm.emulator.control_api import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.emulator.conftest import Api

INSTANCES = "/u-route/baas/bp/v2.0/runtime/instances"
WAITING = "Waiting for user interaction"


def test_the_index_lists_every_command(control: EmulatorControl) -> None:
    answer = requests.get(f"{control.url}/_emulator", timeout=10).json()
    assert len(answer["commands"]) == len(COMMANDS)
    assert "POST /_emulator/instances/{id}/act" in answer["commands"]


def test_act_completes_the_step_as_a_person(api: Api, control: EmulatorControl) -> None:
    instance_id = api.start()["id"]
    assert control.instance(instance_id)["outcomes"] == ["approve", "reject"]
    after = control.act(instance_id, "approve", by="Li", variables={"comment": "fine"})
    assert (after["state"], after["bp_status"], after["task_outcome"]) == (
        "Completed OK",
        "Approved",
        "approve",
    )
    assert (after["variables"]["comment"], after["outcomes"], after["closed"]) == ("fine", [], True)
    history = [
        (event["what"], event["state"], event["bp_status"])
        for event in control.instance(instance_id)["history"]
    ]
    assert history == [
        ("entered Submit", "Dispatched", "New"),
        ("entered Approve", WAITING, "Submitted"),
        ("Li chose approve", WAITING, "Approved"),
        ("ended", "Completed OK", "Approved"),
    ]


def test_a_rejected_approval_ends_as_completed(api: Api, control: EmulatorControl) -> None:
    after = control.act(api.start()["id"], "reject")
    assert (after["state"], after["bp_status"]) == ("Completed OK", "Rejected")


def test_instances_are_started_and_filtered(api: Api, control: EmulatorControl) -> None:
    waiting = control.start("PublishApproval", {"dataset": "d"}, "key-1", title="Mine", by="Wang")
    control.start("InvoiceCheck", version="1.0.0")
    assert [each["name"] for each in control.instances()] == ["PublishApproval", "InvoiceCheck"]
    (found,) = control.instances(state=WAITING, business_key="key-1", name="PublishApproval")
    assert (found["id"], found["created_by"], found["title"]) == (waiting["id"], "Wang", "Mine")
    assert found["variables"]["dataset"] == "d"
    assert control.instances(name="Nothing") == []
    assert control.instances(business_key="key-2") == []
    (row,) = api.query(WAITING)
    assert (row["createdBy.name"], row["businessKey"]) == ("Wang", "key-1")


def test_instances_can_be_broken_moved_and_removed(api: Api, control: EmulatorControl) -> None:
    broken, moved, vanished = (api.start()["id"] for _ in range(3))
    assert control.break_instance(broken)["state"] == "Broken"
    after = control.move(moved, state="CompletedOkWait", bp_status="Odd", closed=True)
    assert (after["state"], after["bp_status"], after["closed"]) == ("CompletedOkWait", "Odd", True)
    control.vanish(vanished)
    assert {each["id"] for each in control.instances()} == {broken, moved}


def test_a_distortion_changes_how_the_api_shows_an_instance(api: Api, control: EmulatorControl) -> None:
    distorted, other = (api.start("Instant", variables={"$Flow.Title": "a"})["id"] for _ in range(2))
    control.distort(
        distorted, {"title": "half \ud83d", "suspended": "true", "isClosed": None}, without=["bpStatus"]
    )
    rows = {row["id"]: row for row in api.query("Completed OK")}
    assert (rows[distorted]["title"], rows[distorted]["suspended"]) == ("half \ud83d", "true")
    assert not {"bpStatus", "isClosed"} & rows[distorted].keys()
    assert (rows[other]["title"], rows[other]["bpStatus"]) == ("a", "Done")
    control.switch(get_by_id="action")
    read = api.ok("GET", f"{INSTANCES}/{distorted}")
    assert (read["isClosed"], "bpStatus" in read, "title" in read) == (None, False, False)
    control.distort(distorted)
    assert {row["title"] for row in api.query("Completed OK")} == {"a"}


def test_switches_are_read_and_set(control: EmulatorControl) -> None:
    assert control.switches()["row_cap"] is None
    assert control.switch(row_cap=2)["row_cap"] == 2
    control.switch(get_by_id="row")
    assert (control.switches()["row_cap"], control.switches()["get_by_id"]) == (2, "row")


def test_added_processes_can_be_started(api: Api, control: EmulatorControl) -> None:
    control.add_processes("processes: [{name: Mine, steps: [{state: Paused, for: 60}]}]")
    assert {"name": "Mine", "version": "1.0.0", "active": True} in control.processes()
    instance_id = api.start("Mine")["id"]
    control.advance(59)
    assert control.instance(instance_id)["state"] == "Paused"
    control.advance(1)
    assert control.instance(instance_id)["state"] == "Completed OK"


def test_revoked_tokens_are_refused(api: Api, control: EmulatorControl) -> None:
    api.login()
    assert control.revoke_tokens() == 2
    assert control.revoke_tokens() == 0
    assert api.refused("GET", INSTANCES) == (401, "405230602")


def test_reset_restores_the_initial_state(api: Api, control: EmulatorControl) -> None:
    api.start()
    control.switch(row_cap=1)
    control.fault("any", "html")
    control.outage()
    control.advance(1e6)
    control.add_processes("processes: [{name: Mine}]")
    control.reset()
    assert (control.instances(), control.faults(), control.requests()) == ([], [], [])
    assert control.switches()["row_cap"] is None
    assert "Mine" not in {each["name"] for each in control.processes()}
    assert api.refused("GET", INSTANCES) == (401, "405230602")
    clock = requests.get(f"{control.url}/_emulator/clock", timeout=10).json()
    outage = requests.get(f"{control.url}/_emulator/outage", timeout=10).json()
    assert (clock["ahead"], outage) == (0, {"mode": "off"})


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (lambda control: control.instance("x"), "refused GET /instances/x: Instance x does not exist"),
        (
            lambda control: control.vanish("a/b"),
            "refused DELETE /instances/a%2Fb: Instance a/b does not exist",
        ),
        (lambda control: control.act("x", "approve"), "Instance x does not exist"),
        (
            lambda control: control.act(control.start("Instant")["id"], "approve"),
            "(Completed OK): it waits for no person",
        ),
        (lambda control: control.act(control.start("PublishApproval")["id"], "buy"), "): approve, reject"),
        (lambda control: control.move(control.start("Instant")["id"], state="Lost"), "unknown state 'Lost'"),
        (lambda control: control.start("Nothing"), "BPM Nothing does not exist"),
        (lambda control: control.switch(row_cap=0), "switch row_cap has no position 0"),
        (lambda control: control.switch(nothing=0), "unknown switch 'nothing'"),
        (lambda control: control.advance(-1), "seconds must be 0 or more"),
        (lambda control: control.outage(mode="flood"), "Invalid enum value 'flood'"),
        (
            lambda control: control.add_processes("processes: [{name: 1}]"),
            "request body: process 1: name must be text",
        ),
    ],
)
def test_a_refused_command_returns_the_reason(
    control: EmulatorControl, command: Callable[[EmulatorControl], Any], message: str
) -> None:
    with pytest.raises(EmulatorError) as caught:
        command(control)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/instances?colour=red", ""),
        ("POST", "/instances", "{"),
        ("POST", "/instances", '{"name": "A", "x": 1}'),
    ],
)
def test_an_invalid_request_returns_400(control: EmulatorControl, method: str, path: str, body: str) -> None:
    answer = requests.request(method, f"{control.url}/_emulator{path}", data=body, timeout=10)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_an_unreachable_emulator_is_reported() -> None:
    control = EmulatorControl("http://127.0.0.1:1")
    with pytest.raises(
        EmulatorError, match=r"the emulator at http://127\.0\.0\.1:1 did not answer GET /counts: "
    ):
        control.counts()
    with pytest.raises(ValueError, match="the control URL must be"):
        EmulatorControl("127.0.0.1:1")


def test_control_requests_are_not_counted(control: EmulatorControl) -> None:
    control.switches()
    assert sum(control.counts().values()) == 0


ALIASES = "\n".join(f"      a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 10)}]" for n in range(9))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (f"processes: {'[' * 100_000}", "nested more than 32 levels deep"),
        ("- " * 100_000, "nested more than 32 levels deep"),
        (f"processes: [{','.join(['[' * 150 + ']' * 150] * 800)}]", "nested more than 32 levels deep"),
        (f"processes: [{','.join(['[' * 30 + ']' * 30] * 4000)}]", "more than 100,000 values"),
        (f"processes:\n  - name: A\n    variables:\n{ALIASES}", "including those that aliases repeat"),
        ("processes: &a [*a]", "an alias refers to a value that contains it"),
        (
            f"processes: [{'x, ' * 400_000}]",
            "bytes are more than the limit of 262,144; start the emulator with --processes",
        ),
    ],
    ids=["flow", "block", "often", "short", "aliases", "itself", "long"],
)
def test_yaml_that_is_too_large_is_refused_quickly(control: EmulatorControl, script: str, words: str) -> None:
    """The command has ten seconds; without limits, reading takes half a minute or never ends."""
    with pytest.raises(EmulatorError, match=words):
        control.add_processes(script)
    assert control.counts()


def test_deeply_nested_json_is_refused_with_a_message(api: Api, control: EmulatorControl) -> None:
    deep = "[" * 100_000
    for path in ("/_emulator/switches", "/_emulator/instances/x/distortion"):
        answer = requests.put(control.url + path, data=f'{{"a": {deep}', timeout=10)
        assert (answer.status_code, answer.json()["error"]) == (400, "the body is nested too deeply")
    assert api.refused("POST", INSTANCES, data=f'{{"a": {deep}') == (400, "405230010")
