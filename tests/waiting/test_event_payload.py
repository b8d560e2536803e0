"""The end of a wait as JSON and back: nothing unknown is a success."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.waiting import event_payload
from airflow_provider_astrobpm.waiting.batch_wait import BatchWaitResult

Make = Callable[..., BpmInstance]
CALL_ERRORS = [kind for kind in event_payload.ERRORS.values() if issubclass(kind, errors.CallError)]


def round_trip(ending: BpmInstance | Exception) -> BpmInstance | errors.AstroZeroError:
    return event_payload.load(json.loads(json.dumps(event_payload.dump(ending))))


def test_success_survives_the_round_trip(make: Make) -> None:
    instance = make(state="Completed OK", bp_status="Approved", title="T", end_time="2026-01-01 10:00:00")
    assert round_trip(instance) == instance


@pytest.mark.parametrize("kind", CALL_ERRORS, ids=lambda kind: kind.__name__)
def test_call_errors_survive_the_round_trip(kind: type[errors.CallError]) -> None:
    error = kind("the problem", status=418, res_code="405", res_msg="tea")
    error.add_context("list", "my_conn")
    arrived = round_trip(error)
    assert type(arrived) is kind
    assert str(arrived) == str(error)


def test_other_wait_errors_survive_the_round_trip(make: Make) -> None:
    instance = make(state="Broken")
    for error in (
        errors.WaitFailedError(instance, "it broke"),
        errors.WaitTimeoutError("instance '1'", 0, instance),
        errors.WaitTimeoutError("instance '1'", 0, None),
        errors.InstanceNotFoundError("instance '1'", most_rows=200),
        errors.SeveralInstancesError("business key 'k'", [instance, instance]),
        errors.SettingsError("host is empty", "my_conn"),
    ):
        arrived = round_trip(error)
        assert type(arrived) is type(error)
        assert str(arrived) == str(error)
        assert getattr(arrived, "instance", None) == getattr(error, "instance", None)


def test_custom_advice_survives_the_round_trip(make: Make) -> None:
    error = errors.InstanceNotFoundError("instance '1'")
    error.advice = "Look elsewhere."
    assert str(round_trip(error)).endswith("Look elsewhere.")


@pytest.mark.parametrize("ending", [RuntimeError(), errors.AstroZeroError("no"), None], ids=repr)
def test_names_the_waiting_task_instance(ending: Exception | None, make: Make) -> None:
    sent = event_payload.dump(ending or make(state="Completed OK"), "this try")
    assert not event_payload.is_for_other_task_instance(sent, "this try")
    assert event_payload.is_for_other_task_instance(sent, "another")
    event_payload.load(json.loads(json.dumps(sent)))


@pytest.mark.parametrize("arrived", [None, {}, [], "x", {"waiter": None}, {"status": "success"}], ids=repr)
def test_an_event_without_a_task_instance_is_accepted(arrived: object) -> None:
    assert not event_payload.is_for_other_task_instance(arrived, "this try")
    assert not event_payload.is_for_other_task_instance({"waiter": "another"}, None)


def test_does_not_quote_an_unexpected_error() -> None:
    arrived = round_trip(RuntimeError("the token is abc"))
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
        "\ud800",
        {"status": "success", "\ud800": 1},
        {"status": "success", "instance": {"id": "1", "name": "A", "state": "\ud800", "version": 1}},
    ],
)
def test_any_other_payload_is_an_error_that_quotes_it(arrived: object) -> None:
    with pytest.raises(errors.UnknownEventError, match="does not understand its trigger's event") as caught:
        event_payload.load(arrived)
    assert repr(arrived) in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["status", "instance", "error", "x"]), inner)
    ),
    max_leaves=8,
)


@given(JSON)
def test_refuses_any_other_json(arrived: Any) -> None:
    with pytest.raises(errors.UnknownEventError):
        event_payload.load(arrived)


class TestBatches:
    IDS = ("1", "2", "3", "4", "5")
    END = BatchWaitResult(1, {"4": "it broke", "2": "it is gone", "5": "it broke"}, ("3",))

    def round_trip(
        self, end: BatchWaitResult, error: Exception | None = None
    ) -> tuple[BatchWaitResult | None, errors.AstroZeroError | None]:
        sent = json.loads(json.dumps(event_payload.dump_batch(end, self.IDS, error)))
        return event_payload.load_batch(sent, self.IDS)

    def test_each_outcome_survives_the_round_trip(self) -> None:
        assert self.round_trip(self.END) == (self.END, None)

    def test_the_error_that_ended_the_wait_survives(self) -> None:
        end, error = self.round_trip(self.END, errors.WaitTimeoutError("5 instances", 0, None))
        assert end == self.END
        assert isinstance(error, errors.WaitTimeoutError)

    def test_an_error_without_a_result_survives(self) -> None:
        end, error = event_payload.load_batch(event_payload.dump(errors.ServerError("down")), self.IDS)
        assert (end, type(error)) == (None, errors.ServerError)

    def test_the_event_is_short(self) -> None:
        ids = [f"002N{number:016}" for number in range(10_000)]
        end = BatchWaitResult(0, dict.fromkeys(ids[:100], "it ended in state 'Broken'"), tuple(ids[100:]))
        assert len(json.dumps(event_payload.dump_batch(end, ids))) < 11_000

    def test_names_the_waiting_task_instance_of_a_batch(self) -> None:
        assert event_payload.is_for_other_task_instance(
            event_payload.dump_batch(self.END, self.IDS, None, "me"), "you"
        )
        assert not event_payload.is_for_other_task_instance(
            event_payload.dump_batch(self.END, self.IDS, None, "me"), "me"
        )

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
    def test_refuses_an_incomplete_event(self, change: dict[str, Any]) -> None:
        sent = event_payload.dump_batch(self.END, self.IDS) | change
        with pytest.raises(errors.UnknownEventError):
            event_payload.load_batch(sent, self.IDS)

    @pytest.mark.parametrize("sent", [None, {}, [], "success", 1])
    def test_refuses_an_event_that_is_not_a_batch_event(self, sent: object) -> None:
        with pytest.raises(errors.UnknownEventError):
            event_payload.load_batch(sent, self.IDS)

    def test_refuses_the_event_of_a_single_instance(self, make: Make) -> None:
        with pytest.raises(errors.UnknownEventError):
            event_payload.load_batch(event_payload.dump(make()), self.IDS)
        with pytest.raises(errors.UnknownEventError):
            event_payload.load(event_payload.dump_batch(self.END, self.IDS))


BAD = "a NUL \0 and a half \ud83d"


def is_clean(sent: Any) -> bool:
    text = json.dumps(sent, ensure_ascii=False)
    return "\\u0000" not in text and text.encode() and "\ufffd" in text  # type: ignore[return-value]


def test_an_event_contains_nothing_that_a_database_refuses(make: Make) -> None:
    instance = make(state="Completed OK", title=BAD, bp_status=BAD)
    error = errors.RefusedError(BAD, status=400, res_code=BAD, res_msg=BAD)
    error.advice, error.attempt, error.connection = BAD, BAD, BAD
    for ending in (instance, error, errors.WaitFailedError(instance, BAD), errors.SettingsError(BAD, BAD)):
        sent = event_payload.dump(ending, "this try")
        assert is_clean(sent)
        event_payload.load(sent)
    sent = event_payload.dump_batch(BatchWaitResult(0, {"1": BAD}, ("2",)), ["1", "2"], error)
    assert is_clean(sent)
    end, failure = event_payload.load_batch(sent, ["1", "2"])
    assert end == BatchWaitResult(0, {"1": "a NUL \ufffd and a half \ufffd"}, ("2",))
    assert isinstance(failure, errors.RefusedError)


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("arrived", [nested(100_000), {"status": nested(100_000)}, {"status": 10**5000}])
def test_an_event_that_cannot_even_be_shown_is_an_error(arrived: Any) -> None:
    with pytest.raises(errors.UnknownEventError, match="a (list|dict) that cannot be shown"):
        event_payload.load(arrived)


@pytest.mark.parametrize("addressee", [["0199-waiter"], {}, 7, True])
def test_an_event_with_an_odd_addressee_is_judged_by_its_content(addressee: Any) -> None:
    event = {"status": "success", "waiter": addressee}
    assert not event_payload.is_for_other_task_instance(event, "0199-waiter")
    with pytest.raises(errors.UnknownEventError):
        event_payload.load(event)


def test_half_a_surrogate_pair_in_an_event_never_succeeds(make: Make) -> None:
    event = event_payload.dump(make(state="Completed OK", bp_status="Approved"))
    event["instance"]["bp_status"] = "Approved\ud800"
    arrived = event_payload.load(event)
    assert isinstance(arrived, BpmInstance)
    assert arrived.bp_status == "Approved\ufffd"
