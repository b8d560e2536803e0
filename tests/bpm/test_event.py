"""How a wait ended, as JSON and back: nothing that is unknown is a success."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.bpm import errors, event
from airflow_provider_astrobpm.bpm.group_wait import GroupEnd
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
    with pytest.raises(errors.UnknownEventError, match="does not understand its trigger's event") as caught:
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


class TestGroups:
    IDS = ("1", "2", "3", "4", "5")
    END = GroupEnd(1, {"4": "it broke", "2": "it is gone", "5": "it broke"}, ("3",))

    def there_and_back(
        self, end: GroupEnd, error: Exception | None = None
    ) -> tuple[GroupEnd | None, errors.AstroZeroError | None]:
        sent = json.loads(json.dumps(event.encode_group(end, self.IDS, error)))
        return event.decode_group(sent, self.IDS)

    def test_what_became_of_each(self) -> None:
        assert self.there_and_back(self.END) == (self.END, None)

    def test_what_ended_the_wait_before(self) -> None:
        end, error = self.there_and_back(self.END, errors.WaitTimeoutError("5 instances", 0, None))
        assert end == self.END
        assert isinstance(error, errors.WaitTimeoutError)

    def test_an_error_alone(self) -> None:
        end, error = event.decode_group(event.encode(errors.ServerError("down")), self.IDS)
        assert (end, type(error)) == (None, errors.ServerError)

    def test_it_is_short(self) -> None:
        ids = [f"002N{number:016}" for number in range(10_000)]
        end = GroupEnd(0, dict.fromkeys(ids[:100], "it ended in state 'Broken'"), tuple(ids[100:]))
        assert len(json.dumps(event.encode_group(end, ids))) < 11_000

    def test_it_says_who_waits(self) -> None:
        assert event.is_for_another(event.encode_group(self.END, self.IDS, None, "me"), "you")
        assert not event.is_for_another(event.encode_group(self.END, self.IDS, None, "me"), "me")

    @pytest.mark.parametrize(
        "change",
        [
            {"outcomes": "+-o-"},
            {"outcomes": "+-o-?"},
            {"outcomes": "+++++"},
            {"outcomes": "+----"},
            {"outcomes": None},
            {"reasons": []},
            {"reasons": [["it broke", [1, 3, 4, 4]]]},
            {"reasons": [["it broke", [1, 3, 5]]]},
            {"status": "success"},
            {"status": "groups"},
            {"error": "no"},
        ],
        ids=str,
    )
    def test_what_is_not_whole_is_no_success(self, change: dict[str, Any]) -> None:
        sent = event.encode_group(self.END, self.IDS) | change
        with pytest.raises(errors.UnknownEventError):
            event.decode_group(sent, self.IDS)

    @pytest.mark.parametrize("sent", [None, {}, [], "success", 1])
    def test_what_is_none_at_all_neither(self, sent: object) -> None:
        with pytest.raises(errors.UnknownEventError):
            event.decode_group(sent, self.IDS)

    def test_the_event_of_one_instance_is_none_of_a_group(self, make: Make) -> None:
        with pytest.raises(errors.UnknownEventError):
            event.decode_group(event.encode(make()), self.IDS)
        with pytest.raises(errors.UnknownEventError):
            event.decode(event.encode_group(self.END, self.IDS))


BAD = "a NUL \0 and a half \ud83d"


def is_clean(sent: Any) -> bool:
    text = json.dumps(sent, ensure_ascii=False)
    return "\\u0000" not in text and text.encode() and "\ufffd" in text  # type: ignore[return-value]


def test_an_event_holds_nothing_that_a_database_refuses(make: Make) -> None:
    instance = make(state="Completed OK", title=BAD, bp_status=BAD)
    error = errors.RefusedError(BAD, status=400, res_code=BAD, res_msg=BAD)
    error.advice, error.attempt, error.connection = BAD, BAD, BAD
    for ending in (instance, error, errors.WaitFailedError(instance, BAD), errors.SettingsError(BAD, BAD)):
        sent = event.encode(ending, "this try")
        assert is_clean(sent)
        event.decode(sent)
    sent = event.encode_group(GroupEnd(0, {"1": BAD}, ("2",)), ["1", "2"], error)
    assert is_clean(sent)
    end, failure = event.decode_group(sent, ["1", "2"])
    assert end == GroupEnd(0, {"1": "a NUL \ufffd and a half \ufffd"}, ("2",))
    assert isinstance(failure, errors.RefusedError)
