"""How a wait ended, as JSON and back: nothing that is unknown is a success."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.bpm import errors, event
from airflow_provider_astrobpm.bpm.instance import BpmInstance

Make = Callable[..., BpmInstance]
CALL_ERRORS = [kind for kind in event.ERRORS.values() if issubclass(kind, errors.CallError)]


def there_and_back(ending: BpmInstance | Exception) -> BpmInstance | errors.AstroZeroError:
    return event.decode(json.loads(json.dumps(event.encode(ending))))


def test_a_good_end(make: Make) -> None:
    instance = make(state="Completed OK", bp_status="Approved", title="T", end_time="2026-01-01 10:00:00")
    assert there_and_back(instance) == instance


@pytest.mark.parametrize("kind", CALL_ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_of_a_call(kind: type[errors.CallError]) -> None:
    error = kind("the problem", status=418, res_code="405", res_msg="tea")
    error.locate("list", "my_conn")
    arrived = there_and_back(error)
    assert type(arrived) is kind
    assert str(arrived) == str(error)


def test_the_other_errors_of_a_wait(make: Make) -> None:
    instance = make(state="Broken")
    for error in (
        errors.WaitFailedError(instance, "it broke"),
        errors.WaitTimeoutError("instance '1'", 0, instance),
        errors.WaitTimeoutError("instance '1'", 0, None),
        errors.InstanceNotFoundError("instance '1'", most_rows=200),
        errors.SeveralInstancesError("business key 'k'", [instance, instance]),
        errors.SettingsError("host is empty", "my_conn"),
    ):
        arrived = there_and_back(error)
        assert type(arrived) is type(error)
        assert str(arrived) == str(error)
        assert getattr(arrived, "instance", None) == getattr(error, "instance", None)


def test_an_advice_of_its_own_arrives(make: Make) -> None:
    error = errors.InstanceNotFoundError("instance '1'")
    error.advice = "Look elsewhere."
    assert str(there_and_back(error)).endswith("Look elsewhere.")


@pytest.mark.parametrize("ending", [RuntimeError(), errors.AstroZeroError("no"), None], ids=repr)
def test_it_says_who_waited(ending: Exception | None, make: Make) -> None:
    sent = event.encode(ending or make(state="Completed OK"), "this try")
    assert not event.is_for_another(sent, "this try")
    assert event.is_for_another(sent, "another")
    event.decode(json.loads(json.dumps(sent)))


@pytest.mark.parametrize("arrived", [None, {}, [], "x", {"waiter": None}, {"status": "success"}], ids=repr)
def test_where_nobody_knows_who_waited_it_is_taken(arrived: object) -> None:
    assert not event.is_for_another(arrived, "this try")
    assert not event.is_for_another({"waiter": "another"}, None)


def test_an_unexpected_error_does_not_say_what_it_may_hold() -> None:
    arrived = there_and_back(RuntimeError("the token is abc"))
    assert type(arrived) is errors.AstroZeroError
    assert "RuntimeError" in str(arrived)
    assert "abc" not in str(arrived)


@pytest.mark.parametrize(
    "arrived",
    [
        None,
        {},
        [],
        "success",
        True,
        {"status": "success"},
        {"status": "success", "instance": None},
        {"status": "success", "instance": {"id": "1"}},
        {"status": "success", "instance": {"id": 1, "name": "A", "state": "Completed OK"}},
        {"status": "Success", "instance": {"id": "1", "name": "A", "state": "Completed OK"}},
        {"status": "done"},
        {"status": "failure"},
        {"status": "failure", "error": "SystemExit", "problem": "x"},
        {"instance": {"id": "1", "name": "A", "state": "Completed OK"}},
    ],
)
def test_whatever_else_arrives_is_an_error_that_shows_it(arrived: object) -> None:
    with pytest.raises(errors.UnknownEventError, match="is not one that this task knows") as caught:
        event.decode(arrived)
    assert repr(arrived) in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["status", "instance", "error", "x"]), inner)
    ),
    max_leaves=8,
)


@given(JSON)
def test_no_other_json_is_taken(arrived: Any) -> None:
    with pytest.raises(errors.UnknownEventError):
        event.decode(arrived)
