"""The request of each operation, compared with the API reference, and the arguments that are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.client import operations, states

BASE = "/u-route/baas/bp/v2.0/runtime/instances"


def body_of(operation: operations.Operation[Any]) -> Any:
    assert operation.body is not None
    return json.loads(operation.body)


def test_start_matches_the_documented_example() -> None:
    operation = operations.start(
        "createCloudOK_NEW",
        version="1.0.1",
        variables={"name": "sun", "memorySize": "15", "storageSize": "15", "expiryDate": "2018-12-12"},
    )
    assert (operation.method, operation.target) == ("POST", BASE)
    assert body_of(operation) == {
        "name": "createCloudOK_NEW",
        "version": "1.0.1",
        "variables": {"name": "sun", "memorySize": "15", "storageSize": "15", "expiryDate": "2018-12-12"},
    }
    assert not operation.resend_if_in_doubt


def test_business_key_and_title_are_sent_as_system_variables() -> None:
    assert body_of(operations.start("A", business_key="k-1", title="T")) == {
        "name": "A",
        "variables": {"$Flow.BusinessKey": "k-1", "$Flow.Title": "T"},
    }


def test_start_with_only_a_name() -> None:
    assert body_of(operations.start("A")) == {"name": "A"}


@pytest.mark.parametrize("action", operations.ACTIONS)
def test_action_matches_the_documented_example(action: operations.Action) -> None:
    operation = operations.change_state("002N000000Q3QW4IMAOO", action)
    assert (operation.method, operation.target) == ("PUT", f"{BASE}/002N000000Q3QW4IMAOO")
    assert body_of(operation) == {"action": action}


def test_set_variables_sends_the_bare_mapping() -> None:
    operation = operations.set_variables("1", {"cpuNumber": 1, "custVar1": "value1"})
    assert (operation.method, operation.target) == ("PUT", f"{BASE}/1/variables")
    assert body_of(operation) == {"cpuNumber": 1, "custVar1": "value1"}


def test_delete_request() -> None:
    operation = operations.delete("1")
    assert (operation.method, operation.target, operation.body) == ("DELETE", f"{BASE}/1", None)
    assert not operation.resend_if_in_doubt


def test_query_encodes_blanks_as_percent_20() -> None:
    target = operations.query("Completed OK").target
    assert "states=Completed%20OK" in target
    assert "+" not in target


def test_query_requests_documented_columns_newest_first() -> None:
    query = parse_qs(urlsplit(operations.query("Running").target).query)
    assert query["orderField"] == ["startTime"]
    assert query["orderType"] == ["desc"]
    assert {"id", "name", "state", "bpStatus", "businessKey"} <= set(query["fields"][0].split(","))


def test_query_can_leave_columns_and_order_to_the_server() -> None:
    assert operations.query("Running", fields=None, order_field=None).target == f"{BASE}?states=Running"


def test_token_request_has_the_secret_only_in_its_body() -> None:
    operation = operations.get_token("client", "s3cr&t=")
    assert operation.target == "/baas/auth/v1.0/oauth2/token"
    assert operation.body is not None
    assert dict(parse_qsl(operation.body.decode())) == {
        "grant_type": "client_credentials",
        "client_id": "client",
        "client_secret": "s3cr&t=",
    }
    assert "s3cr" not in repr(operation)


def test_definitions_request() -> None:
    assert operations.definitions().target == "/u-route/baas/bp/v2.0/metadata/definitions"
    assert urlsplit(operations.definitions(name="A", like=True, skip=5, limit=1).target).query == (
        "name=A&like=true&skip=5&limit=1"
    )
    assert operations.definition("001L1").target == "/u-route/baas/bp/v2.0/metadata/definitions/001L1"


@given(instance_id=st.text(min_size=1))
def test_ids_cannot_change_the_path(instance_id: str) -> None:
    try:
        target = operations.delete(instance_id).target
    except (ValueError, UnicodeEncodeError):
        return
    segment = target.removeprefix(f"{BASE}/")
    assert segment.strip(".")
    assert not set(segment) & set("/?#\\ ")


class NotJson:
    pass


loose: Any = operations  # untyped, because the arguments below are wrong on purpose


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: loose.start(""), "bpm_name must be a text that is not blank, not ''"),
        (lambda: loose.start("  "), "bpm_name"),
        (lambda: loose.start(7.5), "bpm_name must be a text, not the number 7.5"),
        (lambda: loose.start(None), "bpm_name"),
        (lambda: loose.start("A", version=""), "version"),
        (lambda: loose.start("A", version=1.0), "version"),
        (
            lambda: loose.start("A", variables=["a"]),
            "variables must be a mapping of names to JSON values, not list",
        ),
        (lambda: loose.start("A", variables="a=1"), "variables must be a mapping"),
        (lambda: loose.start("A", variables=[]), "variables must be a mapping"),
        (lambda: loose.start("A", variables={1: "a"}), "each name in variables"),
        (
            lambda: loose.start("A", variables={"v": NotJson()}),
            "variables.'v'. cannot be sent: it is of type NotJson",
        ),
        (lambda: loose.start("A", variables={"v": float("nan")}), "variables.'v'. cannot be sent: it is nan"),
        (
            lambda: loose.start("A", variables={"v": {"w": {b"x"}}}),
            "variables.'v'..'w'.{…} cannot be sent: it is bytes",
        ),
        (lambda: loose.start("A", business_key=""), "business_key"),
        (lambda: loose.start("A", business_key="a", variables={"$Flow.BusinessKey": "b"}), "given twice"),
        (lambda: loose.start("A", title="a", variables={"$Flow.Title": "b"}), "given twice"),
        (lambda: loose.query("completed"), "state must be one of .* not 'completed'"),
        (
            lambda: loose.query("Running", order_type="down"),
            "order_type must be one of 'asc', 'desc', not 'down'",
        ),
        (
            lambda: loose.query("Running", fields=["id"]),
            "fields must include name, state, which every instance needs",
        ),
        (
            lambda: loose.change_state("1", "pause"),
            "action must be one of 'suspend', 'resume', 'terminate', not 'pause'",
        ),
        (lambda: loose.change_state("", "suspend"), "instance_id"),
        (lambda: loose.change_state("..", "terminate"), "instance_id must be an id, not '..'"),
        (lambda: loose.delete(" "), "instance_id"),
        (lambda: loose.set_variables("1", {}), "at least one variable"),
        (lambda: loose.definitions(limit=0), "limit must be a whole number, at least 1"),
        (lambda: loose.definitions(skip=-1), "skip must be a whole number, at least 0"),
    ],
)
def test_invalid_arguments_raise_value_error(build: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()


@pytest.mark.parametrize("state", states.STATES)
def test_every_documented_state_can_be_listed(state: str) -> None:
    assert dict(operations.query(state).query)["states"] == state
